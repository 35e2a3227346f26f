/**
 * Assembles the RPO report of a failover: what routers handed in, positions of partners, and what the
 * adopters hold. Nothing here waits for long: a report that could know more is better than none, and says so.
 */
import type { RpoReport } from "../../../contract/failover-api.ts";
import type { OpId } from "../../../contract/ids.ts";
import type { Clock } from "../../../runtime/clock.ts";
import type { Log } from "../../../runtime/log.ts";
import { rpoReportOf, suspectsOf } from "../../core/failover/rpo.ts";
import type { RpoFacts } from "../../core/failover/rpo-facts.ts";
import type { Database } from "../../store/database.ts";
import { routersHandedIn } from "../../store/failover/acks.ts";
import { keepReport, liveRouters, readRpoFacts } from "../../store/failover/report.ts";
import { cellStores } from "../../store/fleet-store.ts";
import type { ResolveSecret } from "../moving/task.ts";
import { findRecords } from "./report-records.ts";

export type ReportEvents = {
  "failover.reported": {
    failover: string;
    cell: string;
    method: string;
    lost: number;
    unknown: number;
    found: number;
  };
  "failover.unasked": { failover: string; cell: string; error: string };
};

export type ReportWorld = {
  readonly database: Database;
  readonly clock: Clock;
  readonly log: Log<ReportEvents>;
  /** What the references of cells' stores stand for. */
  readonly resolve: ResolveSecret;
  /** For routers that live and have not handed in their lists yet. Default 3 s. */
  readonly waitMs?: number;
};

const waitMsDefault = 3000;
const lookEveryMs = 50;
/** A router calls at least every 10 s. */
const liveMs = 15_000;

/** Called while the failover is in step `verifying`, again after a crash. Kept with the operation. */
export async function makeRpoReport(world: ReportWorld, failover: OpId): Promise<RpoReport> {
  const { database, clock, log } = world;
  await waitForRouters(world, failover);
  const read = await readRpoFacts(database.read, failover, clock.nowMs());
  const facts: RpoFacts = { ...read, incomparable: await whyIncomparable(world, read.cell) };
  const suspects = suspectsOf(facts);
  const findingOf = await findRecords(world, facts, suspects);
  const report = rpoReportOf(facts, suspects, findingOf);
  await keepReport(database, failover, report);
  const { lost, unknown, found } = report.totals;
  const { cell, method } = report;
  log.event("failover.reported", { failover, cell, method, lost, unknown, found });
  return report;
}

async function waitForRouters(world: ReportWorld, failover: OpId): Promise<void> {
  const { database, clock } = world;
  const untilMs = clock.monotonicMs() + (world.waitMs ?? waitMsDefault);
  for (;;) {
    const handedIn = await routersHandedIn(database.read, failover);
    const live = await liveRouters(database.read, liveMs);
    if (live.every((router) => handedIn.has(router))) return;
    if (clock.monotonicMs() >= untilMs) return;
    await clock.sleep(lookEveryMs);
  }
}

/** A position is one server's: of databases on several, an acknowledgement tells that of one. */
async function whyIncomparable(world: ReportWorld, cell: string): Promise<string | undefined> {
  const stores = Object.values(await cellStores(world.database.read, cell)).filter(
    ({ kind, ignore, mover }) => kind !== "external" && ignore !== true && mover !== undefined,
  );
  if (stores.length < 2) return undefined;
  const servers = await Promise.all(
    stores.map(async ({ mover }) => {
      try {
        return new URL(await world.resolve(mover ?? "")).host;
      } catch {
        return undefined; // Taken for another server.
      }
    }),
  );
  const isOne = servers[0] !== undefined && servers.every((server) => server === servers[0]);
  return isOne
    ? undefined
    : "the cell's databases stand on several servers, whose positions cannot be compared";
}
