/**
 * What routers hand in of a failed-over cell's acknowledged writes, page by page.
 *
 * They are asked only when the cell certainly acknowledges nothing more: a list that was handed in before
 * could lack the last writes. A router that was out of reach is asked when it comes back: the report is
 * amended then. Always true: a page that is sent twice stands here once, and no router can fill the table.
 */
import { and, asc, eq, gt, isNotNull, lt, sql } from "drizzle-orm";
import { z } from "zod";
import { ackedWriteSchema, type RouterAcks } from "../../../contract/cell-protocol.ts";
import { CellError } from "../../../contract/errors.ts";
import { type CellId, type OpId, opIdSchema, parseCellId } from "../../../contract/ids.ts";
import type { Ring } from "../../core/failover/rpo-facts.ts";
import type { Database, Reader, Tx } from "../database.ts";
import { failover, failoverAck } from "../schema-standby.ts";

/** Of one router and failover; with 5,000 writes a page. */
export const ackPagesMax = 200;
/** After the cell was cut off; whoever comes later changes no report. */
const collectForHours = 24;

export type Collect = {
  readonly failover: string;
  readonly cell: CellId;
  /**
   * Who is not asked again: the report counts what they had. One that was started again since has nothing more to
   * say, and would seem to have forgotten.
   */
  readonly handedIn: ReadonlySet<string>;
};

/** Failovers whose lists are wanted now. */
export async function readCollect(reader: Reader): Promise<readonly Collect[]> {
  const rows = await reader
    .select({
      ...{ failover: failover.op, cell: failover.cell },
      handedIn: sql<string[]>`case when ${failover.report} is null then '[]'::jsonb else (
        select coalesce(jsonb_agg(distinct a.router), '[]') from cellfleet_control.failover_ack as a
         where a.failover = ${failover.op} and a.last) end`,
    })
    .from(failover)
    .where(
      and(
        isNotNull(failover.fencedAt),
        gt(failover.fencedAt, sql`now() - make_interval(hours => ${collectForHours})`),
      ),
    )
    .orderBy(asc(failover.op))
    .limit(100);
  return rows.flatMap(({ failover: id, cell, handedIn }) => {
    const parsed = parseCellId(cell);
    if (parsed === undefined) return [];
    return [{ failover: id, cell: parsed, handedIn: new Set(handedIn) }];
  });
}

/** Throws FAILOVER_UNKNOWN, VALIDATION_FAILED. */
export async function recordAcks(database: Database, page: RouterAcks): Promise<void> {
  const { router, instance, entries, completeSinceMs, last } = page;
  await database.transaction(async (tx) => {
    const [row] = await tx
      .select({ cell: failover.cell })
      .from(failover)
      .where(eq(failover.op, page.failover))
      // One page of a failover after the other: the same page, sent twice, meets itself.
      .for("update");
    if (row === undefined || row.cell !== page.cell) {
      throw new CellError(
        "FAILOVER_UNKNOWN",
        `There is no failover ${page.failover} of ${page.cell}.`,
      );
    }
    const mine = and(eq(failoverAck.failover, page.failover), eq(failoverAck.router, router));
    const text = JSON.stringify(entries);
    const same = and(
      ...[mine, eq(failoverAck.instance, instance), eq(failoverAck.last, last)],
      sql`${failoverAck.entries} = ${text}::jsonb`,
    );
    if ((await tx.$count(failoverAck, same)) > 0) return;
    if ((await tx.$count(failoverAck, mine)) >= ackPagesMax) {
      throw new CellError(
        "VALIDATION_FAILED",
        `${router} has handed in ${ackPagesMax} pages for ${page.failover}; no more is kept.`,
      );
    }
    await tx.insert(failoverAck).values({
      ...{ failover: page.failover, router, instance, entries, completeSinceMs, last },
      routerNowMs: page.nowMs,
    });
  });
}

/** Routers whose last page has come. */
export async function routersHandedIn(reader: Reader, id: string): Promise<ReadonlySet<string>> {
  const rows = await reader
    .selectDistinct({ router: failoverAck.router })
    .from(failoverAck)
    .where(and(eq(failoverAck.failover, id), eq(failoverAck.last, true)));
  return new Set(rows.map(({ router }) => router));
}

/**
 * Failovers of which a whole list has come that the report does not count yet, and those that went on without
 * a report because none could be made.
 */
export async function readAmendable(reader: Reader): Promise<readonly OpId[]> {
  const { rows } = await reader.execute<{ id: string }>(sql`
    select f.op as id from cellfleet_control.failover as f
      join cellfleet_control.op as o on o.id = f.op
     where f.fenced_at > now() - make_interval(hours => ${collectForHours + 1})
       and case when f.report is null then o.step in ('reprotecting', 'done') else exists (
         select from cellfleet_control.failover_ack as a
          where a.failover = f.op and a.last and a.id > f.report_acks) end
     order by f.op`);
  return rows.map(({ id }) => opIdSchema.parse(id));
}

/** `upTo`: the newest page of all that were read. Pages of one failover are committed in the order of their ids. */
export async function readRings(
  reader: Reader,
  id: string,
): Promise<{ readonly rings: readonly Ring[]; readonly upTo: number }> {
  const rows = await reader
    .select()
    .from(failoverAck)
    .where(eq(failoverAck.failover, id))
    .orderBy(asc(failoverAck.id));
  const rings = new Map<string, Ring>();
  for (const row of rows) {
    const name = `${row.router}\n${row.instance}`;
    const ring = rings.get(name);
    rings.set(name, {
      ...{ router: row.router, instance: row.instance },
      isWhole: row.last || (ring?.isWhole ?? false),
      // The latest of all pages: what was overwritten meanwhile is gone.
      completeSinceMs: Math.max(row.completeSinceMs, ring?.completeSinceMs ?? row.completeSinceMs),
      offsetMs: row.createdAt.getTime() - row.routerNowMs,
      entries: [...(ring?.entries ?? []), ...pageSchema.parse(row.entries)],
    });
  }
  return { rings: [...rings.values()], upTo: rows.at(-1)?.id ?? 0 };
}

const pageSchema = z.array(ackedWriteSchema);

const keptDays = 7;

/** The lists are large, and the report has what matters of them. */
export const forgetOldAcks = (tx: Tx): Promise<unknown> =>
  tx
    .delete(failoverAck)
    .where(lt(failoverAck.createdAt, sql`now() - make_interval(days => ${keptDays})`));
