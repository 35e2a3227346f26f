/**
 * Copies of tables that were begun and that nobody goes on with: PostgreSQL starts a worker for each, and
 * another when that one is cut off; where none is seen for a while none will come.
 *
 * What must always be true: only looks count, never time in which nobody looked; a copy that waits because
 * all workers that may run are at work, or that was not begun, is none.
 */
import type { Queryable } from "../cell/store/queryable.ts";

/** By stream and table: since when, and when last, it was seen without a worker. */
export type UnattendedMemory = Map<
  string,
  ReadonlyMap<string, { readonly sinceMs: number; readonly lastMs: number; readonly looks: number }>
>;

export type UnattendedLimits = {
  /** So long, and in so many looks, a copy may be without a worker: PostgreSQL starts one every 5 s. */
  readonly silentMs: number;
  readonly looks: number;
  /** Two looks that are further apart say nothing of the time between them. */
  readonly gapMs: number;
};
export const unattendedLimits: UnattendedLimits = { silentMs: 20_000, looks: 10, gapMs: 5000 };

/** Tables whose copy was begun (`d`: rows, `f`: the rest of it) and has no worker, though one could be started. */
export async function readUnattended(client: Queryable, name: string): Promise<readonly string[]> {
  const { rows } = await client.query<{ table: string }>(
    `select r.srrelid::regclass::text as table
       from pg_subscription s join pg_subscription_rel r on r.srsubid = s.oid
      where s.subname = $1 and s.subenabled and r.srsubstate in ('d', 'f')
        and not exists (select from pg_stat_subscription w
                         where w.subid = s.oid and w.relid = r.srrelid and w.pid is not null)
        and (select count(*) from pg_stat_subscription w
              where w.subid = s.oid and w.relid is not null and w.pid is not null)
            < current_setting('max_sync_workers_per_subscription')::int
        and (select count(*) from pg_stat_get_subscription(null) w where w.pid is not null)
            < current_setting('max_logical_replication_workers')::int
      order by 1`,
    [name],
  );
  return rows.map(({ table }) => table);
}

/** Those for which nobody will come any more. */
export function seeUnattended(
  memory: UnattendedMemory,
  name: string,
  { tables, nowMs }: { readonly tables: readonly string[]; readonly nowMs: number },
  limits: UnattendedLimits = unattendedLimits,
): readonly string[] {
  const before = memory.get(name);
  const now = new Map(
    tables.map((table) => {
      const seen = before?.get(table);
      const goesOn = seen !== undefined && nowMs - seen.lastMs <= limits.gapMs;
      const sinceMs = goesOn ? seen.sinceMs : nowMs;
      return [table, { sinceMs, lastMs: nowMs, looks: (goesOn ? seen.looks : 0) + 1 }] as const;
    }),
  );
  memory.set(name, now);
  return [...now].flatMap(([table, { sinceMs, looks }]) =>
    nowMs - sinceMs >= limits.silentMs && looks >= limits.looks ? [table] : [],
  );
}
