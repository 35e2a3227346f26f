/**
 * What of a store belongs to a keyspace: its guarded tables, as both cells must have them.
 */
import pg from "pg";
import { z } from "zod";
import type { Queryable } from "../cell/store/queryable.ts";
import { CellError } from "../contract/errors.ts";
import { compareBytes } from "../contract/placement-key.ts";
import { type FilterColumn, keyTypes } from "./filters.ts";
import type { StoreLogin } from "./ports.ts";

const tableSchema = z.object({
  schema: z.string(),
  table: z.string(),
  partitioned: z.boolean(),
  keyColumn: z.string(),
  keyType: z.enum(keyTypes),
  /** Without generated ones, in their order. */
  columns: z.array(z.object({ name: z.string(), portable: z.boolean() })),
  bytes: z.number(),
});

export type MovedTable = {
  /** With its schema, as SQL writes it. */
  readonly name: string;
  readonly partitioned: boolean;
  readonly key: FilterColumn;
  readonly columns: readonly string[];
  /** Do all values mean the same in another database, byte by byte? */
  readonly binary: boolean;
  /** Of the whole table, with all its tenants. */
  readonly bytes: number;
};

/**
 * Binary forms of arrays and rows of types that users made name those types by numbers of one database,
 * and so do `regclass` and its kin.
 */
const tablesQuery = `
  select jsonb_build_object('schema', n.nspname, 'table', c.relname, 'partitioned', c.relkind = 'p',
           'keyColumn', k.attname, 'keyType', k.atttypid::regtype::text,
           'bytes', (select coalesce(sum(pg_table_size(p.oid)), 0)
                       from (select c.oid union select t.relid from pg_partition_tree(c.oid) t) p(oid)),
           'columns', (select jsonb_agg(jsonb_build_object('name', a.attname,
                              'portable', a.atttypid < 16384 and t.typname !~ '^_?reg') order by a.attnum)
                         from pg_attribute a join pg_type t on t.oid = a.atttypid
                        where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
                          and a.attgenerated = '')) as item
    from cellfleet.guarded_table g
    join pg_namespace n on n.nspname = g.schema_name
    join pg_class c on c.relnamespace = n.oid and c.relname = g.table_name
    join pg_attribute k on k.attrelid = c.oid and k.attname = g.key_column
   where g.keyspace = $1
   order by n.nspname, c.relname`;

export async function readTables(client: Queryable, keyspace: string): Promise<MovedTable[]> {
  const { rows } = await client.query<{ item: unknown }>(tablesQuery, [keyspace]);
  return rows.map(({ item }) => {
    const facts = tableSchema.parse(item);
    return {
      name: `${pg.escapeIdentifier(facts.schema)}.${pg.escapeIdentifier(facts.table)}`,
      partitioned: facts.partitioned,
      key: { name: facts.keyColumn, type: facts.keyType },
      columns: facts.columns.map(({ name }) => name),
      binary: facts.columns.every(({ portable }) => portable),
      bytes: facts.bytes,
    };
  });
}

/** A table that one of the two lacks would lose its rows in silence. */
export function checkSameTables(
  source: { readonly login: StoreLogin; readonly tables: readonly MovedTable[] },
  target: { readonly login: StoreLogin; readonly tables: readonly MovedTable[] },
): void {
  const formOf = ({ name, key, columns }: MovedTable) =>
    `${name} by ${key.name} ${key.type}: ${columns.toSorted(compareBytes).join(", ")}`;
  const there = new Set(target.tables.map(formOf));
  const here = new Set(source.tables.map(formOf));
  const lacking = [
    ...[...here]
      .filter((form) => !there.has(form))
      .map((form) => `${target.login.cell} lacks ${form}`),
    ...[...there]
      .filter((form) => !here.has(form))
      .map((form) => `${source.login.cell} lacks ${form}`),
  ];
  if (lacking.length === 0) return;
  throw new CellError(
    "SCHEMA_UNFIT",
    `Store ${source.login.store} differs in guarded tables or their columns: ${lacking.join("; ")}`,
    { nextSteps: ["migrate and protect both cells alike: cellctl schema check"] },
  );
}
