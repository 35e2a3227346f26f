/**
 * Removes the rows of a key that was dropped in this database, in batches, and counts what is left.
 *
 * The database refuses (55000) unless the key's state here is `dropped` or `fenced`; only the agent's role may ask.
 */
import { z } from "zod";
import type { Queryable } from "./queryable.ts";

/** Per guarded table of the key's keyspace: `public.orders` → rows. */
export type RowsPerTable = Readonly<Record<string, number>>;

const lineSchema = z.object({ table: z.string(), rows: z.number() });

/**
 * One batch, of at most `limit` rows in all tables together; 0 everywhere: nothing is left that can be
 * seen. Call it until `countRowsLeft` says 0 as well. Throws 23503 when rows of a table that is not
 * guarded still refer to what is left.
 */
export async function purgeRows(
  client: Queryable,
  key: string,
  limit = 10_000,
): Promise<RowsPerTable> {
  return readRows(client, "table_name, removed", "purge_rows($1, $2)", [key, limit]);
}

/** Every row of the key that stands here, visible or not. Reads whole tables where no index serves. */
export async function countRowsLeft(client: Queryable, key: string): Promise<RowsPerTable> {
  return readRows(client, "table_name, row_count", "rows_left($1)", [key]);
}

async function readRows(
  client: Queryable,
  columns: string,
  call: string,
  args: readonly unknown[],
): Promise<RowsPerTable> {
  const { rows } = await client.query<{ line: unknown }>(
    `select jsonb_build_object('table', r.name, 'rows', r.count) as line
       from (select ${columns} from cellfleet.${call}) r(name, count)`,
    [...args],
  );
  const lines = rows.map((row) => lineSchema.parse(row.line));
  return Object.fromEntries(lines.map(({ table, rows: count }) => [table, count]));
}
