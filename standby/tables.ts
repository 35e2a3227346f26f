/**
 * Which tables a stream has to carry, with which rows, and which it cannot: read on both sides, decided
 * without either.
 *
 * What must always be true: a table that replication could not follow is left out and told (corrections
 * A20), for as a part of a publication it would refuse the application's own updates; a table that the
 * annex does not have alike stays out until it has, for it would stop all the others.
 */
import { escapeIdentifier } from "pg";
import { z } from "zod";
import type { Queryable } from "../cell/store/queryable.ts";
import type { RoutedKeyspace } from "../contract/routing-table.ts";
import { type KeyType, keyTypes } from "../moving/filters.ts";
import { type BucketFilter, bucketFilter } from "./buckets.ts";
import type { BucketRange } from "./ports.ts";

const tableSchema = z.object({
  schema: z.string(),
  table: z.string(),
  /** `loose`: of tenants by the manifest, and not guarded. */
  kind: z.enum(["tenant", "reference", "heartbeat", "loose"]),
  keyspace: z.string().nullable(),
  keyColumn: z.string().nullable(),
  keyType: z.string().nullable(),
  partitioned: z.boolean(),
  /** Without generated ones. */
  columns: z.array(z.string()),
  /** Why replication cannot follow it. */
  fault: z.string().nullable(),
  /** In the publication of the stream's name, and with a filter? */
  published: z.enum(["no", "whole", "filtered"]),
  subscribed: z.boolean(),
});
export type SideTable = z.infer<typeof tableSchema>;

export type StreamTable = {
  /** With its schema, as SQL writes it. */
  readonly name: string;
  /** For people. */
  readonly label: string;
  readonly partitioned: boolean;
  readonly filter: Exclude<BucketFilter, { kind: "none" }>;
  readonly published: SideTable["published"];
  readonly subscribed: boolean;
};

export type TablePlan = {
  readonly carried: readonly StreamTable[];
  /**
   * With those that the annex lacks alike: what the stream shows of them already, it goes on to show. Their
   * changes wait in the log until the annex is migrated too; dropped, the table would be copied anew.
   */
  readonly wanted: readonly StreamTable[];
  /** Of tenants, or of everybody, and not in the stream: with the reason. */
  readonly uncovered: readonly string[];
};

/** Tables of the pack itself are no table of anybody's; the heartbeat travels as it is. */
const tablesQuery = `
  with named as (
    select g.schema_name, g.table_name, 'tenant' as kind, g.keyspace, g.key_column from cellfleet.guarded_table g
    union all
    select k.schema_name, k.table_name, case k.class when 'tenant' then 'loose' else k.class end, null, null
      from cellfleet.classed_table k
     where k.class in ('tenant', 'reference') and not exists (
       select from cellfleet.guarded_table g where g.schema_name = k.schema_name and g.table_name = k.table_name)
    union all select 'cellfleet', 'heartbeat', 'heartbeat', null, null
  ), found as (
    select t.*, c.oid, c.relkind, k.atttypid
      from named t join pg_namespace n on n.nspname = t.schema_name
      join pg_class c on c.relnamespace = n.oid and c.relname = t.table_name and c.relkind in ('r', 'p')
      left join pg_attribute k on k.attrelid = c.oid and k.attname = t.key_column
     where not (t.kind = 'reference' and c.relispartition)
  )
  select jsonb_build_object('schema', f.schema_name, 'table', f.table_name, 'kind', f.kind, 'keyspace', f.keyspace,
    'keyColumn', f.key_column, 'keyType', f.atttypid::regtype::text, 'partitioned', f.relkind = 'p',
    'columns', (select coalesce(jsonb_agg(a.attname order by a.attnum), '[]') from pg_attribute a
                 where a.attrelid = f.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''),
    'fault', (select min(case
         when c.relpersistence <> 'p' then c.oid::regclass || ' is not logged'
         when c.relkind = 'f' then c.oid::regclass || ' is a foreign table'
         when c.relreplident <> 'f' and not exists (
           select from pg_index i
            where i.indrelid = c.oid and i.indimmediate and i.indisvalid
              and case c.relreplident when 'd' then i.indisprimary when 'i' then i.indisreplident else false end
              and (f.key_column is null or exists (
                select from pg_attribute a where a.attrelid = c.oid and a.attname = f.key_column
                   and a.attnum = any (i.indkey))))
         then 'the replica identity of ' || c.oid::regclass || coalesce(' does not hold ' || f.key_column, ' is missing') end)
       from pg_class c
      where c.relkind <> 'p' and c.oid = any (case f.relkind when 'p'
              then array(select t.relid::oid from pg_partition_tree(f.oid) t) else array[f.oid] end)),
    'published', coalesce((select case when r.prqual is null then 'whole' else 'filtered' end
                    from pg_publication_rel r join pg_publication b on b.oid = r.prpubid
                   where b.pubname = $1 and r.prrelid = f.oid), 'no'),
    'subscribed', exists (select from pg_subscription_rel r join pg_subscription s on s.oid = r.srsubid
                   where s.subname = $1 and r.srrelid = f.oid)) as item
    from found f order by f.schema_name, f.table_name`;

