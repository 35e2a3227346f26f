/**
 * What the gates of a failover are judged by, read in one transaction: for a plan in a snapshot, for its
 * beginning under the fleet's lock.
 */
import { and, desc, eq, inArray, ne } from "drizzle-orm";
import { manualLeaseMsMax } from "../../../contract/lease-mode.ts";
import { bucketCount, bucketOf, parsePlacementKey } from "../../../contract/placement-key.ts";
import type { Verdict } from "../../core/failover/detect.ts";
import { type FailoverMode, gateLimits, type PartnerFacts } from "../../core/failover/gates.ts";
import type { PlanFacts } from "../../core/failover/plan.ts";
import type { CellView } from "../../core/fleet.ts";
import { wholeCells } from "../../core/fleet.ts";
import { countsAsManual } from "../../core/lease-mode.ts";
import { databaseNowMs, type Reader } from "../database.ts";
import { readCells } from "../fleet-store.ts";
import { fleet, keyspace, op, placement } from "../schema.ts";
import { standby } from "../schema-standby.ts";
import { lastAutomaticMs, openFailovers } from "./read.ts";
import { crossingOp, optionalRefusals } from "./start-rules.ts";
import { readDesk } from "./witnesses.ts";

export type AskedFacts = {
  readonly cell: CellView;
  readonly mode: FailoverMode;
  readonly automatic: boolean;
  readonly provedDead: boolean;
  /** As judged in this moment; undefined: as the leader wrote down last. */
  readonly verdicts: readonly Verdict[] | undefined;
};

/** What was written down longer ago says nothing about now. */
const verdictsFreshMs = 5000;
/** An annex whose agent was not heard for so long could not be told to take over. */
const annexSilentMsMax = 10_000;

export async function readFacts(reader: Reader, asked: AskedFacts): Promise<PlanFacts> {
  const { cell, mode, automatic } = asked;
  const nowMs = await databaseNowMs(reader);
  const cells = await readCells(reader);
  const open = (await openFailovers(reader)).map(({ op: own, failover }) => ({
    ...{ op: failover.op, cell: failover.cell, step: own.step },
  }));
  const verdicts = asked.verdicts ?? (await freshVerdicts(reader));
  const owned = await readOwned(reader, cell.id);
  const standbys = await readStandbys(reader, cell.id);
  const look = { cell, cells, nowMs, owned, failing: new Set(open.map((one) => one.cell)) };
  const partners = standbys.map((row) => partnerOf(row, { ...look, verdicts }));
  const { unavailable, unavailableReason } = uncovered(owned, standbys, partners);
  const [head] = await reader.select({ mode: fleet.mode, reason: fleet.modeReason }).from(fleet);
  const hosts = partners.map(({ host }) => host);
  return {
    ...{ cell, mode, automatic, partners, open, verdicts },
    cells: wholeCells(cells).filter(({ state }) => state !== "retired"),
    fleetMode: { name: head?.mode ?? "normal", reason: head?.reason ?? "" },
    keys: { all: owned.keys, unavailable },
    lastAutomaticMs: await lastAutomaticMs(reader, cell.region, gateLimits.automaticEveryMs),
    intended: await stoppedOnPurpose(reader),
    busy: await crossingOp(reader, cell.id),
    leaseLeftMs: leaseLeftMs(cell, nowMs),
    refusals: await optionalRefusals(reader, { cell: cell.id, mode, hosts }),
    promiseLeftMs: Math.max(0, ...standbys.map((row) => promiseLeft(row, nowMs))),
    provedDead: asked.provedDead,
    unavailableReason,
  };
}

async function freshVerdicts(reader: Reader): Promise<readonly Verdict[]> {
  const { verdicts, ageMs } = await readDesk(reader);
  return ageMs !== null && ageMs <= verdictsFreshMs ? verdicts : [];
}

/** One that the cell gave itself in the moment before its end nobody has recorded. */
function leaseLeftMs({ leaseUntilMs, leaseMode }: CellView, nowMs: number): number {
  const own = countsAsManual(leaseMode) ? manualLeaseMsMax : 0;
  return Math.max(own, leaseUntilMs - nowMs);
}

type StandbyRow = typeof standby.$inferSelect;

const readStandbys = (reader: Reader, origin: string): Promise<StandbyRow[]> =>
  reader
    .select()
    .from(standby)
    .where(and(eq(standby.origin, origin), ne(standby.state, "gone")))
    .orderBy(standby.bucketLo, standby.annex);

const promiseLeft = ({ promiseRemainingMs, reportedAt }: StandbyRow, nowMs: number): number =>
  reportedAt === null ? 0 : promiseRemainingMs - (nowMs - reportedAt.getTime());

type Owned = {
  readonly keys: number;
  /** Keys by bucket. */
  readonly buckets: readonly number[];
};

async function readOwned(reader: Reader, cell: string): Promise<Owned> {
  const rows = await reader
    .select({
      key: placement.key,
      ...{ strategy: keyspace.strategy, slotCount: keyspace.slotCount },
    })
    .from(placement)
    .innerJoin(keyspace, eq(keyspace.name, placement.keyspace))
    .where(
      and(eq(placement.cell, cell), eq(placement.deleted, false), ne(placement.state, "deleting")),
    );
  const buckets = Array.from({ length: bucketCount }, () => 0);
  for (const { key, strategy, slotCount } of rows) {
    const parts = parsePlacementKey(key);
    if (parts === undefined) continue;
    const bucket = bucketOf(parts, { strategy, slotCount: slotCount ?? undefined });
    buckets[bucket] = (buckets[bucket] ?? 0) + 1;
  }
  return { keys: rows.length, buckets };
}

