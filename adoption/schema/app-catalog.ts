/**
 * What PostgreSQL's catalog says of an application's own tables: keys, constraints, indexes, foreign
 * keys, and how much of ours stands on them already. What is proposed and planned is decided from
 * this alone, which is why an installation that was cut off goes on by being planned anew.
 *
 * Reads only, takes no lock beyond a moment's, works where nothing of ours is installed.
 */
import { z } from "zod";
import type { Queryable } from "../../cell/store/queryable.ts";

const columnSchema = z.object({
  name: z.string(),
  type: z.string(),
  notNull: z.boolean(),
  generated: z.boolean(),
  identity: z.boolean(),
  /** The sequence that gives its values, if one does. */
  sequence: z.string().nullable(),
  /** Its ids come from leased ranges. */
  leased: z.boolean(),
  /** The sequence that goes with it, as SQL. */
  owned: z.string().nullable().optional(),
});
export type AppColumn = z.infer<typeof columnSchema>;

const indexSchema = z.object({
  name: z.string(),
  /** Null where an expression stands. Included columns are not among them. */
  columns: z.array(z.string().nullable()),
  unique: z.boolean(),
  primary: z.boolean(),
  valid: z.boolean(),
  partial: z.boolean(),
  immediate: z.boolean(),
  /** The constraint that it carries. */
  constraint: z.string().nullable(),
  isIdentity: z.boolean(),
  definition: z.string(),
  /** Foreign keys of other tables lean on it. */
  referenced: z.boolean(),
});
export type AppIndex = z.infer<typeof indexSchema>;

const foreignKeySchema = z.object({
  name: z.string(),
  columns: z.array(z.string()),
  to: z.string(),
  toColumns: z.array(z.string()),
});
export type AppForeignKey = z.infer<typeof foreignKeySchema>;

const tableSchema = z.object({
  schema: z.string(),
  table: z.string(),
  /** `schema.table`, unquoted: how manifests and people name it. */
  name: z.string(),
  partitioned: z.boolean(),
  /** The parent's name, of a partition. */
  partitionOf: z.string().nullable(),
  owner: z.string(),
  /** An estimate; -1 where nobody has counted yet. */
  rows: z.number(),
  bytes: z.number(),
  /** Inserts, updates and deletes since the server's counters began. */
  writes: z.number(),
  columns: z.array(columnSchema),
  primaryKey: z.array(z.string()),
  indexes: z.array(indexSchema),
  foreignKeys: z.array(foreignKeySchema),
  checks: z.array(z.object({ name: z.string(), validated: z.boolean() })),
  replicaIdentity: z.enum(["d", "n", "f", "i"]),
  /** Triggers that are not the system's, enabled ones, with their arguments and the function's name. */
  triggers: z.array(z.object({ name: z.string(), args: z.array(z.string()), calls: z.string() })),
  /** Tables that inherit from it and are no partitions. */
  heirs: z.array(z.string()),
  rowSecurity: z.boolean(),
  policies: z.array(z.string()),
});
export type AppTable = z.infer<typeof tableSchema>;

/** Views that read as their owner. */
const viewSchema = z.object({
  name: z.string(),
  /** Its name as SQL. */
  sql: z.string(),
  materialized: z.boolean(),
  reads: z.array(z.string()),
});

const packSchema = z.object({
  schema: z.boolean(),
  cell: z.string().nullable(),
  /** Null where the pack is of a release that knew no stages. */
  stage: z.string().nullable(),
  version: z.number().nullable(),
  digest: z.string().nullable(),
  guarded: z.array(z.object({ name: z.string(), keyColumn: z.string(), keyspace: z.string() })),
  /** The manifest as it was recorded: `schema.table` → class; null where nothing can be recorded yet. */
  classes: z.record(z.string(), z.string()).nullable(),
  /** The role that moves tenants; null where none was named. */
  mover: z.string().nullable(),
});

const catalogSchema = z.object({
  database: z.string(),
  user: z.string(),
  version: z.number(),
  tables: z.array(tableSchema),
  views: z.array(viewSchema),
});

export type AppCatalog = z.infer<typeof catalogSchema> & {
  readonly pack: z.infer<typeof packSchema>;
};

const columns = `(select coalesce(jsonb_agg(jsonb_build_object(
    'name', a.attname, 'type', format_type(a.atttypid, null), 'notNull', a.attnotnull,
    'generated', a.attgenerated <> '', 'identity', a.attidentity <> '',
    'leased', coalesce(pg_get_expr(d.adbin, d.adrelid) like 'cellfleet.next_id(%', false),
    'owned', pg_get_serial_sequence(format('%I.%I', n.nspname, c.relname), a.attname),
    'sequence', case when a.attidentity <> '' or pg_get_expr(d.adbin, d.adrelid) like 'nextval(%'
                     then coalesce(pg_get_serial_sequence(format('%I.%I', n.nspname, c.relname), a.attname),
                                   pg_get_expr(d.adbin, d.adrelid)) end
    ) order by a.attnum), '[]')
   from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
  where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped)`;

