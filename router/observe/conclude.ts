/** The end of every request and of every tunnel: it is counted, logged, remembered and traced, once. */
import type { Log } from "../../runtime/log.ts";
import type { Random } from "../../runtime/random.ts";
import { type AccessLogPolicy, wantsLine } from "./access-log.ts";
import type { RouterEvents } from "./events.ts";
import type { RouterMetrics } from "./metrics.ts";
import type { Outcomes } from "./outcomes.ts";
import type { RequestRecord } from "./record.ts";
import type { Remembered } from "./remembered.ts";
import type { TopTenants } from "./top-tenants.ts";
import type { Tracing } from "./tracing.ts";

export type Concluding = {
  readonly metrics: RouterMetrics;
  readonly log: Log<RouterEvents>;
  readonly random: Random;
  readonly accessLog: AccessLogPolicy;
  readonly remembered: Remembered;
  readonly tenants: TopTenants;
  readonly outcomes: Pick<Outcomes, "note">;
  /** Undefined: traces are off. */
  readonly tracing: Tracing | undefined;
};

const tenantLabel = ({ keyspace, tenant }: NonNullable<RequestRecord["identity"]>): string =>
  keyspace === "default" ? tenant : `${keyspace}/${tenant}`;

export function conclude(context: Concluding, record: RequestRecord, endedMs: number): void {
  record.count(context.metrics, endedMs);
  context.outcomes.note(record);
  // Only who is carried: a name that nobody has would take the place of one that somebody has.
  if (record.identity !== undefined && record.cell !== undefined) {
    context.tenants.note(tenantLabel(record.identity));
  }
  if (wantsLine(context.accessLog, record, context.random.unit)) {
    context.log.written("request.done", record.line(endedMs));
  }
  context.remembered.consider(record, endedMs);
  if (record.spans !== undefined) context.tracing?.end(record, record.spans, endedMs);
}
