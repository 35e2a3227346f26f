/**
 * Reads what an RPO report is made from, and keeps the report with its operation.
 *
 * Of keys it tells to whom the failover gave them, and who has their rows now: moves take them out of the
 * annexes soon, and a report that is amended looks where they are.
 */
import { and, eq, gt, isNotNull, isNull, lt, or, sql } from "drizzle-orm";
import { z } from "zod";
import { CellError } from "../../../contract/errors.ts";
import { type RpoReport, rpoReportSchema } from "../../../contract/failover-api.ts";
import { cellIdSchema, type OpId } from "../../../contract/ids.ts";
import { placementKeySchema } from "../../../contract/placement-key.ts";
import { defaultService } from "../../../contract/service-route.ts";
import { amendmentText } from "../../core/failover/rpo-amend.ts";
import type { Ring, RpoFacts, RpoKey, RpoPartner } from "../../core/failover/rpo-facts.ts";
import { Abandoned } from "../abandoned.ts";
import { recordAudit } from "../audit.ts";
import { type Database, databaseNowMs, type Reader, type Tx } from "../database.ts";
import { recordEvents } from "../events.ts";
import { placement, router } from "../schema.ts";
import { failover, failoverKey, standby } from "../schema-standby.ts";
import { readRings } from "./acks.ts";

/**
 * A router that was seen within this time before the cell was cut off may have acknowledged its writes: cut
 * off from the control plane it goes on with the table that it has, and the cell with it.
 */
const routersWithinMs = 60 * 60_000;

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
    goneForMs: z.number().min(0).optional().catch(undefined),
    annexes: z
      .record(z.string(), z.object({ severed: severedSchema.optional().catch(undefined) }))
      .default({}),
  })
  .catch({ annexes: {} });

/** When witnesses confirmed it gone first: a failover may wait for somebody to begin it. */
const detectedAtMs = ({ createdAt, evidence }: Pick<FailoverRow, "createdAt" | "evidence">) =>
  createdAt.getTime() - (evidenceSchema.parse(evidence).goneForMs ?? 0);

/** Where its stream was cut, store by store; undefined: it never was, so nothing of it was adopted. */
export const severedAt = (
  { evidence }: Pick<FailoverRow, "evidence">,
  { annex }: Pick<StandbyRow, "annex">,
): z.infer<typeof severedSchema> | undefined =>
  evidenceSchema.parse(evidence).annexes[annex]?.severed;

/** Throws FAILOVER_UNKNOWN. */
export async function readRpoFacts(
  reader: Reader,
  id: OpId,
  nowMs: number,
): Promise<RpoFacts & { readonly upTo: number }> {
  const row = await requireFailoverRow(reader, id);
  const standbys = await severedOf(reader, row);
  const cutMs = (row.fencedAt ?? row.revokedAt ?? row.createdAt).getTime();
  const { routers, newcomers } = await readRouters(reader, Math.min(cutMs, nowMs));
  const { rings, upTo } = await readRings(reader, id);
  // Whoever came later, and says itself that it acknowledged nothing, has no part in it.
  const has = ({ router: of, entries }: Ring) => entries.length > 0 || !newcomers.has(of);
  return {
    failover: id,
    cell: cellIdSchema.parse(row.cell),
    detectedAtMs: detectedAtMs(row),
    fencedAtMs: row.fencedAt?.getTime() ?? null,
    partners: standbys.map((one) => toPartner(row, one)),
    keys: await readKeys(reader, id),
    ...{ routers, rings: rings.filter(has), upTo },
  };
}

function toPartner(of: FailoverRow, row: StandbyRow): RpoPartner {
  const { heartbeatAgeMs, reportedAt } = row;
  const severed = severedAt(of, row);
  return {
    annex: cellIdSchema.parse(row.annex),
    host: cellIdSchema.parse(row.host),
    buckets: { lo: row.bucketLo, hi: row.bucketHi },
    stores: severed?.stores ?? [{ name: defaultService, remoteLsn: row.remoteLsn }],
    heartbeatAgeMs,
    // Its streams were cut after the cell was: what was its age then is older than that.
    heartbeatAtMs: earliest([
      [reportedAt, heartbeatAgeMs],
      ...(severed === undefined ? [] : [[of.fencedAt, severed.heartbeatAgeMs] as const]),
    ]),
  };
}

