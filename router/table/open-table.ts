/** Where this router's table comes from: a file of the operator, or the control plane, by its settings. */
import { z } from "zod";
import { CellError } from "../../contract/errors.ts";
import type { ServedCount } from "../../contract/served-counts.ts";
import type { Clock } from "../../runtime/clock.ts";
import { createJsonClient } from "../../runtime/http-client.ts";
import { errorFields, type Log } from "../../runtime/log.ts";
import type { Random } from "../../runtime/random.ts";
import type { TableEvent } from "../../table/events.ts";
import { followTable, readTrustKeys } from "../../table/follow.ts";
import { HandIn, type HandInOptions } from "../acked/hand-in.ts";
import { BlamedByCell, type BlamedKey } from "../cells/blamed-keys.ts";
import type { CellTally, Seen } from "../cells/cell-tally.ts";
import type { RouterConfig } from "../config.ts";
import type { RouterEvents } from "../observe/events.ts";
import type { RouterMetrics } from "../observe/metrics.ts";
import type { Outcomes } from "../observe/outcomes.ts";
import type { WouldRefuse } from "../place/would-refuse.ts";
import type { Trust } from "../trust/trust.ts";
import type { ServedView } from "./served-view.ts";
import { readStaticTable } from "./static-table.ts";

export type OpenedTable = {
  /** Begins to ask the control plane, which is told where this router's admin port is. */
  readonly follow: (adminUrl: string) => void;
  /** Since the control plane last answered; undefined in static mode. */
  readonly ageMs: () => number | undefined;
  /** What a restart would find on the disk; in static mode what is served. */
  readonly storedRevision: () => number;
  /** It seems to be old: asks the control plane at once; nothing in static mode. */
  readonly refresh: () => void;
  /** Static mode: reads the file again. A bad one is refused and logged. */
  readonly reload: () => Promise<void>;
  readonly close: () => Promise<void>;
};

export type TableParts = {
  readonly config: RouterConfig;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log<RouterEvents>;
  readonly metrics: RouterMetrics;
  readonly token: string;
  readonly tally: Pick<CellTally, "take" | "onNews">;
  readonly wouldRefuse: Pick<WouldRefuse, "counts">;
  readonly outcomes: Pick<Outcomes, "totals">;
  /** Before a revision is acknowledged: it may have to arrive in other threads first. */
  readonly settled?: () => Promise<void>;
  readonly served: ServedView;
  readonly ackedBy: AckedSource;
  readonly trust: Pick<Trust, "announced">;
};

/** Where acknowledged writes are remembered: here, or in every worker. */
export type AckedSource = {
  readonly listsOf: HandInOptions["listsOf"];
  /** Tells that somebody's list is gone. */
  readonly onLost: (hear: () => void) => void;
};

export const openTable = (parts: TableParts): Promise<OpenedTable> =>
  parts.config.source.kind === "static"
    ? openStatic(parts, parts.config.source.file)
    : openRemote(parts, parts.config.source);

async function openStatic(parts: TableParts, file: string): Promise<OpenedTable> {
  const { served, log, metrics } = parts;
  const read = async () => {
    const from = served.view()?.table.revision ?? null;
    const view = await readStaticTable(file, (from ?? 0) + 1);
    served.set(view);
    metrics.tableApplied.inc({ kind: "static" });
    const { revision, size } = view.table;
    log.event("table.applied", { revision, from, kind: "static", placements: size, ms: 0 });
  };
  await read();
  return {
    follow: () => {},
    refresh: () => {},
    ageMs: () => undefined,
    storedRevision: () => served.view()?.table.revision ?? 0,
    reload: async () => {
      try {
        await read();
      } catch (error) {
        if (!(error instanceof CellError)) throw error;
        const { message: text } = error;
        onTableEvent(parts, { kind: "refused", reason: "invalid", text, where: file });
      }
    },
    close: async () => {},
  };
}

