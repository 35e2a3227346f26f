/**
 * Reads what an RPO report is made from, and keeps the report with its operation.
 *
 * Of keys it tells what became of them as it stands now: the report is made before anything is moved out of
 * the annexes again.
 */
import { and, eq, gt, inArray, isNotNull, or, sql } from "drizzle-orm";
import { z } from "zod";
import { CellError } from "../../../contract/errors.ts";
import { type RpoReport, rpoReportSchema } from "../../../contract/failover-api.ts";
import { cellIdSchema, type OpId } from "../../../contract/ids.ts";
import { placementKeySchema } from "../../../contract/placement-key.ts";
import { must } from "../../../runtime/assert.ts";
import type { RpoFacts, RpoKey, RpoPartner } from "../../core/failover/rpo-facts.ts";
import type { Database, Reader } from "../database.ts";
import { placement, router } from "../schema.ts";
import { failover, standby } from "../schema-standby.ts";
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

const namedKeys = z.array(z.object({ key: placementKeySchema, reason: z.string() })).catch([]);
const evidenceSchema = z
  .object({
    quarantined: namedKeys,
    unavailable: namedKeys,
    takenBack: z
      .array(
        z.object({ key: placementKeySchema, cell: z.string(), remoteLsn: z.string().nullable() }),
      )
      .catch([]),
  })
  .partial()
  .catch({});
export type ReportEvidence = z.infer<typeof evidenceSchema>;

/** Throws FAILOVER_UNKNOWN. */
export async function readRpoFacts(reader: Reader, id: OpId, nowMs: number): Promise<RpoFacts> {
  const row = await requireFailoverRow(reader, id);
  const standbys = await severedOf(reader, row);
  const evidence = evidenceSchema.parse(row.evidence);
  const cutMs = (row.fencedAt ?? row.revokedAt ?? row.createdAt).getTime();
  return {
    failover: id,
    cell: must(cellIdSchema.parse(row.cell), "cell"),
    detectedAtMs: row.createdAt.getTime(),
    fencedAtMs: row.fencedAt?.getTime() ?? null,
    partners: standbys.map((one) => toPartner(one)),
    keys: await readKeys(reader, row, standbys, evidence),
    routers: await routersSince(reader, Math.min(cutMs, nowMs) - routersWithinMs),
    rings: await readRings(reader, id),
    incomparable: undefined,
  };
}

function toPartner(row: StandbyRow): RpoPartner {
  const { heartbeatAgeMs, reportedAt, remoteLsn, lagBytes } = row;
  return {
    annex: cellIdSchema.parse(row.annex),
    host: cellIdSchema.parse(row.host),
    buckets: { lo: row.bucketLo, hi: row.bucketHi },
    ...{ remoteLsn, heartbeatAgeMs, lagBytes },
    heartbeatAtMs:
      heartbeatAgeMs === null || reportedAt === null ? null : reportedAt.getTime() - heartbeatAgeMs,
  };
}

async function readKeys(
  reader: Reader,
  { cell }: FailoverRow,
  standbys: readonly StandbyRow[],
  evidence: ReportEvidence,
): Promise<ReadonlyMap<string, RpoKey>> {
  const quarantined = new Map(evidence.quarantined?.map(({ key, reason }) => [key, reason]));
  const unavailable = new Map(evidence.unavailable?.map(({ key, reason }) => [key, reason]));
  const takenBack = new Map(evidence.takenBack?.map((one) => [one.key, one]));
  const owners = [cell, ...standbys.map(({ annex }) => annex)];
  const rows = await reader
    .select({ key: placement.key, cell: placement.cell, state: placement.state })
    .from(placement)
    .where(
      and(
        eq(placement.deleted, false),
        takenBack.size === 0
          ? inArray(placement.cell, owners)
          : or(inArray(placement.cell, owners), inArray(placement.key, [...takenBack.keys()])),
      ),
    );
  return new Map(
    rows.map((row): [string, RpoKey] => {
      const key = placementKeySchema.parse(row.key);
      const back = takenBack.get(key);
      const place = { key, cell: row.cell, remoteLsn: back?.remoteLsn ?? null };
      const suspect = quarantined.get(key);
      if (suspect !== undefined) return [key, { ...place, fate: "quarantined", reason: suspect }];
      if (back !== undefined && back.cell === row.cell) {
        return [key, { ...place, fate: "taken-back", reason: "" }];
      }
      if (row.cell !== cell) return [key, { ...place, fate: "adopted", reason: "" }];
      const reason = unavailable.get(key) ?? "no partner had a copy of it that was in step";
      return [key, { ...place, fate: "unavailable", reason }];
    }),
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
