/**
 * The definitions that a move depends on, as one text: equal texts, no drift.
 *
 * What stands in it: of every guarded and every reference table the columns (type, NOT NULL, default,
 * identity, generated), keys, unique and exclusion constraints, checks, foreign keys and what identifies a
 * row to replication; and the labels of enums and the rules of domains in use. Names of constraints and
 * indexes are not in it, nor is the order of columns: cells that were migrated by other steps to the same
 * end are equal. A default that draws from a sequence is one word, for leased ids are drawn elsewhere.
 */
import { z } from "zod";
import type { Queryable } from "../../cell/store/queryable.ts";

const linesSchema = z.array(z.string());

/* `search_path` is pg_catalog while this runs: every name outside of it is written with its schema. */
const query = `
  with tables as (
    select c.oid, c.relkind, c.relreplident, n.nspname || '.' || c.relname as name,
           coalesce('tenant ' || g.key_column || ' of ' || g.keyspace, k.class) as class
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
      left join cellfleet.guarded_table g on g.schema_name = n.nspname and g.table_name = c.relname
      left join cellfleet.classed_table k on k.schema_name = n.nspname and k.table_name = c.relname
     where c.relkind in ('r', 'p') and (g.table_name is not null or k.class = 'reference')
  ), columns as (
    select t.name, a.attname, a.atttypid,
           format('column %I %s%s%s%s%s', a.attname, format_type(a.atttypid, a.atttypmod),
             case when a.attnotnull then ' not null' else '' end,
             case a.attidentity when '' then '' else ' identity' end,
             case when a.attgenerated <> '' then ' generated (' || pg_get_expr(d.adbin, d.adrelid) || ')'
                  when d.oid is null then ''
                  when pg_get_expr(d.adbin, d.adrelid) ~ '^(nextval|cellfleet\\.next_id)\\(' then ' default sequence'
                  else ' default ' || pg_get_expr(d.adbin, d.adrelid) end,
             (select ' collate ' || o.collname from pg_collation o where o.oid = a.attcollation and o.collname <> 'default')) as line
      from tables t join pg_attribute a on a.attrelid = t.oid and a.attnum > 0 and not a.attisdropped
      left join pg_attrdef d on d.adrelid = t.oid and d.adnum = a.attnum
  ), lines (name, line) as (
    select name, 'table ' || class || case relkind when 'p' then ' partitioned by ' || pg_get_partkeydef(oid) else '' end
      from tables
    union all select name, line from columns
    union all
    select t.name, format('%s (%s)%s%s', case when i.indisprimary then 'primary key' else 'unique' end,
             (select string_agg(pg_get_indexdef(i.indexrelid, s.n, true), ', ' order by s.n)
                from generate_series(1, i.indnkeyatts) s(n)),
             case when i.indnullsnotdistinct then ' nulls not distinct' else '' end,
             ' where ' || pg_get_expr(i.indpred, i.indrelid))
      from tables t join pg_index i on i.indrelid = t.oid and i.indisunique and i.indisvalid
    union all
    select t.name, 'replica identity ' || case t.relreplident when 'f' then 'full' when 'n' then 'nothing' else coalesce(
             (select '(' || string_agg(a.attname, ', ' order by a.attname collate "C") || ')' from pg_index i
                join pg_attribute a on a.attrelid = t.oid and a.attnum = any (i.indkey)
               where i.indrelid = t.oid and case t.relreplident when 'i' then i.indisreplident else i.indisprimary end), 'nothing') end
      from tables t
    union all
    select t.name, pg_get_constraintdef(o.oid) from tables t join pg_constraint o on o.conrelid = t.oid
     where o.contype in ('c', 'f', 'x') and o.conparentid = 0
    union all
    select 'type ' || format_type(y.oid, null), case y.typtype
             when 'e' then (select string_agg(e.enumlabel, ', ' order by e.enumsortorder) from pg_enum e where e.enumtypid = y.oid)
             else (select format_type(y.typbasetype, y.typtypmod) || coalesce(
                     string_agg(' ' || pg_get_constraintdef(o.oid), '' order by pg_get_constraintdef(o.oid)), '')
                     from pg_constraint o where o.contypid = y.oid) end
      from pg_type y
     where y.typtype in ('e', 'd')
       and y.oid in (select coalesce(nullif(b.typelem, 0), b.oid) from columns c join pg_type b on b.oid = c.atttypid)
  )
  select coalesce(jsonb_agg(l.name || ': ' || l.line order by l.name collate "C", l.line collate "C"), '[]') as lines
    from lines l`;

export async function readSchemaText(client: Queryable): Promise<string> {
  await client.query("begin read only; set local search_path = pg_catalog, pg_temp");
  try {
    const { rows } = await client.query<{ lines: unknown }>(query);
    return linesSchema.parse(rows[0]?.lines).join("\n");
  } finally {
    await client.query("rollback");
  }
}
