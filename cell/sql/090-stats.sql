-- Rows and bytes per tenant, for placement and for people.
--
-- Small tables are counted; of a large one a sample of pages is read and scaled up, so that a report
-- costs about the same whatever the table's size. Bytes are the tenant's share of what the table
-- occupies on disk, indexes and large values included.
create or replace function cellfleet.stats(p_pages_max integer default 20000)
  returns table (keyspace text, tenant text, row_count bigint, byte_count bigint)
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_table record;
  v_parts text[] := '{}';
  v_pages bigint;
begin
  for v_table in
    select g.*, c.oid::regclass as name, c.relkind from cellfleet.guarded_table g
      join pg_namespace n on n.nspname = g.schema_name
      join pg_class c on c.relnamespace = n.oid and c.relname = g.table_name
  loop
    select greatest(1, sum(pg_relation_size(r.id)) / current_setting('block_size')::integer) into v_pages
      from (select v_table.name union select t.relid from pg_partition_tree(v_table.name) t) r(id);
    v_parts := v_parts || cellfleet.stats_query(v_table.name, v_table.key_column, v_table.keyspace,
                                                least(1, p_pages_max / v_pages::numeric));
  end loop;
  if v_parts = '{}' then
    return;
  end if;
  return query execute format(
    'select keyspace, tenant, sum(rows)::bigint, sum(bytes)::bigint from (%s) t
      where tenant is not null group by 1, 2', array_to_string(v_parts, ' union all '));
end $$;

-- pg_column_size of a column reads no large value; of a whole row it would read them all.
create or replace function cellfleet.stats_query(
    p_table regclass, p_key_column text, p_keyspace text, p_share numeric) returns text
  language sql stable as $$
  select format(
    'select %L::text as keyspace, tenant, rows / %s::numeric as rows,
            size * (select sum(pg_total_relation_size(r.id))
                      from (select %L::regclass union select t.relid from pg_partition_tree(%L::regclass) t) r(id))
            / greatest(1, sum(size) over ()) as bytes
       from (select %I::text as tenant, count(*) as rows, sum(24 + %s) as size from %s %s group by 1) s',
    p_keyspace, p_share, p_table::text, p_table::text, p_key_column,
    string_agg(format('coalesce(pg_column_size(%I), 0)', a.attname), ' + ' order by a.attnum), p_table,
    case when p_share < 1 then format('tablesample system (%s)', p_share * 100) else '' end)
    from pg_attribute a
   where a.attrelid = p_table and a.attnum > 0 and not a.attisdropped
$$;
