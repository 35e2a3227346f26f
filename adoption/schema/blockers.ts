/** Who holds a lock on a table, and since when: what a person needs to know to get on. */
import { z } from "zod";
import type { Queryable } from "../../cell/store/queryable.ts";
import type { Blocker } from "./step.ts";

const queryCharsMax = 200;
const shownMax = 5;

const rowSchema = z.object({
  pid: z.number(),
  user: z.string(),
  application: z.string(),
  state: z.string(),
  transactionMs: z.number(),
  query: z.string(),
});

/**
 * `table` as SQL; undefined: whoever has had a transaction open for long, the oldest first. Other
 * roles' queries are shown to members of pg_read_all_stats alone.
 */
export async function readBlockers(
  client: Queryable,
  table: string | undefined,
): Promise<Blocker[]> {
  const { rows } = await client.query(
    `select a.pid, coalesce(a.usename, a.backend_type) as "user",
            coalesce(nullif(a.application_name, ''), a.backend_type) as application,
            coalesce(a.state, 'background') as state,
            coalesce(extract(epoch from clock_timestamp() - a.xact_start) * 1000, 0)::float8 as "transactionMs",
            left(coalesce(a.query, ''), ${queryCharsMax}) as query
       from pg_stat_activity a
      where a.pid <> pg_backend_pid()
        and case when $1::text is null then a.xact_start is not null
                 else exists (select from pg_locks l
                               where l.pid = a.pid and l.granted and l.relation in (
                                 select t.relid from pg_partition_tree(to_regclass($1)) t
                                 union select to_regclass($1))) end
      order by a.xact_start nulls last limit ${shownMax}`,
    [table ?? null],
  );
  return z.array(rowSchema).parse(rows);
}
