/**
 * Assembles the RPO report of a failover: what routers handed in, positions of partners, and what the
 * adopters hold. Nothing here waits for long: a report that could know more is better than none, and says so.
 */
import type { RpoReport } from "../../../contract/failover-api.ts";
import type { OpId } from "../../../contract/ids.ts";
import type { Clock } from "../../../runtime/clock.ts";
import type { Log } from "../../../runtime/log.ts";
import { rpoReportOf, suspectsOf } from "../../core/failover/rpo.ts";
import { amended, keepLost } from "../../core/failover/rpo-amend.ts";
import type { Database } from "../../store/database.ts";
import { routersHandedIn } from "../../store/failover/acks.ts";
import { keepReport, liveRouters, readReport, readRpoFacts } from "../../store/failover/report.ts";
import type { ResolveSecret } from "../moving/task.ts";
import { findRecords } from "./report-records.ts";

export type ReportEvents = {
  "failover.reported": {
    failover: string;
    cell: string;
    method: string;
    revision: number;
    lost: number;
    unknown: number;
    found: number;
  };
  "failover.unasked": { failover: string; cell: string; error: string };
  "failover.unamended": { failover: string; error: string };
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

/**
 * Called while the failover is in step `verifying`, again after a crash, and again for what is handed in late.
 * Kept with the operation.
 */
export async function makeRpoReport(world: ReportWorld, failover: OpId): Promise<RpoReport> {
  const { database, clock, log } = world;
  await waitForRouters(world, failover);
  for (;;) {
    const before = await readReport(database.read, failover);
    const { upTo, ...facts } = await readRpoFacts(database.read, failover, clock.nowMs());
    const suspects = suspectsOf(facts);
    const findingOf = keepLost(before, await findRecords(world, facts, suspects));
    const made = rpoReportOf(facts, suspects, findingOf);
    const report = amended(before, made, clock.nowMs());
    // Another one may have been kept meanwhile: what it names is not to be forgotten.
    if (!(await keepReport(database, failover, { before, report, upTo }))) continue;
    const { lost, unknown, found } = report.totals;
    const { cell, method, revision } = report;
    log.event("failover.reported", { failover, cell, method, revision, lost, unknown, found });
    return report;
  }
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