const keysIn = ({ buckets }: Owned, lo: number, hi: number): number =>
  buckets.slice(lo, hi + 1).reduce((sum, keys) => sum + keys, 0);

type Look = {
  readonly cell: CellView;
  readonly cells: readonly CellView[];
  readonly nowMs: number;
  readonly owned: Owned;
  /** Cells that are being failed over. */
  readonly failing: ReadonlySet<string>;
  readonly verdicts: readonly Verdict[];
};

function partnerOf(row: StandbyRow, look: Look): PartnerFacts {
  const { cell, cells, owned } = look;
  const host = cells.find(({ id }) => id === row.host);
  const keys = keysIn(owned, row.bucketLo, row.bucketHi);
  const share = owned.keys === 0 ? 0 : keys / owned.keys;
  const used = host?.usage ?? { tenants: 0, bytes: 0 };
  return {
    ...{ annex: row.annex, host: row.host, state: row.state, keys, lagBytes: row.lagBytes },
    buckets: { lo: row.bucketLo, hi: row.bucketHi },
    lagSeconds: lagWhenLastAlive(row, look),
    unfit: unfitFor(row, host, look),
    room: {
      tenants: used.tenants + Math.ceil(cell.usage.tenants * share),
      bytes: used.bytes + Math.ceil(cell.usage.bytes * share),
    },
    capacity: host?.capacity ?? { tenants: 0, bytes: 0 },
  };
}

/**
 * A dead origin sends no heartbeat: its age grows though nothing is lost any more. What counts is how far the
 * partner was behind when the origin was last known to live.
 */
function lagWhenLastAlive(row: StandbyRow, { cell, nowMs, verdicts }: Look): number | null {
  const { heartbeatAgeMs, reportedAt } = row;
  if (heartbeatAgeMs === null || reportedAt === null) return null;
  const seenAtMs = Math.max(0, ...cell.agents.map((agent) => agent.seenAtMs));
  const verdict = verdicts.find((one) => one.cell === cell.id);
  const goneForMs = verdict?.state === "gone" ? verdict.forMs : 0;
  const deadForMs = Math.max(seenAtMs === 0 ? 0 : nowMs - seenAtMs, goneForMs, 0);
  const ageMs = heartbeatAgeMs + (nowMs - reportedAt.getTime());
  return Math.max(0, ageMs - deadForMs) / 1000;
}

function unfitFor(
  row: StandbyRow,
  host: CellView | undefined,
  { nowMs, failing }: Look,
): string | undefined {
  const { state, reason, reportedAt } = row;
  if (state !== "ready") return reason === "" ? `it is ${state}` : `it is ${state}: ${reason}`;
  if (host === undefined || host.state === "retired") return "its host is gone";
  if (failing.has(host.id)) return `${host.id} is itself being failed over`;
  if (host.state === "quarantined") return `${host.id} is quarantined`;
  if (host.health === "down") return `${host.id} is down (${host.healthReason})`;
  const silentMs = reportedAt === null ? null : nowMs - reportedAt.getTime();
  return silentMs !== null && silentMs <= annexSilentMsMax
    ? undefined
    : "its agent has not been heard lately";
}

/** Keys of buckets that no fit partner has; with who should have them, and why they cannot be adopted from. */
function uncovered(
  owned: Owned,
  standbys: readonly StandbyRow[],
  partners: readonly PartnerFacts[],
): { readonly unavailable: number; readonly unavailableReason: string } {
  const fit = new Set(partners.filter(({ unfit }) => unfit === undefined).map((one) => one.annex));
  const covered = standbys.filter(({ annex }) => fit.has(annex));
  const unavailable = owned.buckets.reduce(
    (sum, keys, bucket) =>
      covered.some(({ bucketLo, bucketHi }) => bucketLo <= bucket && bucket <= bucketHi)
        ? sum
        : sum + keys,
    0,
  );
  if (unavailable === 0) return { unavailable, unavailableReason: "" };
  const why = partners.flatMap(({ annex, unfit }) =>
    unfit === undefined ? [] : [`${annex}: ${unfit}`],
  );
  const unavailableReason =
    why.length === 0 ? "no partner holds a copy of them" : `no copy is fit (${why.join("; ")})`;
  return { unavailable, unavailableReason };
}

/** `cell stop` is meant; `cell kill` is a crash to be drilled, and whatever came last counts. */
async function stoppedOnPurpose(reader: Reader): Promise<ReadonlyMap<string, string>> {
  const last = await reader
    .selectDistinctOn([op.object], { id: op.id, cell: op.object, kind: op.kind, actor: op.actor })
    .from(op)
    .where(and(inArray(op.kind, ["cell.stop", "cell.kill", "cell.start"]), ne(op.state, "failed")))
    .orderBy(op.object, desc(op.id));
  return new Map(
    last.flatMap(({ id, cell, kind, actor }) =>
      kind === "cell.stop" ? [[cell, `${actor} stopped ${cell} on purpose (${id})`] as const] : [],
    ),
  );
}