/** Null: of one nobody knows. */
function earliest(
  seen: ReadonlyArray<readonly [at: Date | null, ageMs: number | null]>,
): number | null {
  const times = seen.map(([at, ageMs]) =>
    at === null || ageMs === null ? undefined : at.getTime() - ageMs,
  );
  const known = times.filter((ms) => ms !== undefined);
  return known.length < times.length ? null : Math.min(...known);
}

async function readKeys(reader: Reader, id: OpId): Promise<ReadonlyMap<string, RpoKey>> {
  const rows = await reader
    .select({ of: failoverKey, owner: placement.cell })
    .from(failoverKey)
    .leftJoin(placement, and(eq(placement.key, failoverKey.key), eq(placement.deleted, false)))
    .where(eq(failoverKey.failover, id));
  return new Map(
    rows.map(({ of: { key, fate, target, epoch, reason, remoteLsn }, owner }): [string, RpoKey] => [
      key,
      {
        ...{ key: placementKeySchema.parse(key), cell: target ?? "", owner, epoch },
        ...{ fate, reason, remoteLsn },
      },
    ]),
  );
}

/** Newcomers began after the cell was cut off. */
async function readRouters(
  reader: Reader,
  cutMs: number,
): Promise<{ readonly routers: readonly string[]; readonly newcomers: ReadonlySet<string> }> {
  const isOld = or(isNull(router.firstSeenAt), lt(router.firstSeenAt, new Date(cutMs)));
  const rows = await reader
    .select({ id: router.id, isOld: sql<boolean>`${isOld}` })
    .from(router)
    .where(gt(router.seenAt, new Date(cutMs - routersWithinMs)))
    .orderBy(router.id);
  return {
    routers: rows.flatMap((one) => (one.isOld ? [one.id] : [])),
    newcomers: new Set(rows.flatMap((one) => (one.isOld ? [] : [one.id]))),
  };
}

/** Live ones are waited for. */
export const liveRouters = async (reader: Reader, withinMs: number): Promise<string[]> => {
  const rows = await reader
    .select({ id: router.id })
    .from(router)
    .where(sql`${router.seenAt} > now() - make_interval(secs => ${withinMs / 1000})`);
  return rows.map(({ id }) => id);
};

/** In place of `before`; whoever amends says so. False: another was kept meanwhile. */
export async function keepReport(
  database: Database,
  id: OpId,
  {
    before,
    report,
    upTo,
  }: { readonly before: RpoReport | null; readonly report: RpoReport; readonly upTo: number },
): Promise<boolean> {
  const keep = async (tx: Tx): Promise<void> => {
    const amends = before !== null && report.revision > before.revision;
    if (amends) await recordAmendment(tx, before, report);
    const { rowCount } = await tx
      .update(failover)
      .set({ report, reportAcks: upTo })
      .where(
        and(
          eq(failover.op, id),
          before === null
            ? isNull(failover.report)
            : sql`coalesce((${failover.report} ->> 'revision')::int, 1) = ${before.revision}`,
        ),
      );
    if ((rowCount ?? 0) === 0) throw new Abandoned("raced");
    if (!amends) return;
    const text = amendmentText(before, report);
    await recordEvents(tx, [{ kind: "failover.amended", object: report.cell, text }]);
  };
  try {
    await database.transaction(keep);
    return true;
  } catch (error) {
    if (error instanceof Abandoned) return false;
    throw error;
  }
}

const actor = { name: "control-plane", role: "system" } as const;

async function recordAmendment(tx: Tx, before: RpoReport, after: RpoReport): Promise<void> {
  const brief = ({ revision, method, methodReason, totals }: RpoReport) => ({
    ...{ revision, method, methodReason, totals },
  });
  await recordAudit(
    tx,
    {
      ...{ actor, action: "failover.amend-report", object: after.cell, outcome: "accepted" },
      reason: `${after.failover}: a router handed in late what it had acknowledged`,
      ...{ before: brief(before), after: brief(after) },
    },
    await databaseNowMs(tx),
  );
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
