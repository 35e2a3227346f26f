/**
 * What PostgreSQL's catalog says of a store's tables, of the guard on them and of the application's
 * role: the facts that coverage judges. Reads only; any role may.
 */
import { z } from "zod";
import type { Queryable } from "./queryable.ts";

const tableFactsSchema = z.object({
  schema: z.string(),
  table: z.string(),
  /** A partition is its parent's business, except for what PostgreSQL does not hand down. */
  partition: z.boolean(),
  partitioned: z.boolean(),
  /** From which tables it inherits, of a table that is no partition. */
  inherits: z.array(z.object({ schema: z.string(), table: z.string() })),
  /** Rules that make other statements of those on it. */
  rules: z.array(z.string()),
  columns: z.array(z.object({ name: z.string(), type: z.string(), notNull: z.boolean() })),
  /** Columns of what identifies a row to replication: replica identity, else primary key. */
  identity: z.array(z.string()),
  primaryKey: z.array(z.string()),
  /** Triggers of the pack that fire: name → arguments. */
  triggers: z.record(z.string(), z.array(z.string())),
  /** BEFORE ROW triggers that fire after the guard, where they could change what it has checked. */
  afterGuard: z.array(z.string()),
  rowSecurity: z.boolean(),
  policies: z.array(z.string()),
  /** Policies of the application that narrow what every role sees, the pack's owner too. */
  hidingPolicies: z.array(z.string()),
  /** Columns that take ids from a sequence that is not leased. */
  unleased: z.array(z.string()),
  /** By column that takes its default from a sequence: which one. */
  sequences: z.record(z.string(), z.string()),
  /** Unique indexes apart from the primary key; `columns` of expressions are null. */
  uniques: z.array(
    z.object({
      name: z.string(),
      definition: z.string(),
      columns: z.array(z.string().nullable()),
      constraint: z.boolean(),
      /** Foreign keys lean on it: it cannot simply be dropped. */
      referred: z.boolean(),
      allNotNull: z.boolean(),
      partial: z.boolean(),
    }),
  ),
  foreignKeys: z.array(
    z.object({
      schema: z.string(),
      table: z.string(),
      columns: z.array(z.string()),
      parentColumns: z.array(z.string()),
    }),
  ),
  appOwns: z.boolean(),
  appMayTrigger: z.boolean(),
  appMayTruncate: z.boolean(),
  /** Leased sequences that the application's role could ask by itself. */
  appSequences: z.array(z.string()),
});
export type TableFacts = z.infer<typeof tableFactsSchema>;

const catalogSchema = z.object({
  tables: z.array(tableFactsSchema),
  /** Views over guarded tables that read as their owner, past the visibility policy. */
  views: z.array(z.object({ view: z.string(), materialized: z.boolean(), table: z.string() })),
  role: z.object({
    superuser: z.boolean(),
    bypassesRowSecurity: z.boolean(),
    maySwitchTriggersOff: z.boolean(),
    /** Roles of the pack or owning guarded tables that it could become. */
    becomes: z.array(z.string()),
  }),
});
export type StoreCatalog = z.infer<typeof catalogSchema>;

