/**
 * Puts tables under the guard. Run it as the tables' owner (or a superuser) after the application's
 * own migrations; running it again changes nothing.
 *
 * Two forms of one plan: `protectTable` runs all of it in one transaction, for tables that nobody
 * uses yet; `protectSteps` hands it out statement by statement, for tables in use.
 */
import { z } from "zod";
import type { Queryable } from "./queryable.ts";

export type ProtectedTable = {
  readonly schema: string;
  readonly table: string;
  readonly keyColumn: string;
  readonly keyspace: string;
};

const stepSchema = z.object({
  /** For people: `guard trigger on public.orders`. */
  what: z.string(),
  /** One statement. Run it by itself, in autocommit; safe to repeat, also after it succeeded. */
  sql: z.string(),
  /**
   * The strongest lock on the application's table. The statement holds it for milliseconds, but waits
   * for it behind whoever uses the table, and all who come later wait behind the statement: set a
   * short `lock_timeout` and repeat on 55P03. `none`: may take long, and stands in nobody's way.
   */
  lock: z.enum(["none", "share-row-exclusive", "access-exclusive"]),
  /**
   * Run the statement only when this query has answered `true` in its only column, or transactions
   * would be refused meanwhile (CF010: in stage `enforce` an id range has to be leased first).
   */
  waitFor: z.string().nullable(),
});
export type ProtectStep = z.infer<typeof stepSchema>;

/**
 * What is still to be done, in order; nothing when the table is protected. After an interruption
 * ask anew: what was done is not in the list any more.
 */
export async function protectSteps(
  client: Queryable,
  table: ProtectedTable,
): Promise<ProtectStep[]> {
  return readSteps(client, "protect_plan($1, $2, $3, $4)", argsOf(table));
}

/** The way back, in the same form; ids go on in plain sequences, above all that are there. */
export async function unprotectSteps(
  client: Queryable,
  schema: string,
  table: string,
): Promise<ProtectStep[]> {
  return readSteps(client, "unprotect_plan($1, $2)", [schema, table]);
}

export async function protectTable(client: Queryable, table: ProtectedTable): Promise<void> {
  await client.query("select cellfleet.protect_table($1, $2, $3, $4)", argsOf(table));
}

/** Takes the guard off: the table is then fenced no more. */
export async function unprotectTable(
  client: Queryable,
  schema: string,
  table: string,
): Promise<void> {
  await client.query("select cellfleet.unprotect_table($1, $2)", [schema, table]);
}

const argsOf = ({ schema, table, keyColumn, keyspace }: ProtectedTable): string[] => [
  schema,
  table,
  keyColumn,
  keyspace,
];

async function readSteps(
  client: Queryable,
  plan: string,
  args: readonly string[],
): Promise<ProtectStep[]> {
  const { rows } = await client.query<{ step: unknown }>(
    `select jsonb_build_object('what', p.what, 'sql', p.statement, 'lock', p.lock_mode,
                               'waitFor', p.wait_for) as step
       from cellfleet.${plan} with ordinality p order by p.ordinality`,
    [...args],
  );
  return rows.map((row) => stepSchema.parse(row.step));
}
