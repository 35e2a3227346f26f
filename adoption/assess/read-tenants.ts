/**
 * The largest tenants. First from what ANALYZE keeps of each column's common values, which costs
 * nothing; counted row by row only when the person asks for it.
 */
import { escapeIdentifier } from "pg";
import { z } from "zod";
import type { Queryable } from "../../cell/store/queryable.ts";
import { isKeyType, weightOf } from "../schema/guess-key.ts";
import type { TableFacts, TenantSizes } from "./facts.ts";

const topMax = 10;
/** Tables of a tenant are many; the largest decide who is large. */
const tablesMax = 50;
/** Per table, when counting: whoever is not among them is not large. */
const countedMax = 1000;

export type KeyColumn = { readonly name: string; readonly why: string };

/** The name that speaks most for itself and stands in most tables; undefined: none does. */
export function guessKeyColumn(tables: readonly TableFacts[]): KeyColumn | undefined {
  const scores = new Map<string, { tables: number; score: number }>();
  for (const { columns } of tables) {
    for (const { name, type } of columns) {
      const weight = isKeyType(type) ? weightOf(name) : 0;
      if (weight === 0) continue;
      const seen = scores.get(name) ?? { tables: 0, score: weight };
      scores.set(name, { tables: seen.tables + 1, score: seen.score + weight });
    }
  }
  const [best] = [...scores].toSorted(
    ([a, one], [b, other]) => other.score - one.score || a.localeCompare(b),
  );
  if (best === undefined) return undefined;
  const [name, { tables: count }] = best;
  return { name, why: `guessed: ${count} of ${tables.length} tables have the column ${name}` };
}

export const hasColumn = ({ columns }: TableFacts, name: string): boolean =>
  columns.some((column) => column.name === name);

const statisticsSchema = z.array(
  z.object({
    distinct: z.number(),
    rows: z.number(),
    values: z.array(z.string()),
    frequencies: z.array(z.number()),
  }),
);

/** Partitions keep statistics of their own; a table that has partitions may have none. */
const statisticsQuery = `
  select coalesce(jsonb_agg(jsonb_build_object(
           'distinct', s.n_distinct, 'rows', greatest(0, c.reltuples),
           'values', coalesce(to_jsonb(s.most_common_vals::text::text[]), '[]'),
           'frequencies', coalesce(to_jsonb(s.most_common_freqs), '[]'))), '[]') as facts
    from pg_stats s join pg_namespace n on n.nspname = s.schemaname
    join pg_class c on c.relnamespace = n.oid and c.relname = s.tablename and c.relkind = 'r'
   where s.attname = $1 and not s.inherited
     and n.nspname || '.' || coalesce((select r.relname from pg_class r where r.oid = pg_partition_root(c.oid)), c.relname)
         = any ($2)`;

export async function tenantsFromStatistics(
  client: Queryable,
  key: KeyColumn,
  tables: readonly TableFacts[],
): Promise<TenantSizes> {
  const { rows: found } = await client.query<{ facts: unknown }>(statisticsQuery, [
    key.name,
    largestWith(key, tables).map(({ name }) => name),
  ]);
  const statistics = statisticsSchema.parse(found[0]?.facts);
  const sums = new Map<string, number>();
  let all = 0;
  let tenants = 0;
  for (const { distinct, rows, values, frequencies } of statistics) {
    all += rows;
    // Negative: a share of the rows, because it grows with them.
    tenants = Math.max(tenants, distinct < 0 ? -distinct * rows : distinct);
    for (const [index, value] of values.entries()) {
      sums.set(value, (sums.get(value) ?? 0) + rows * (frequencies[index] ?? 0));
    }
  }
  return sizes(key, "statistics", { sums, all, tenants });
}

/** Reads every row of the key column, from an index where there is one. */
export async function tenantsCounted(
  client: Queryable,
  key: KeyColumn,
  tables: readonly TableFacts[],
): Promise<TenantSizes> {
  const sums = new Map<string, number>();
  let all = 0;
  let tenants = 0;
  for (const { name, schema } of largestWith(key, tables)) {
    const table = `${escapeIdentifier(schema)}.${escapeIdentifier(name.slice(schema.length + 1))}`;
    const column = escapeIdentifier(key.name);
    const { rows } = await client.query<{
      tenant: string;
      rows: string;
      all: string;
      tenants: string;
    }>(
      `select ${column}::text as tenant, count(*) as rows, sum(count(*)) over () as all, count(*) over () as tenants
         from ${table} where ${column} is not null group by 1 order by 2 desc limit ${countedMax}`,
    );
    all += Number(rows[0]?.all ?? 0);
    tenants = Math.max(tenants, Number(rows[0]?.tenants ?? 0));
    for (const row of rows) sums.set(row.tenant, (sums.get(row.tenant) ?? 0) + Number(row.rows));
  }
  return sizes(key, "exact", { sums, all, tenants });
}

const largestWith = (key: KeyColumn, tables: readonly TableFacts[]): readonly TableFacts[] =>
  tables.filter((table) => hasColumn(table, key.name)).slice(0, tablesMax);

function sizes(
  key: KeyColumn,
  how: TenantSizes["how"],
  found: {
    readonly sums: ReadonlyMap<string, number>;
    readonly all: number;
    readonly tenants: number;
  },
): TenantSizes {
  const top = [...found.sums]
    .toSorted(([a, rows], [b, others]) => others - rows || a.localeCompare(b))
    .slice(0, topMax)
    .map(([tenant, rows]) => ({
      tenant,
      rows: Math.round(rows),
      share: found.all === 0 ? 0 : rows / found.all,
    }));
  return {
    column: key.name,
    why: key.why,
    how,
    tenants: found.tenants === 0 ? null : Math.round(found.tenants),
    rows: Math.round(found.all),
    top,
  };
}