/** `leased`: the pack's list of sequences, or an empty one where there is no pack. */
const tablesQuery = (leased: string): string => `
  select coalesce(jsonb_agg(jsonb_build_object(
    'schema', n.nspname, 'table', c.relname, 'partition', c.relispartition,
    'partitioned', c.relkind = 'p',
    'inherits', (select coalesce(jsonb_agg(jsonb_build_object('schema', pn.nspname, 'table', p.relname) order by h.inhseqno), '[]')
        from pg_inherits h join pg_class p on p.oid = h.inhparent join pg_namespace pn on pn.oid = p.relnamespace
       where h.inhrelid = c.oid and not c.relispartition),
    'rules', (select coalesce(jsonb_agg(r.rulename order by r.rulename), '[]') from pg_rewrite r
       where r.ev_class = c.oid and r.ev_enabled <> 'D'),
    'columns', (select coalesce(jsonb_agg(jsonb_build_object('name', a.attname,
          'type', format_type(a.atttypid, a.atttypmod), 'notNull', a.attnotnull) order by a.attnum), '[]')
        from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped),
    'identity', (select coalesce(jsonb_agg(a.attname), '[]') from pg_index i
        join pg_attribute a on a.attrelid = c.oid and a.attnum = any (i.indkey)
       where i.indrelid = c.oid and case c.relreplident when 'i' then i.indisreplident
                                                        when 'd' then i.indisprimary else false end)
      || case c.relreplident when 'f' then (select jsonb_agg(a.attname) from pg_attribute a
                                             where a.attrelid = c.oid and a.attnum > 0) else '[]' end,
    'primaryKey', (select coalesce(jsonb_agg(a.attname order by array_position(i.indkey::smallint[], a.attnum)), '[]')
        from pg_index i join pg_attribute a on a.attrelid = c.oid and a.attnum = any (i.indkey)
       where i.indrelid = c.oid and i.indisprimary),
    'triggers', (select coalesce(jsonb_object_agg(t.tgname,
          array_remove(string_to_array(encode(t.tgargs, 'escape'), '\\000'), '')), '{}')
        from pg_trigger t join pg_proc p on p.oid = t.tgfoid join pg_namespace pn on pn.oid = p.pronamespace
       where t.tgrelid = c.oid and t.tgname like 'zz\\_cellfleet\\_%' and t.tgenabled in ('O', 'A')
         and pn.nspname = 'cellfleet'),
    'hidingPolicies', (select coalesce(jsonb_agg(p.polname order by p.polname), '[]') from pg_policy p
       where p.polrelid = c.oid and not p.polpermissive and 0 = any (p.polroles)
         and p.polname not like 'cellfleet\\_%'),
    'sequences', (select coalesce(jsonb_object_agg(a.attname, q.oid::regclass::text), '{}')
        from pg_attribute a join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
        join pg_depend e on e.classid = 'pg_attrdef'::regclass and e.objid = d.oid
                        and e.refclassid = 'pg_class'::regclass
        join pg_class q on q.oid = e.refobjid and q.relkind = 'S'
       where a.attrelid = c.oid),
    'uniques', (select coalesce(jsonb_agg(jsonb_build_object('name', x.relname, 'definition', pg_get_indexdef(i.indexrelid),
          'columns', (select jsonb_agg(a.attname order by k.n) from unnest(i.indkey[0 : i.indnkeyatts - 1]) with ordinality k(attnum, n)
                        left join pg_attribute a on a.attrelid = c.oid and a.attnum = k.attnum),
          'constraint', exists (select from pg_constraint u where u.conindid = i.indexrelid and u.contype = 'u'),
          'referred', exists (select from pg_constraint f where f.conindid = i.indexrelid and f.contype = 'f'),
          'allNotNull', not exists (select from pg_attribute a where a.attrelid = c.oid and a.attnum = any (i.indkey)
                                                                and not a.attnotnull) and not 0 = any (i.indkey),
          'partial', i.indpred is not null) order by x.relname), '[]')
        from pg_index i join pg_class x on x.oid = i.indexrelid
       where i.indrelid = c.oid and i.indisunique and i.indisvalid and not i.indisprimary),
    'foreignKeys', (select coalesce(jsonb_agg(jsonb_build_object('schema', pn.nspname, 'table', pc.relname,
          'columns', (select jsonb_agg(a.attname order by k.n) from unnest(f.conkey) with ordinality k(attnum, n)
                        join pg_attribute a on a.attrelid = f.conrelid and a.attnum = k.attnum),
          'parentColumns', (select jsonb_agg(a.attname order by k.n) from unnest(f.confkey) with ordinality k(attnum, n)
                        join pg_attribute a on a.attrelid = f.confrelid and a.attnum = k.attnum)) order by f.conname), '[]')
        from pg_constraint f join pg_class pc on pc.oid = f.confrelid join pg_namespace pn on pn.oid = pc.relnamespace
       where f.conrelid = c.oid and f.contype = 'f' and f.conparentid = 0),
    'afterGuard', (select coalesce(jsonb_agg(t.tgname), '[]') from pg_trigger t
       where t.tgrelid = c.oid and not t.tgisinternal and t.tgtype & 3 = 3
         and t.tgname > 'zz_cellfleet_guard' collate "C" and t.tgname not like 'zz\\_cellfleet\\_%'),
    'rowSecurity', c.relrowsecurity,
    'policies', (select coalesce(jsonb_agg(p.polname), '[]') from pg_policy p where p.polrelid = c.oid),
    'unleased', (select coalesce(jsonb_agg(a.attname), '[]') from pg_attribute a
        left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
       where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
         and (a.attidentity <> '' or pg_get_expr(d.adbin, d.adrelid) like 'nextval(%')),
    'appOwns', pg_has_role($1, c.relowner, 'USAGE') and not s.rolsuper,
    'appMayTrigger', has_table_privilege($1, c.oid, 'TRIGGER') and not s.rolsuper,
    'appMayTruncate', has_table_privilege($1, c.oid, 'TRUNCATE') and not s.rolsuper,
    'appSequences', (select coalesce(jsonb_agg(distinct q.name), '[]') from (${leased}) q
        join pg_attrdef d on d.adrelid = c.oid
        join pg_depend e on e.classid = 'pg_attrdef'::regclass and e.objid = d.oid and e.refobjid = q.sequence
       where (has_sequence_privilege($1, q.sequence, 'USAGE') or has_sequence_privilege($1, q.sequence, 'UPDATE'))
         and not s.rolsuper)
  ) order by n.nspname, c.relname), '[]')
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    join pg_roles s on s.rolname = $1
   where c.relkind in ('r', 'p') and c.relpersistence <> 't'
     and n.nspname not in ('pg_catalog', 'information_schema', 'cellfleet') and n.nspname not like 'pg\\_toast%'
     and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid
                                               and d.deptype = 'e')`;

