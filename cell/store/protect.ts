/**
 * Puts tables under the guard. Run it as the tables' owner (or a superuser) after the application's
 * own migrations; running it again changes nothing.
 */
import type { Queryable } from "./queryable.ts";

export type ProtectedTable = {
  readonly schema: string;
  readonly table: string;
  readonly keyColumn: string;
  readonly keyspace: string;
};

export async function protectTable(client: Queryable, table: ProtectedTable): Promise<void> {
  await client.query("select cellfleet.protect_table($1, $2, $3, $4)", [
    table.schema,
    table.table,
    table.keyColumn,
    table.keyspace,
  ]);
}

/** Takes the guard off: the table is then fenced no more. */
export async function unprotectTable(
  client: Queryable,
  schema: string,
  table: string,
): Promise<void> {
  await client.query("select cellfleet.unprotect_table($1, $2)", [schema, table]);
}
