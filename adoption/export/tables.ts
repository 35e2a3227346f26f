/**
 * Where a tenant's rows stand in one database: the tables under the guard, and those that a manifest
 * classes as a tenant's, with the condition that finds the rows.
 *
 * Always true: a role from which row security hides rows is refused, never believed. The one policy
 * that may stand is the guard's own, because this snapshot proves that it hides nothing: the tenant
 * is active here.
 */
import { escapeIdentifier, escapeLiteral } from "pg";
import { z } from "zod";
import type { Manifest } from "../../cell/store/manifest.ts";
import type { Queryable } from "../../cell/store/queryable.ts";
import { CellError } from "../../contract/errors.ts";

export type ExportTable = {
  /** `public.orders`. */
  readonly name: string;
  /** As SQL. */
  readonly from: string;
  /** On `r`; null where the key column's type cannot hold the tenant's id: no row can be its own. */
  readonly condition: string | null;
};

const foundSchema = z.array(
  z.object({
    schema: z.string(),
    table: z.string(),
    keyColumn: z.string(),
    type: z.string().nullable(),
    readable: z.boolean(),
    holds: z.boolean(),
    /** Row security binds this role here, by policies that are not the guard's. */
    hidden: z.boolean(),
    /** It binds this role by the guard's policy. */
    visibility: z.boolean(),
  }),
);

const guardedQuery = `
  select n.nspname as schema, c.relname as "table",
         string_to_array(encode(t.tgargs, 'escape'), '\\000') as args
    from pg_trigger t join pg_class c on c.oid = t.tgrelid join pg_namespace n on n.oid = c.relnamespace
   where t.tgname = 'zz_cellfleet_guard' and not c.relispartition
   order by 1, 2`;

const lookQuery = `
  select coalesce(jsonb_agg(jsonb_build_object(
           'schema', w.schema, 'table', w.name, 'keyColumn', w.key_column, 'type', f.type,
           'readable', coalesce(has_table_privilege(f.oid, 'SELECT'), false),
           'holds', f.type is not null and pg_input_is_valid($2, f.type),
           'hidden', coalesce(row_security_active(f.oid), false)
                     and exists (select from pg_policy p where p.polrelid = f.oid and p.polname not like 'cellfleet\\_%'),
           'visibility', coalesce(row_security_active(f.oid), false)
         ) order by w.schema, w.name), '[]') as found
    from jsonb_to_recordset($1) w(schema text, name text, key_column text)
    left join lateral (
      select c.oid, format_type(a.atttypid, a.atttypmod) as type
        from pg_class c join pg_namespace n on n.oid = c.relnamespace and n.nspname = w.schema
        join pg_attribute a on a.attrelid = c.oid and a.attname = w.key_column and not a.attisdropped
       where c.relname = w.name and c.relkind in ('r', 'p')) f on true`;

type Wanted = { readonly schema: string; readonly name: string; readonly key_column: string };

export type TableQuestion = {
  readonly tenant: string;
  readonly keyspace: string;
  readonly manifest: Manifest | undefined;
};

/** `visibility`: the guard's policy binds this role, so the tenant has to be active here. */
export async function findTables(
  client: Queryable,
  question: TableQuestion,
): Promise<{ readonly tables: readonly ExportTable[]; readonly visibility: boolean }> {
  const wanted = await wantedTables(client, question);
  if (wanted.length === 0) {
    throw new CellError(
      "SCHEMA_UNFIT",
      "no table of this database is known to hold tenants' rows",
      {
        nextSteps: ["name them: --manifest cellfleet.schema.yaml", "cellctl schema init --help"],
      },
    );
  }
  const { rows } = await client.query<{ found: unknown }>(lookQuery, [
    JSON.stringify(wanted),
    question.tenant,
  ]);
  const found = foundSchema.parse(rows[0]?.found);
  refuseBlind(found);
  return {
    tables: found.map((table) => toTable(table, question.tenant)),
    visibility: found.some(({ visibility }) => visibility),
  };
}

async function wantedTables(client: Queryable, question: TableQuestion): Promise<Wanted[]> {
  const { rows } = await client.query<{ schema: string; table: string; args: string[] }>(
    guardedQuery,
  );
  const guarded = rows.flatMap(({ schema, table, args: [keyspace, keyColumn] }) =>
    keyspace === question.keyspace && keyColumn !== undefined
      ? [{ schema, name: table, key_column: keyColumn }]
      : [],
  );
  const named = (question.manifest?.tables ?? []).flatMap((table) =>
    table.class === "tenant" && table.keyspace === question.keyspace
      ? [{ schema: table.schema, name: table.table, key_column: table.keyColumn }]
      : [],
  );
  const all = new Map([...named, ...guarded].map((one) => [`${one.schema}.${one.name}`, one]));
  return [...all.values()];
}

type Found = z.infer<typeof foundSchema>[number];
const nameOf = ({ schema, table }: Found): string => `${schema}.${table}`;

/** A short export looks like a whole one: what cannot be read in full is refused before a file exists. */
function refuseBlind(found: readonly Found[]): void {
  const missing = found.filter(({ type }) => type === null);
  if (missing.length > 0) {
    throw new CellError(
      "SCHEMA_UNFIT",
      `not in the database, or without the key column: ${missing.map(nameOf).join(", ")}`,
      { nextSteps: ["correct cellfleet.schema.yaml, or give the database that it describes"] },
    );
  }
  const closed = found.filter(({ readable }) => !readable);
  const hidden = found.filter(({ hidden: bound }) => bound);
  if (closed.length === 0 && hidden.length === 0) return;
  const reasons = [
    ...(closed.length > 0 ? [`may not read ${closed.map(nameOf).join(", ")}`] : []),
    ...(hidden.length > 0
      ? [`is bound by row security of the application on ${hidden.map(nameOf).join(", ")}`]
      : []),
  ];
  throw new CellError("DATABASE_UNFIT", `the role of this database URL ${reasons.join(" and ")}`, {
    nextSteps: ["give the URL of the tables' owner, or of a role with BYPASSRLS: --database-url"],
  });
}

function toTable(table: Found, tenant: string): ExportTable {
  const from = `${escapeIdentifier(table.schema)}.${escapeIdentifier(table.table)}`;
  const column = `r.${escapeIdentifier(table.keyColumn)}`;
  const literal = escapeLiteral(tenant);
  return {
    name: nameOf(table),
    from,
    // The column's own type, so that its index serves; the text too, because '01' is 1 for a number.
    condition: table.holds
      ? `${column} = ${literal}::${table.type} and ${column}::text collate "C" = ${literal}`
      : null,
  };
}