const viewsQuery = `
  select coalesce(jsonb_agg(distinct jsonb_build_object(
           'view', v.oid::regclass::text, 'materialized', v.relkind = 'm', 'table', t.oid::regclass::text)), '[]')
    from pg_depend d
    join pg_rewrite r on d.classid = 'pg_rewrite'::regclass and r.oid = d.objid
    join pg_class v on v.oid = r.ev_class and v.relkind in ('v', 'm')
    join pg_class t on d.refclassid = 'pg_class'::regclass and t.oid = d.refobjid
    join pg_trigger g on g.tgrelid = t.oid and g.tgname = 'zz_cellfleet_guard'
   where (v.relkind = 'm' or coalesce(not exists (
           select from pg_options_to_table(v.reloptions) o
            where o.option_name = 'security_invoker' and o.option_value::boolean), true))
     and has_table_privilege($1, v.oid, 'SELECT')`;

const roleQuery = `
  select jsonb_build_object(
    'superuser', r.rolsuper, 'bypassesRowSecurity', r.rolbypassrls,
    'maySwitchTriggersOff', has_parameter_privilege(r.oid, 'session_replication_role', 'SET'),
    'becomes', (select coalesce(jsonb_agg(distinct o.rolname), '[]') from pg_roles o
       where o.oid <> r.oid and pg_has_role(r.oid, o.oid, 'MEMBER') and not r.rolsuper
         and (o.rolsuper or o.rolbypassrls or o.rolname = 'cellfleet_owner'
              or exists (select from pg_trigger g join pg_class t on t.oid = g.tgrelid
                          where g.tgname = 'zz_cellfleet_guard' and t.relowner = o.oid))))
    from pg_roles r where r.rolname = $1`;

/** `appRole`: the role that the application logs in as. Run as the agent, or any role that may read the pack, if it is there. */
export async function readStoreCatalog(client: Queryable, appRole: string): Promise<StoreCatalog> {
  const { rows: pack } = await client.query(
    "select where to_regclass('cellfleet.id_sequence') is not null",
  );
  const leased =
    pack.length > 0
      ? "select name, sequence from cellfleet.id_sequence"
      : "select null::text as name, null::regclass as sequence where false";
  const { rows } = await client.query<{ catalog: unknown }>(
    `select jsonb_build_object('tables', (${tablesQuery(leased)}), 'views', (${viewsQuery}), 'role', (${roleQuery})) as catalog`,
    [appRole],
  );
  return catalogSchema.parse(rows[0]?.catalog);
}