const indexes = `(select coalesce(jsonb_agg(jsonb_build_object(
    'name', i.relname,
    'columns', (select coalesce(jsonb_agg(a.attname order by k.at), '[]')
                  from unnest(x.indkey::smallint[]) with ordinality k(attnum, at)
                  left join pg_attribute a on a.attrelid = c.oid and a.attnum = k.attnum and k.attnum > 0
                 where k.at <= x.indnkeyatts),
    'unique', x.indisunique, 'primary', x.indisprimary, 'valid', x.indisvalid and x.indisready,
    'partial', x.indpred is not null, 'immediate', x.indimmediate, 'isIdentity', x.indisreplident,
    'constraint', (select o.conname from pg_constraint o
                    where o.conindid = i.oid and o.conrelid = c.oid and o.contype in ('p', 'u', 'x')),
    'definition', pg_get_indexdef(i.oid),
    'referenced', exists (select from pg_constraint f where f.contype = 'f' and f.conindid = i.oid)
    ) order by i.relname), '[]')
   from pg_index x join pg_class i on i.oid = x.indexrelid where x.indrelid = c.oid)`;

const foreignKeys = `(select coalesce(jsonb_agg(jsonb_build_object(
    'name', f.conname, 'to', tn.nspname || '.' || t.relname,
    'columns', (select jsonb_agg(a.attname order by k.at) from unnest(f.conkey) with ordinality k(attnum, at)
                  join pg_attribute a on a.attrelid = c.oid and a.attnum = k.attnum),
    'toColumns', (select jsonb_agg(a.attname order by k.at) from unnest(f.confkey) with ordinality k(attnum, at)
                    join pg_attribute a on a.attrelid = t.oid and a.attnum = k.attnum)
    ) order by f.conname), '[]')
   from pg_constraint f join pg_class t on t.oid = f.confrelid join pg_namespace tn on tn.oid = t.relnamespace
  where f.conrelid = c.oid and f.contype = 'f' and f.conparentid = 0)`;

const views = `(select coalesce(jsonb_agg(to_jsonb(f) order by f.name), '[]') from (
    select vn.nspname || '.' || v.relname as name, format('%I.%I', vn.nspname, v.relname) as sql,
           v.relkind = 'm' as materialized, jsonb_agg(distinct tn.nspname || '.' || t.relname) as reads
      from pg_depend d
      join pg_rewrite r on d.classid = 'pg_rewrite'::regclass and r.oid = d.objid
      join pg_class v on v.oid = r.ev_class and v.relkind in ('v', 'm')
      join pg_namespace vn on vn.oid = v.relnamespace
      join pg_class t on d.refclassid = 'pg_class'::regclass and t.oid = d.refobjid and t.relkind in ('r', 'p')
      join pg_namespace tn on tn.oid = t.relnamespace
     where vn.nspname not in ('pg_catalog', 'information_schema', 'cellfleet')
       and (v.relkind = 'm' or coalesce(not exists (
             select from pg_options_to_table(v.reloptions) o
              where o.option_name = 'security_invoker' and o.option_value::boolean), true))
       and not exists (select from pg_depend e where e.classid = 'pg_class'::regclass and e.objid = v.oid
                                                and e.deptype = 'e')
     group by 1, 2, 3) f)`;

