/**
 * The routing table in the control plane's memory, as the log was at one revision, with what is
 * needed to tell a router about it: a delta from where the router is, or a snapshot.
 *
 * It takes a reading of the log whole or not at all: rows first come together, then the table is
 * moved in one synchronous step that cannot fail half way.
 */
import type { RouterSyncResponse } from "../../contract/cell-protocol.ts";
import type { HashKey } from "../../contract/half-sip-hash.ts";
import { parseRevision, type Revision } from "../../contract/ids.ts";
import {
  type AliasGroup,
  type DeltaBody,
  deltaBodySchema,
  type PlacementGroup,
  type SignedDelta,
} from "../../contract/routing-table.ts";
import type { TableLists } from "../../contract/table-checksum.ts";
import {
  isTableRefusal,
  startTable,
  type TableChange,
  type TableState,
} from "../../contract/table-state.ts";
import { must } from "../../runtime/assert.ts";
import { nextTurn } from "../../runtime/clock.ts";
import { type Signer, signaturePurposes } from "../../runtime/signing.ts";
import type { TableSnapshot } from "../api/routing-feed.ts";
import { type ChangeRow, groupChanges, identityOf, isName } from "../core/routing-view.ts";
import type { RoutingHead, RoutingPeek, RoutingReading } from "../store/routing-read.ts";
import { createDeltaWindow, type DeltaWindow } from "./delta-window.ts";
import { buildSnapshot, createSnapshotWriter, snapshotHead } from "./snapshot.ts";

/** More changed rows than this in one reading: the table is read anew, which is cheaper. */
const deltaRowsMax = 100_000;
const deltasCachedMax = 64;
/** Some ten milliseconds of putting a large table in order; then others have their turn. */
const settleBuckets = 100_000;
/** A snapshot of up to this many placements and names is made in milliseconds, so every reader gets the present. */
const buildAtOnceMax = 20_000;
/** A snapshot of a large table is reused while the delta from it to the present is small. */
const reuseRowsMax = 10_000;

type Image = { readonly table: TableState; readonly configRevision: number };

export type RoutingImage = {
  /** Undefined until the log was read once. */
  readonly table: () => TableState | undefined;
  /** The highest epoch ever seen in the log. */
  readonly epochMax: () => number;
  /** Takes in everything up to the revision of the reading; the number of changed rows. */
  readonly follow: (log: RoutingReading) => Promise<number>;
  /** Takes in a few changed placements and names at once; false: this takes a whole reading. */
  readonly take: (peek: RoutingPeek) => boolean;
  /** What is known may not lead to what comes next (a restore): the next reading begins anew. */
  readonly distrust: () => void;
  readonly answerTo: (revision: number, checksum: string) => RouterSyncResponse["answer"];
  /** Of a large table one that leads to the present by deltas, if there is one. */
  readonly snapshot: () => TableSnapshot | undefined;
  /** Makes a new one from the log itself, in small steps. */
  readonly record: (log: RoutingReading) => Promise<TableSnapshot>;
};