export async function readSideTables(client: Queryable, stream: string): Promise<SideTable[]> {
  const { rows } = await client.query<{ item: unknown }>(tablesQuery, [stream]);
  return rows.map(({ item }) => tableSchema.parse(item));
}

export function planTables(
  sides: { readonly origin: readonly SideTable[]; readonly annex: readonly SideTable[] },
  keyspaces: readonly RoutedKeyspace[],
  buckets: BucketRange,
): TablePlan {
  const there = new Map(sides.annex.map((table) => [plainName(table), table]));
  const carried: StreamTable[] = [];
  const wanted: StreamTable[] = [];
  const uncovered: string[] = [];
  for (const table of sides.origin) {
    const filter = filterOf(table, keyspaces, buckets);
    if (typeof filter !== "string" && filter.kind === "none") continue;
    const fault = typeof filter === "string" ? filter : table.fault;
    if (typeof filter === "string" || fault !== null) {
      uncovered.push(`${plainName(table)} (${fault})`);
      continue;
    }
    const twin = there.get(plainName(table));
    const item: StreamTable = {
      name: sqlName(table),
      label: plainName(table),
      partitioned: table.partitioned,
      filter,
      published: table.published,
      subscribed: twin?.subscribed ?? false,
    };
    wanted.push(item);
    const difference = unlike(table, twin);
    if (difference === undefined) carried.push(item);
    else uncovered.push(`${plainName(table)} (${difference})`);
  }
  return { carried, wanted, uncovered };
}

const plainName = ({ schema, table }: SideTable): string => `${schema}.${table}`;
export const sqlName = ({ schema, table }: Pick<SideTable, "schema" | "table">): string =>
  `${escapeIdentifier(schema)}.${escapeIdentifier(table)}`;

/** A text: why there is none. */
function filterOf(
  { kind, keyspace, keyColumn, keyType }: SideTable,
  keyspaces: readonly RoutedKeyspace[],
  buckets: BucketRange,
): BucketFilter | string {
  if (kind === "loose") return "of tenants by the manifest, and not guarded";
  if (kind !== "tenant") return { kind: "all" };
  const known = keyspaces.find(({ name }) => name === keyspace);
  if (known === undefined) return `its keyspace ${keyspace} is unknown`;
  if (keyColumn === null || !isKeyType(keyType)) {
    return `rows cannot be told apart by a ${keyType ?? "column that is gone"}`;
  }
  return bucketFilter(known, buckets, { name: keyColumn, type: keyType });
}

const isKeyType = (type: string | null): type is KeyType =>
  type !== null && (keyTypes as readonly string[]).includes(type);

function unlike(table: SideTable, twin: SideTable | undefined): string | undefined {
  if (twin === undefined) return "the standby's database does not have it, or not in this class";
  if (twin.kind !== table.kind || twin.keyspace !== table.keyspace) {
    return "the standby's database does not guard it alike";
  }
  const lacking = table.columns.filter((column) => !twin.columns.includes(column));
  return lacking.length === 0
    ? undefined
    : `the standby's database lacks its ${lacking.length === 1 ? "column" : "columns"} ${lacking.join(", ")}`;
}