const catalogQuery = `
  select jsonb_build_object(
    'database', current_database(), 'user', current_user,
    'version', current_setting('server_version_num')::integer,
    'views', ${views},
    'tables', (select coalesce(jsonb_agg(jsonb_build_object(
      'schema', n.nspname, 'table', c.relname, 'name', n.nspname || '.' || c.relname,
      'partitioned', c.relkind = 'p',
      'partitionOf', (select pn.nspname || '.' || p.relname from pg_inherits h
          join pg_class p on p.oid = h.inhparent join pg_namespace pn on pn.oid = p.relnamespace
         where h.inhrelid = c.oid and c.relispartition),
      'owner', pg_get_userbyid(c.relowner),
      'rows', c.reltuples, 'bytes', pg_total_relation_size(c.oid),
      'writes', coalesce((select s.n_tup_ins + s.n_tup_upd + s.n_tup_del from pg_stat_user_tables s
                           where s.relid = c.oid), 0),
      'columns', ${columns}, 'indexes', ${indexes}, 'foreignKeys', ${foreignKeys},
      'primaryKey', (select coalesce(jsonb_agg(a.attname order by array_position(i.indkey::smallint[], a.attnum)), '[]')
          from pg_index i join pg_attribute a on a.attrelid = c.oid and a.attnum = any (i.indkey)
         where i.indrelid = c.oid and i.indisprimary),
      'checks', (select coalesce(jsonb_agg(jsonb_build_object('name', o.conname, 'validated', o.convalidated)), '[]')
          from pg_constraint o where o.conrelid = c.oid and o.contype = 'c'),
      'replicaIdentity', c.relreplident,
      'heirs', (select coalesce(jsonb_agg(hn.nspname || '.' || h.relname order by 1), '[]') from pg_inherits i
          join pg_class h on h.oid = i.inhrelid and not h.relispartition
          join pg_namespace hn on hn.oid = h.relnamespace where i.inhparent = c.oid),
      'triggers', (select coalesce(jsonb_agg(jsonb_build_object('name', t.tgname,
            'calls', (select f.proname from pg_proc f where f.oid = t.tgfoid), 'args', array_remove(string_to_array(encode(t.tgargs, 'escape'), '\\000'), '')) order by t.tgname), '[]')
          from pg_trigger t where t.tgrelid = c.oid and not t.tgisinternal and t.tgenabled in ('O', 'A')),
      'rowSecurity', c.relrowsecurity,
      'policies', (select coalesce(jsonb_agg(p.polname order by p.polname), '[]') from pg_policy p where p.polrelid = c.oid)
    ) order by n.nspname, c.relname), '[]')
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
   where c.relkind in ('r', 'p') and c.relpersistence <> 't'
     and n.nspname not in ('pg_catalog', 'information_schema', 'cellfleet') and n.nspname not like 'pg\\_toast%'
     and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid
                                               and d.deptype = 'e'))) as catalog`;

const packQuery = `
  select jsonb_build_object('schema', true,
    'cell', (select cell from cellfleet.progress), 'stage', null,
    'version', (select max(version) from cellfleet.pack),
    'digest', (select digest from cellfleet.pack order by version desc limit 1),
    'guarded', (select coalesce(jsonb_agg(jsonb_build_object('name', schema_name || '.' || table_name,
        'keyColumn', key_column, 'keyspace', keyspace)), '[]') from cellfleet.guarded_table)) as pack`;

const absent: AppCatalog["pack"] = {
  schema: false,
  cell: null,
  stage: null,
  version: null,
  digest: null,
  guarded: [],
  classes: null,
  mover: null,
};

export async function readAppCatalog(client: Queryable): Promise<AppCatalog> {
  const { rows } = await client.query<{ catalog: unknown }>(catalogQuery);
  return { ...catalogSchema.parse(rows[0]?.catalog), pack: await readPack(client) };
}

async function readPack(client: Queryable): Promise<AppCatalog["pack"]> {
  const { rows: found } = await client.query<{ there: boolean }>(
    "select to_regclass('cellfleet.pack') is not null as there",
  );
  if (found[0]?.there !== true) return absent;
  const { rows } = await client.query<{ pack: unknown }>(packQuery);
  return packSchema.parse({
    ...Object(rows[0]?.pack),
    stage: await readStage(client),
    classes: await readClasses(client),
    mover: await readMover(client),
  });
}

async function readMover(client: Queryable): Promise<string | null> {
  const { rows: found } = await client.query<{ there: boolean }>(
    "select to_regclass('cellfleet.pack_role') is not null as there",
  );
  if (found[0]?.there !== true) return null;
  const { rows } = await client.query<{ name: string }>(
    "select role_name as name from cellfleet.pack_role where purpose = 'mover'",
  );
  return rows[0]?.name ?? null;
}

async function readClasses(client: Queryable): Promise<unknown> {
  const { rows: found } = await client.query<{ there: boolean }>(
    "select to_regclass('cellfleet.classed_table') is not null as there",
  );
  if (found[0]?.there !== true) return null;
  const { rows } = await client.query<{ classes: unknown }>(
    `select coalesce(jsonb_object_agg(schema_name || '.' || table_name, class), '{}') as classes
       from cellfleet.classed_table`,
  );
  return rows[0]?.classes;
}

async function readStage(client: Queryable): Promise<string | null> {
  const { rows: found } = await client.query<{ there: boolean }>(
    "select to_regclass('cellfleet.stage') is not null as there",
  );
  if (found[0]?.there !== true) return null;
  const { rows } = await client.query<{ stage: string }>("select stage from cellfleet.stage");
  return rows[0]?.stage ?? null;
}

export const columnOf = (table: AppTable, name: string): AppColumn | undefined =>
  table.columns.find((column) => column.name === name);
