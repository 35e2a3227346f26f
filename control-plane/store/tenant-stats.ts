/**
 * Measured sizes of tenants, and what follows for their cell's load: of declared and measured the
 * larger counts. A cell speaks only for tenants that are placed in it. Bounded by the batch.
 */
import { sql } from "drizzle-orm";
import type { TenantStat } from "../../contract/cell-protocol.ts";
import { type Database, unlessBusy } from "./database.ts";

/** Requests per second that moved by less than this share are not worth a write. */
const rpsShareMin = 0.1;

export async function recordStats(
  database: Database,
  cell: string,
  stats: readonly TenantStat[],
): Promise<void> {
  if (stats.length === 0) return;
  await unlessBusy(database, async (tx) => {
    // Lock order of the house: cell rows, then tenant rows.
    await tx.execute(sql`select 1 from cellfleet_control.cell where id = ${cell} for update`);
    await tx.execute(sql`
      with said as (
        select * from jsonb_to_recordset(${JSON.stringify(stats)}::jsonb)
          as s(keyspace text, tenant text, rows bigint, bytes bigint, rps double precision)
      ), before as (
        select t.id, t.size_bytes, t.size_rps, t.measured_bytes, t.measured_rps,
               s.rows, s.bytes, s.rps
          from said as s
          join cellfleet_control.tenant as t on t.id = s.tenant and t.keyspace = s.keyspace
          join cellfleet_control.placement as p on p.key = t.placement_key and p.cell = ${cell}
         where t.measured_rows <> s.rows or t.measured_bytes <> s.bytes
            or abs(t.measured_rps - s.rps) > ${rpsShareMin} * greatest(t.measured_rps, s.rps)
         order by t.id for update of t
      ), written as (
        update cellfleet_control.tenant as t
           set measured_rows = b.rows, measured_bytes = b.bytes, measured_rps = b.rps
          from before as b where t.id = b.id
      )
      update cellfleet_control.cell as c set
        used_bytes = greatest(0, c.used_bytes + d.bytes), used_rps = greatest(0, c.used_rps + d.rps)
        from (select coalesce(sum(greatest(size_bytes, bytes) - greatest(size_bytes, measured_bytes)), 0) as bytes,
                     coalesce(sum(greatest(size_rps, rps) - greatest(size_rps, measured_rps)), 0) as rps
                from before) as d
       where c.id = ${cell} and (d.bytes <> 0 or d.rps <> 0)`);
  });
}