export function createRoutingImage(
  signer: Signer,
  windowRowsMax: number,
  hashKey: HashKey,
): RoutingImage {
  const window = createDeltaWindow(windowRowsMax);
  const deltas = createDeltas(signer, window);
  let image: Image | undefined;
  // Epoch 1 is handed out with every new placement, also with those that were never served and are
  // therefore not read here: a cell that presents it proves nothing.
  let epochMax = 1;
  let snapshot: TableSnapshot | undefined;
  let isTrusted = true;

  const leadsOn = ({ revision }: TableSnapshot): boolean =>
    weightOf(image?.table) > buildAtOnceMax &&
    (window.countSince(revision) ?? Number.POSITIVE_INFINITY) <= reuseRowsMax;

  async function load(log: RoutingReading): Promise<number> {
    const table = tableOf(log.head, await log.lists(), hashKey);
    const epoch = await log.epochMax();
    await loadAll(log, table, () => {});
    epochMax = Math.max(epochMax, epoch, log.head.epochMaxSeen);
    isTrusted = true;
    image = { table, configRevision: log.head.configRevision };
    window.restart(log.head.revision);
    return table.size;
  }

  /** False: it takes a new table, as when a keyspace goes. */
  function move(
    { table }: Image,
    head: RoutingHead,
    rows: readonly ChangeRow[],
    lists: TableLists | undefined,
  ): boolean {
    const last = [...new Map(rows.map((row) => [identityOf(row), row])).values()];
    const span = { fleet: head.fleet, from: table.revision, to: head.revision };
    if (!applyChange(table, { ...span, ...lists, ...groupChanges(last) })) return false;
    for (const row of rows) if (!isName(row)) epochMax = Math.max(epochMax, row.epoch);
    image = { table, configRevision: head.configRevision };
    window.add(rows);
    return true;
  }

  async function advance(log: RoutingReading, current: Image): Promise<number> {
    const { head } = log;
    const from = current.table.revision;
    if ((await log.countChanges(from, deltaRowsMax)) > deltaRowsMax) return load(log);
    const rows = await log.rowsAbove(from);
    const lists = head.configRevision > current.configRevision ? await log.lists() : undefined;
    return move(current, head, rows, lists) ? rows.length : load(log);
  }

  return {
    table: () => image?.table,
    epochMax: () => epochMax,
    follow: async (log) => {
      // A revision that fell is a database that was replaced: read it anew.
      if (image === undefined || !isTrusted || log.head.revision < image.table.revision) {
        return load(log);
      }
      return log.head.revision === image.table.revision ? 0 : advance(log, image);
    },
    take: ({ head, rows }) => {
      if (!isTrusted || image === undefined || head.mode !== "normal") return false;
      const isMore = head.revision > image.table.revision;
      const isSame = head.configRevision === image.configRevision;
      return isMore && isSame && move(image, head, rows, undefined);
    },
    distrust: () => {
      isTrusted = false;
    },
    answerTo: (revision, checksum) =>
      answer(must(image, "routing table has been read"), deltas, revision, checksum),
    snapshot: () => {
      const { table } = must(image, "routing table has been read");
      const isCurrent = snapshot?.revision === table.revision;
      if (snapshot !== undefined && (isCurrent || leadsOn(snapshot))) return snapshot;
      if (weightOf(table) > buildAtOnceMax) return undefined;
      snapshot = buildSnapshot(table, signer);
      return snapshot;
    },
    record: async (log) => {
      const table = tableOf(log.head, await log.lists(), hashKey);
      const writer = createSnapshotWriter(signer);
      writer.line(snapshotHead(table, await log.countAll()));
      await loadAll(log, table, writer.line);
      snapshot = writer.end(table);
      return snapshot;
    },
  };
}

/** What a snapshot consists of. */
const weightOf = (table: TableState | undefined): number =>
  (table?.size ?? 0) + (table?.aliasCount ?? 0);

/** Batch by batch, so that a million placements keep nobody else waiting. */
async function loadAll(
  log: RoutingReading,
  table: TableState,
  onGroup: (group: PlacementGroup | AliasGroup) => void,
): Promise<void> {
  await log.groups((group) => {
    const problem = table.load(group);
    if (problem !== undefined) throw new Error(`routing log: ${problem.text}`);
    onGroup(group);
  });
  while (!table.settle(settleBuckets)) await nextTurn();
}

function answer(
  image: Image,
  deltas: Deltas,
  revision: number,
  checksum: string,
): RouterSyncResponse["answer"] {
  const from = parseRevision(revision);
  const ours = image.table.revision;
  if (from === undefined || from > ours) return { kind: "unchanged" };
  if (from === ours) {
    return { kind: checksum === image.table.checksum ? "unchanged" : "snapshot" };
  }
  // Without a checksum there is no table yet that a delta could be applied to.
  const delta = checksum === "" ? undefined : deltas.from(image, from);
  return delta === undefined ? { kind: "snapshot" } : { kind: "delta", delta };
}

type Deltas = {
  /** Undefined: further back than the window reaches. */
  readonly from: (image: Image, revision: Revision) => SignedDelta | undefined;
};

/** Signed once for all routers that stand at the same revision. */
function createDeltas(signer: Signer, window: DeltaWindow): Deltas {
  const known = new Map<number, SignedDelta>();
  let knownTo = -1;
  return {
    from: ({ table, configRevision }, from) => {
      // The table may have moved on since the last one was made.
      if (knownTo !== table.revision || known.size >= deltasCachedMax) known.clear();
      knownTo = table.revision;
      const made = known.get(from);
      if (made !== undefined) return made;
      const rows = window.since(from);
      if (rows === undefined) return undefined;
      const body: DeltaBody = deltaBodySchema.parse({
        fleet: table.fleet,
        from,
        to: table.revision,
        ...(configRevision > from ? table.lists : {}),
        ...groupChanges(rows),
        checksum: table.checksum,
      });
      const text = JSON.stringify(body);
      const signature = signer.sign(signaturePurposes.delta, text);
      const delta = { body: text, keyId: signer.keyId, signature };
      known.set(from, delta);
      return delta;
    },
  };
}

function tableOf(head: RoutingHead, lists: TableLists, hashKey: HashKey): TableState {
  const table = startTable({ fleet: head.fleet, revision: head.revision, ...lists }, hashKey);
  if (isTableRefusal(table)) throw new Error(`routing lists: ${table.text}`);
  return table;
}

function applyChange(table: TableState, change: TableChange): boolean {
  const checksum = table.checksumAfter(change);
  if (typeof checksum !== "string") return false;
  return table.apply({ ...change, checksum }) === undefined;
}
