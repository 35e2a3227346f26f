/** Failovers as they are read: rows of `op` and `failover` as one value, and their wire form. */
import { and, desc, eq, gt, lt, sql } from "drizzle-orm";
import { z } from "zod";
import {
  type Failover,
  failoverPlanSchema,
  failoverSchema,
  failoverSteps,
  type RpoReport,
  rpoReportSchema,
  type startFailoverSchema,
} from "../../../contract/failover-api.ts";
import { parseFailoverStep } from "../../core/failover/failover-state.ts";
import type { Reader, Tx } from "../database.ts";
import { type OpRow, toOp } from "../ops.ts";
import { op } from "../schema.ts";
import { failover } from "../schema-standby.ts";

/** Driven by work/failover, not by a machine of core/ops. */
export const failoverKind = "cell.failover";
/** `startedBy` of a failover that nobody asked for. */
export const automatic = "auto";

export type FailoverRow = {
  readonly op: OpRow;
  readonly failover: typeof failover.$inferSelect;
};

/** Of `failover.options`. */
export type FailoverOptions = Pick<
  z.output<typeof startFailoverSchema>,
  "override" | "allowDataLoss" | "provedDead"
>;
const rows = (reader: Reader) =>
  reader.select({ op, failover }).from(failover).innerJoin(op, eq(op.id, failover.op));

export async function findFailover(reader: Reader, id: string): Promise<FailoverRow | undefined> {
  const [row] = await rows(reader).where(eq(failover.op, id));
  return row;
}

/** Not over, oldest first. */
export const openFailovers = (reader: Reader): Promise<FailoverRow[]> =>
  rows(reader).where(eq(failover.open, true)).orderBy(failover.op);

export async function openFailoverOf(
  reader: Reader,
  cell: string,
): Promise<FailoverRow | undefined> {
  const [row] = await rows(reader)
    .where(and(eq(failover.open, true), eq(failover.cell, cell)))
    .limit(1);
  return row;
}

/** Since the last failover that began by itself in a region, if one did within `withinMs`; by this database's clock. */
export async function lastAutomaticMs(
  reader: Reader,
  region: string,
  withinMs: number,
): Promise<number | null> {
  const [row] = await reader
    .select({
      ms: sql<number>`(extract(epoch from clock_timestamp() - max(${failover.createdAt})) * 1000)::float8`,
    })
    .from(failover)
    .where(
      and(
        eq(failover.region, region),
        eq(failover.startedBy, automatic),
        gt(
          failover.createdAt,
          sql`clock_timestamp() - ${withinMs}::float8 * interval '1 millisecond'`,
        ),
      ),
    );
  return row?.ms ?? null;
}

export type FailoverFilter = {
  /** Failovers with an id below this: newest first. */
  readonly before: string | undefined;
  readonly limit: number;
  readonly cell?: string | undefined;
  readonly open?: boolean | undefined;
};

export const listFailovers = (reader: Reader, filter: FailoverFilter): Promise<FailoverRow[]> =>
  rows(reader)
    .where(
      and(
        filter.before === undefined ? undefined : lt(failover.op, filter.before),
        filter.cell === undefined ? undefined : eq(failover.cell, filter.cell),
        filter.open === undefined ? undefined : eq(failover.open, filter.open),
      ),
    )
    .orderBy(desc(failover.op))
    .limit(filter.limit);

/** In the order of whoever enters a step, which either sees what is asked here, or comes before it. */
export async function lockFailover(tx: Tx, id: string): Promise<FailoverRow | undefined> {
  await tx.select({ op: failover.op }).from(failover).where(eq(failover.op, id)).for("update");
  await tx.select({ id: op.id }).from(op).where(eq(op.id, id)).for("update");
  return findFailover(tx, id);
}

const noProgress = {
  ...{ keys: 0, adopted: 0, routed: 0 },
  ...{ unavailable: 0, quarantined: 0, reprotected: 0 },
};
/** Empty until the executor has written some. */
const progressSchema = z
  .record(z.string(), z.unknown())
  .catch({})
  .transform((raw) => ({ ...noProgress, ...raw }));
/** In the order in which they happen: the database keeps an object's members in an order of its own. */
const phasesSchema = z
  .record(z.string(), z.number())
  .catch({})
  .transform((raw) =>
    Object.fromEntries(
      failoverSteps.flatMap((step): [string, number][] => {
        const ms = raw[step];
        return ms === undefined ? [] : [[step, Math.round(ms)]];
      }),
    ),
  );

/** The wire form. */
export function toFailover(row: FailoverRow): Failover {
  const { op: own, failover: one } = row;
  return failoverSchema.parse({
    ...{ id: one.op, cell: one.cell, mode: one.mode, by: one.startedBy },
    ...{ step: parseFailoverStep(own.step) ?? "failed", headline: own.headline, op: toOp(own) },
    plan: failoverPlanSchema.parse(one.plan),
    phases: phasesSchema.parse(one.phases),
    progress: progressSchema.parse(one.progress),
    report: one.report === null ? null : inWholeMs(rpoReportSchema.parse(one.report)),
  });
}

const inWholeMs = (report: RpoReport): RpoReport => ({
  ...report,
  partners: report.partners.map((one) => ({
    ...one,
    heartbeatAgeMs: one.heartbeatAgeMs === null ? null : Math.round(one.heartbeatAgeMs),
  })),
});
