/**
 * Ids whose deletion was lost with the restored backup. What must always be true: an id that was spent
 * stays spent. The cells remember it: their word for a key that ended is `dropped`.
 *
 * A creation that was taken back leaves the same word there. Its id is buried too: one id less costs
 * nothing, and an id given twice gives one customer's late writes and backups to another.
 */
import { sql } from "drizzle-orm";
import { releaseClaimsOf } from "./claims.ts";
import type { Tx } from "./database.ts";
import { backupsNote } from "./tenant-end.ts";

const lostNote =
  "Deleted before the restore of the control plane; its receipt was lost with the backup. What cells had removed and confirmed until then is not known here any more.";

/**
 * Of directories only: an override that is dropped was given back to its container. Reads `recovered`
 * before the tenants that are gone are removed.
 */
export async function buryLost(
  tx: Tx,
  by: { readonly op: string; readonly revision: number },
): Promise<void> {
  const { rows } = await tx.execute<{ keyspace: string; tenant: string }>(sql`
    with lost as (
      select r.key from recovered as r
        join cellfleet_control.tenant as t on t.placement_key = r.key
       where r.outcome = 'gone'
      union
      select c.key from cellfleet_control.recovery_claim as c
       where c.state = 'dropped'
         and not exists (select from cellfleet_control.placement as p where p.key = c.key)
    )
    insert into cellfleet_control.tombstone (keyspace, tenant, op, receipt)
    select split_part(l.key, '/', 1), split_part(l.key, '/', 3), ${by.op},
           jsonb_build_object(
             'tenant', split_part(l.key, '/', 3), 'keyspace', split_part(l.key, '/', 1), 'key', l.key,
             'op', ${by.op}::text, 'complete', false,
             'requestedAt', to_char(clock_timestamp() at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
             'completedAt', null, 'cells', jsonb_build_array(), 'claims', 0,
             'notes', jsonb_build_array(${lostNote}::text, ${backupsNote}::text))
      from lost as l
      left join cellfleet_control.keyspace as k on k.name = split_part(l.key, '/', 1)
     where split_part(l.key, '/', 2) = 'tenant' and coalesce(k.strategy, 'directory') = 'directory'
    on conflict (keyspace, tenant) do nothing
    returning keyspace, tenant`);
  for (const { keyspace, tenant } of rows) {
    await releaseClaimsOf(tx, keyspace, tenant, by.revision);
  }
}