async function openRemote(
  parts: TableParts,
  source: RouterConfig["source"] & { readonly kind: "control-plane" },
): Promise<OpenedTable> {
  const { config, clock, random, token, tally, wouldRefuse, served, trust } = parts;
  const { url, stateDir, trustKeys } = source;
  let admin = "";
  const outcomes = outcomesNowAndThen(parts);
  const blamed = new BlamedByCell();
  const { handIn, close } = openHandIn(parts, url, () => followed.tell());
  const followed = await followTable({
    ...{ url, token, stateDir, clock, random },
    path: "/v1/machine/router/sync",
    id: config.id,
    verifier: await readTrustKeys(trustKeys, "--trust-keys"),
    report: () => ({
      ...{ admin, wouldRefuse: wouldRefuse.counts() },
      seen: seenOf(tally.take(), blamed, clock.monotonicMs()),
      ...outcomes(),
      keys: trust.announced(),
      collected: [...handIn.collected()],
    }),
    onCollect: (wanted, instance) => handIn.hear(wanted, instance),
    onChange: served.follow,
    ...(parts.settled === undefined ? {} : { settled: parts.settled }),
    onEvent: (event) => onTableEvent(parts, event),
  });
  tally.onNews(followed.tell);
  return {
    follow: (adminUrl) => {
      admin = adminUrl;
      followed.start();
    },
    refresh: followed.refresh,
    ageMs: followed.ageMs,
    storedRevision: followed.storedRevision,
    reload: async () => {},
    close: async () => {
      await followed.close();
      await close();
    },
  };
}

/** Not with every call: a cell that begins to fail makes many. They are totals, so that none is missed. */
const outcomesEveryMs = 5000;

function outcomesNowAndThen({
  clock,
  outcomes,
}: TableParts): () => { readonly served?: ServedCount[] } {
  let toldMs = Number.NEGATIVE_INFINITY;
  return () => {
    const nowMs = clock.monotonicMs();
    if (nowMs - toldMs < outcomesEveryMs) return {};
    const served = outcomes.totals();
    if (served.length === 0) return {};
    toldMs = nowMs;
    return { served };
  };
}

type SeenToTell = Seen & { readonly worst?: BlamedKey[]; readonly worstPartial?: boolean };

/** Of keys that are blamed everything of the last while, so that a report that is lost does no harm. */
function seenOf(
  all: ReturnType<CellTally["take"]>,
  known: BlamedByCell,
  nowMs: number,
): SeenToTell[] {
  return all.map(({ cell, requests, failures, blamed: fresh }) => {
    const blamed = known.worstOf(cell, fresh, nowMs);
    if (blamed === undefined) return { cell, requests, failures };
    return { cell, requests, failures, worst: [...blamed.worst], worstPartial: blamed.partial };
  });
}

const pageMs = 20_000;
const takenSchema = z.object({ kept: z.number() });

function openHandIn(parts: TableParts, url: string, onCollected: () => void) {
  const { config, clock, token, log, ackedBy } = parts;
  const unreachable = "CONTROL_PLANE_UNREACHABLE" as const;
  const client = createJsonClient({ origin: url, token, unreachable });
  const handIn = new HandIn({
    ...{ router: config.id, nowMs: clock.nowMs, listsOf: ackedBy.listsOf, onCollected },
    send: async (body) => {
      const path = "/v1/machine/router/acks";
      await client.call({ method: "POST", path, body, schema: takenSchema, timeoutMs: pageMs });
    },
    onTrouble: (failover, error) =>
      log.event("acks.not-handed-in", { failover, ...errorFields(error) }, "warn"),
  });
  ackedBy.onLost(() => handIn.lost());
  return { handIn, close: () => client.close() };
}

function onTableEvent({ log, metrics, served }: TableParts, event: TableEvent): void {
  switch (event.kind) {
    case "applied": {
      const { by: kind, from, table } = event;
      const { revision, size: placements } = table;
      metrics.tableApplied.inc({ kind });
      const fields = { revision, from, kind, placements, ms: Math.round(event.ms) };
      log.event("table.applied", fields, kind === "delta" ? "debug" : "info");
      return;
    }
    case "refused": {
      const { reason, text, where } = event;
      metrics.tableRefused.inc({ reason });
      log.event("table.refused", { reason, text, where }, "error");
      return;
    }
    case "not-written":
      metrics.tableNotWritten.inc({});
      log.event("table.not-written", errorFields(event.error), "error");
      return;
    case "not-compacted":
      log.event("table.not-written", errorFields(event.error), "warn");
      return;
    case "synced":
      metrics.syncs.inc({ result: "ok" });
      metrics.connected.set(1);
      if (event.recovered) {
        log.event("sync.recovered", { revision: served.view()?.table.revision ?? 0 });
      }
      return;
    case "sync-failed":
      metrics.syncs.inc({ result: "failed" });
      metrics.connected.set(0);
      // Once per outage; the counter has the rest.
      if (event.first) log.event("sync.failed", errorFields(event.error), "warn");
  }
}
