/**
 * One salvaged row against the database of its tenant's home: looked at, or written.
 *
 * Written as anybody writes there: with the guard, foreign keys and the application's own triggers on, so
 * PostgreSQL itself refuses what the home may not take. Look and write are one transaction that holds the
 * key's shared lock, so that no fence comes in between.
 */
import type pg from "pg";
import type { SalvageVerdict } from "../../../contract/salvage-api.ts";
import { type ChangeKind, judge, type RowValues } from "../../core/failover/salvage.ts";

export type Column = {
  readonly name: string;
  readonly type: string;
  /** PostgreSQL makes its values. */
  readonly isGenerated: boolean;
};
export type TableShape = { readonly name: string; readonly columns: ReadonlyMap<string, Column> };

export type RowToWrite = {
  readonly kind: ChangeKind;
  readonly identity: RowValues;
  readonly row: RowValues | null;
};

/** Which tables are tenants' there, and in which keyspace: `SCHEMA.TABLE` → keyspace. */
export async function keyspacesOfTables(client: pg.Client): Promise<ReadonlyMap<string, string>> {
  const { rows } = await client.query<{ name: string; keyspace: string }>(
    "select schema_name || '.' || table_name as name, keyspace from cellfleet.guarded_table",
  );
  return new Map(rows.map(({ name, keyspace }) => [name, keyspace]));
}

/** Undefined: the home has no such table. */
export async function readShape(client: pg.Client, table: string): Promise<TableShape | undefined> {
  const name = table
    .split(".")
    .map((part) => client.escapeIdentifier(part))
    .join(".");
  const { rows } = await client.query<{ name: string; type: string; generated: boolean }>(
    `select a.attname::text as name, format_type(a.atttypid, a.atttypmod) as type,
            a.attgenerated <> '' as generated
       from pg_attribute a
      where a.attrelid = to_regclass($1) and a.attnum > 0 and not a.attisdropped`,
    [name],
  );
  if (rows.length === 0) return undefined;
  const columns = rows.map(({ generated, ...one }): [string, Column] => [
    one.name,
    { ...one, isGenerated: generated },
  ]);
  return { name, columns: new Map(columns) };
}

/** Both sides spelled by the same PostgreSQL, since sessions write dates and the like in their own way. */
async function lookUp(
  client: pg.Client,
  shape: TableShape,
  { identity, row }: RowToWrite,
): Promise<{ readonly theirs: RowValues | undefined; readonly ours: RowValues }> {
  const wanted = row ?? identity;
  const names = knownColumns(shape, wanted);
  const where = matching(client, shape, identity, names.length);
  const theirs = names.map((name) => `w.${client.escapeIdentifier(name)}::text`);
  const ours = names.map((name, at) => `$${at + 1}::text::${columnOf(shape, name).type}::text`);
  const { rows } = await client.query<{
    theirs: (string | null)[] | null;
    ours: (string | null)[];
  }>(
    `select array[${ours.join(", ")}]::text[] as ours,
            (select array[${theirs.join(", ")}]::text[] from ${shape.name} w where ${where.text}) as theirs`,
    [...names.map((name) => wanted[name]), ...where.values],
  );
  const [first] = rows;
  const named = (values: readonly (string | null)[]): RowValues =>
    Object.fromEntries(names.map((name, at) => [name, values[at] ?? null]));
  const there = first?.theirs ?? undefined;
  return { theirs: there && named(there), ours: named(first?.ours ?? []) };
}

export async function judgeThere(
  client: pg.Client,
  shape: TableShape,
  wanted: RowToWrite,
): Promise<{ readonly verdict: SalvageVerdict; readonly theirs: RowValues | undefined }> {
  const { theirs, ours } = await lookUp(client, shape, wanted);
  return { verdict: judge(wanted.kind, wanted.row === null ? null : ours, theirs), theirs };
}

/** Rejects as PostgreSQL does. `existing`: there is such a row already. */
export async function write(
  client: pg.Client,
  shape: TableShape,
  { identity, row }: RowToWrite & { readonly row: RowValues },
  existing: boolean,
): Promise<void> {
  const names = knownColumns(shape, row).filter((name) => !columnOf(shape, name).isGenerated);
  const columns = names.map((name) => client.escapeIdentifier(name));
  const values = names.map((name) => row[name]);
  const spelled = names.map((name, at) => `$${at + 1}::text::${columnOf(shape, name).type}`);
  if (!existing) {
    await client.query(
      `insert into ${shape.name} (${columns.join(", ")}) overriding system value values (${spelled.join(", ")})`,
      values,
    );
    return;
  }
  const where = matching(client, shape, identity, names.length);
  const sets = columns.map((column, at) => `${column} = ${spelled[at]}`);
  await client.query(`update ${shape.name} w set ${sets.join(", ")} where ${where.text}`, [
    ...values,
    ...where.values,
  ]);
}

function matching(client: pg.Client, shape: TableShape, identity: RowValues, from: number) {
  const names = knownColumns(shape, identity);
  const text = names
    .map((name, at) => {
      const { type } = columnOf(shape, name);
      return `w.${client.escapeIdentifier(name)} = $${from + at + 1}::text::${type}`;
    })
    .join(" and ");
  return { text: text === "" ? "false" : text, values: names.map((name) => identity[name]) };
}

const knownColumns = (shape: TableShape, values: RowValues): string[] =>
  Object.keys(values).filter((name) => shape.columns.has(name));

function columnOf(shape: TableShape, name: string): Column {
  const column = shape.columns.get(name);
  if (column === undefined) throw new Error(`no column ${name} in ${shape.name}`);
  return column;
}
