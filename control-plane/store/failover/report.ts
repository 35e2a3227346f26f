/**
 * Reads what an RPO report is made from, and keeps the report with its operation.
 *
 * Of keys it tells what became of them as it stands now: the report is made before anything is moved out of
 * the annexes again.
 */
import { and, eq, gt, isNotNull, or, sql } from "drizzle-orm";
import { z } from "zod";
import { CellError } from "../../../contract/errors.ts";
import { type RpoReport, rpoReportSchema } from "../../../contract/failover-api.ts";
import { cellIdSchema, type OpId } from "../../../contract/ids.ts";
import { placementKeySchema } from "../../../contract/placement-key.ts";
import {
  leastLsn,
  type RpoFacts,
  type RpoKey,
  type RpoPartner,
} from "../../core/failover/rpo-facts.ts";
import type { Database, Reader } from "../database.ts";
import { router } from "../schema.ts";
import { failover, failoverKey, standby } from "../schema-standby.ts";
import { readRings } from "./acks.ts";

/** A router that was seen within this time before the cell was cut off may have acknowledged its writes. */
const routersWithinMs = 5 * 60_000;

export type FailoverRow = typeof failover.$inferSelect;
export type StandbyRow = typeof standby.$inferSelect;

/** Throws FAILOVER_UNKNOWN. */
export async function requireFailoverRow(reader: Reader, id: string): Promise<FailoverRow> {
  const [row] = await reader.select().from(failover).where(eq(failover.op, id));
  if (row !== undefined) return row;
  throw new CellError("FAILOVER_UNKNOWN", `There is no failover ${id}.`, {
    nextSteps: ["cellctl failover ls"],
  });
}

/** The annexes that a failover of the cell cut off. */
export const severedOf = (reader: Reader, row: Pick<FailoverRow, "op" | "cell">) =>
  reader
    .select()
    .from(standby)
    .where(
      and(
        eq(standby.origin, row.cell),
        or(eq(standby.orderFailover, row.op), eq(standby.takeoverFailover, row.op)),
      ),
    )
    .orderBy(standby.annex);

const severedSchema = z.object({
  stores: z.array(z.object({ name: z.string(), remoteLsn: z.string().nullable() })),
  heartbeatAgeMs: z.number().nullable(),
});
const evidenceSchema = z
  .object({
    annexes: z.record(z.string(), z.object({ severed: severedSchema.optional().catch(undefined) })),
  })
  .catch({ annexes: {} });

/** Where its stream was cut, store by store; undefined: it never was, so nothing of it was adopted. */
export const severedAt = (
  { evidence }: Pick<FailoverRow, "evidence">,
  { annex }: Pick<StandbyRow, "annex">,
): z.infer<typeof severedSchema> | undefined =>
  evidenceSchema.parse(evidence).annexes[annex]?.severed;

/** Throws FAILOVER_UNKNOWN. */
export async function readRpoFacts(reader: Reader, id: OpId, nowMs: number): Promise<RpoFacts> {
  const row = await requireFailoverRow(reader, id);
  const standbys = await severedOf(reader, row);
  const cutMs = (row.fencedAt ?? row.revokedAt ?? row.createdAt).getTime();
  return {
    failover: id,
    cell: cellIdSchema.parse(row.cell),
    detectedAtMs: row.createdAt.getTime(),
    fencedAtMs: row.fencedAt?.getTime() ?? null,
    partners: standbys.map((one) => toPartner(row, one)),
    keys: await readKeys(reader, id),
    routers: await routersSince(reader, Math.min(cutMs, nowMs) - routersWithinMs),
    rings: await readRings(reader, id),
    incomparable: undefined,
  };
}

function toPartner(of: FailoverRow, row: StandbyRow): RpoPartner {
  const { heartbeatAgeMs, reportedAt } = row;
  const stores = severedAt(of, row)?.stores;
  const remoteLsn =
    stores === undefined ? row.remoteLsn : leastLsn(stores.map((one) => one.remoteLsn));
  return {
    annex: cellIdSchema.parse(row.annex),
    host: cellIdSchema.parse(row.host),
    buckets: { lo: row.bucketLo, hi: row.bucketHi },
    ...{ remoteLsn, heartbeatAgeMs },
    heartbeatAtMs:
      heartbeatAgeMs === null || reportedAt === null ? null : reportedAt.getTime() - heartbeatAgeMs,
  };
}

async function readKeys(reader: Reader, id: OpId): Promise<ReadonlyMap<string, RpoKey>> {
  const rows = await reader.select().from(failoverKey).where(eq(failoverKey.failover, id));
  return new Map(
    rows.map(({ key, fate, target, reason, remoteLsn }): [string, RpoKey] => [
      key,
      { key: placementKeySchema.parse(key), cell: target ?? "", fate, reason, remoteLsn },
    ]),
  );
}

async function routersSince(reader: Reader, sinceMs: number): Promise<string[]> {
  const rows = await reader
    .select({ id: router.id })
    .from(router)
    .where(gt(router.seenAt, new Date(sinceMs)))
    .orderBy(router.id);
  return rows.map(({ id }) => id);
}

/** Live ones are waited for. */
export const liveRouters = async (reader: Reader, withinMs: number): Promise<string[]> => {
  const rows = await reader
    .select({ id: router.id })
    .from(router)
    .where(sql`${router.seenAt} > now() - make_interval(secs => ${withinMs / 1000})`);
  return rows.map(({ id }) => id);
};

export async function keepReport(database: Database, id: OpId, report: RpoReport): Promise<void> {
  await database.read.update(failover).set({ report }).where(eq(failover.op, id));
}

/** Throws FAILOVER_UNKNOWN; null: none was made yet. */
export async function readReport(reader: Reader, id: string): Promise<RpoReport | null> {
  const { report } = await requireFailoverRow(reader, id);
  return report === null ? null : rpoReportSchema.parse(report);
}

/** The last failover of a cell that took keys away from it; undefined: none. */
export async function lastFailoverOf(
  reader: Reader,
  cell: string,
): Promise<FailoverRow | undefined> {
  const [row] = await reader
    .select()
    .from(failover)
    .where(and(eq(failover.cell, cell), isNotNull(failover.revokedAt)))
    .orderBy(sql`${failover.createdAt} desc`)
    .limit(1);
  return row;
}
