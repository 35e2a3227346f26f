/**
 * The tables whose rows move with the keys of a task, as one database has them: what is compared, and
 * what refers to what. Reads the catalog only.
 */
import { z } from "zod";
import type { Queryable } from "../../cell/store/queryable.ts";
import { tenantsOf } from "../key-rows.ts";
import type { MoveTask } from "../ports.ts";

const nameSchema = z.object({ schema: z.string(), table: z.string() });
const comparedTableSchema = nameSchema.extend({
  partitioned: z.boolean(),
  key: z.object({ name: z.string(), type: z.string(), holds: z.array(z.string()) }),
  /** By name, in byte order: the order of columns may differ between cells. */
  columns: z.array(z.object({ name: z.string(), type: z.string() })),
  foreignKeys: z.array(
    z.object({
      name: z.string(),
      parent: nameSchema.extend({ partitioned: z.boolean() }),
      pairs: z.array(z.object({ child: z.string(), parent: z.string(), operator: z.string() })),
    }),
  ),
});
export type ComparedTable = z.infer<typeof comparedTableSchema>;

/*
 * A foreign key's own operators are asked for: with the search_path of a comparison an operator of an
 * extension's type would not be found by its sign. A key with PERIOD is not one of equality.
 */
const query = `
  select coalesce(jsonb_agg(jsonb_build_object(
    'schema', g.schema_name, 'table', g.table_name, 'partitioned', c.relkind = 'p',
    'key', jsonb_build_object('name', g.key_column, 'type', format_type(k.atttypid, k.atttypmod),
      'holds', (select coalesce(jsonb_agg(v.value), '[]') from unnest($2::text[]) v(value)
                 where pg_input_is_valid(v.value, format_type(k.atttypid, k.atttypmod)))),
    'columns', (select jsonb_agg(jsonb_build_object('name', a.attname, 'type', format_type(a.atttypid, a.atttypmod))
                                 order by a.attname collate "C")
        from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped),
    'foreignKeys', (select coalesce(jsonb_agg(jsonb_build_object('name', f.conname,
          'parent', jsonb_build_object('schema', pn.nspname, 'table', pc.relname, 'partitioned', pc.relkind = 'p'),
          'pairs', (select jsonb_agg(jsonb_build_object('child', ca.attname, 'parent', pa.attname,
                           'operator', format('operator(%I.%s)', n.nspname, o.oprname)) order by x.n)
              from unnest(f.conkey, f.confkey, f.conpfeqop) with ordinality x(child, parent, op, n)
              join pg_attribute ca on ca.attrelid = f.conrelid and ca.attnum = x.child
              join pg_attribute pa on pa.attrelid = f.confrelid and pa.attnum = x.parent
              join pg_operator o on o.oid = x.op join pg_namespace n on n.oid = o.oprnamespace))
            order by f.conname), '[]')
        from pg_constraint f join pg_class pc on pc.oid = f.confrelid join pg_namespace pn on pn.oid = pc.relnamespace
       where f.conrelid = c.oid and f.contype = 'f' and f.conparentid = 0
         and coalesce((to_jsonb(f)->>'conperiod')::boolean, false) = false)
  ) order by g.schema_name collate "C", g.table_name collate "C"), '[]') as tables
    from cellfleet.guarded_table g
    join pg_namespace gn on gn.nspname = g.schema_name
    join pg_class c on c.relnamespace = gn.oid and c.relname = g.table_name
    join pg_attribute k on k.attrelid = c.oid and k.attname = g.key_column
   where g.keyspace = $1`;

export async function readComparedTables(
  client: Queryable,
  task: MoveTask,
): Promise<ComparedTable[]> {
  const { rows } = await client.query<{ tables: unknown }>(query, [
    task.keyspace.name,
    tenantsOf(task),
  ]);
  return z.array(comparedTableSchema).parse(rows[0]?.tables);
}
