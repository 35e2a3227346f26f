/**
 * Keys of a failed-over cell that no partner could take over: the only copy is the cell's own. When it has
 * returned, and a person vouches for its database, they go on from there: the cell is told that they are its
 * own again, and ordinary moves bring them into whole cells. It never serves: it has no lease, and routers
 * pass nothing on to it.
 *
 * What must always be true: a key that anybody else was given is none of them.
 */
import { and, eq, sql } from "drizzle-orm";
import type { Reader, Tx } from "../database.ts";
import { rowsPerRevisionMax } from "../ownership-feed.ts";
import { changeRouting } from "../routing-change.ts";
import { placement } from "../schema.ts";

/** Served by nobody since a failover of this cell; what a recovery froze is none of them. */
const isStranded = (cell: string) => sql`cell = ${cell} and not deleted and state = 'unavailable'
  and op in (select op from cellfleet_control.failover where cell = ${cell})`;

export async function countStranded(reader: Reader, cell: string): Promise<number> {
  const { rows } = await reader.execute<{ keys: number }>(sql`
    select count(*)::int as keys from cellfleet_control.placement where ${isStranded(cell)}`);
  return rows[0]?.keys ?? 0;
}

/** How many it were. The caller holds the fleet's lock. */
export async function goOnFromCopy(tx: Tx, cell: string, op: string): Promise<number> {
  for (let all = 0; ; ) {
    const revision = await changeRouting(tx, { config: false });
    const { rowCount } = await tx.execute(sql`
      update cellfleet_control.placement
         set state = 'pending', op = ${op}, attempt = 0, revision = ${revision}
       where key in (select key from cellfleet_control.placement where ${isStranded(cell)}
                      order by key limit ${rowsPerRevisionMax})`);
    all += rowCount ?? 0;
    if ((rowCount ?? 0) < rowsPerRevisionMax) return all;
  }
}

/**
 * Failed-over cells that own keys which their databases have applied again, once nothing is adopted any more
 * that could be one of these: all others have left, or are served by nobody.
 */
export async function cellsGoneOnFrom(reader: Reader): Promise<readonly string[]> {
  const { rows } = await reader.execute<{ id: string }>(sql`
    select c.id from cellfleet_control.cell as c
      join lateral (select f.op from cellfleet_control.failover as f
                     where f.cell = c.id and f.revoked_at is not null
                     order by f.created_at desc limit 1) as f on true
      join cellfleet_control.op as o on o.id = f.op and o.step in ('reprotecting', 'done')
     where c.state = 'quarantined' and c.revoking and exists (
       select from cellfleet_control.placement as p
        where p.cell = c.id and not p.deleted and p.state = 'active')
     order by c.id`);
  return rows.map(({ id }) => id);
}

/** Everything that it owns, whatever its state: none of it is anywhere else. */
export const countOwned = (reader: Reader, cell: string): Promise<number> =>
  reader.$count(placement, and(eq(placement.cell, cell), eq(placement.deleted, false)));

/** A failed-over cell: none of its leases is granted, and routers pass nothing on to it. */
export async function isFailedOver(reader: Reader, cell: string): Promise<boolean> {
  const { rows } = await reader.execute(sql`
    select from cellfleet_control.cell where id = ${cell} and revoking`);
  return rows.length > 0;
}
