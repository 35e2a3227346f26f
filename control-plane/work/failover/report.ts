/** Assembles the RPO report of a failover: what routers handed in, positions of partners, and what adopters hold. */
import type { RpoReport } from "../../../contract/failover-api.ts";
import type { OpId } from "../../../contract/ids.ts";
import type { Clock } from "../../../runtime/clock.ts";
import type { Log } from "../../../runtime/log.ts";
import { rpoReportOf, suspectsOf } from "../../core/failover/rpo.ts";
import type { Database } from "../../store/database.ts";
import { keepReport, readRpoFacts } from "../../store/failover/report.ts";
import type { ResolveSecret } from "../moving/task.ts";

export type ReportEvents = {
  "failover.reported": {
    failover: string;
    cell: string;
    method: string;
    lost: number;
    unknown: number;
    found: number;
  };
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

/** Called while the failover is in step `verifying`, again after a crash. Kept with the operation. */
export async function makeRpoReport(world: ReportWorld, failover: OpId): Promise<RpoReport> {
  const facts = await readRpoFacts(world.database.read, failover, world.clock.nowMs());
  const report = rpoReportOf(facts, suspectsOf(facts), () => "unasked");
  await keepReport(world.database, failover, report);
  return report;
}
