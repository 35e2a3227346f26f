-- Removing the rows of a key that was dropped here: a tenant that is deleted, or what a move left.

-- Which rows of a table belong to a key, as a condition on `r`; null where none can (a tenant that
-- the column's type cannot hold). The column's own type is compared too, so that its index serves.
create or replace function cellfleet.rows_condition(p_table regclass, p_column text, p_keyspace text, p_key text)
  returns text
  language plpgsql stable as $$
declare
  v_kind text := split_part(p_key, '/', 2);
  v_value text := split_part(p_key, '/', 3);
  v_type text;
  v_slots integer;
begin
  select a.atttypid::regtype::text into v_type from pg_attribute a
   where a.attrelid = p_table and a.attname = p_column;
  if v_kind = 'tenant' then
    begin
      execute format('select %L::%s', v_value, v_type);
    exception when data_exception then
      return null;
    end;
    return format('r.%1$I = %2$L::%3$s and r.%1$I::text collate "C" = %2$L', p_column, v_value, v_type);
  elsif v_kind = 'slot' then
    select k.slot_count into v_slots from cellfleet.keyspace k where k.name = p_keyspace collate "C";
    return format('cellfleet.slot(r.%1$I::text, %2$s) = %3$s and cellfleet.placement_key(%4$L, r.%1$I::text) = %5$L',
                  p_column, coalesce(v_slots, 1), v_value::integer, p_keyspace, p_key);
  end if;
  return format('r.%1$I::text collate "C" >= %2$L and cellfleet.placement_key(%3$L, r.%1$I::text) = %4$L',
                p_column, v_value, p_keyspace, p_key);
end $$;

-- Guarded tables of a key's keyspace: those first that the fewest others refer to, so children go
-- before their parents.
create or replace function cellfleet.tables_of(p_key text) returns table (name regclass, condition text)
  language sql stable set search_path = pg_catalog, pg_temp as $$
  with recursive guarded as (
    select c.oid, g.key_column, g.keyspace from cellfleet.guarded_table g
      join pg_namespace n on n.nspname = g.schema_name
      join pg_class c on c.relnamespace = n.oid and c.relname = g.table_name
     where g.keyspace = split_part(p_key, '/', 1)
  ), refers (child, parent) as (
    select f.conrelid, f.confrelid from pg_constraint f where f.contype = 'f' and f.conrelid <> f.confrelid
    union
    select f.conrelid, r.parent from refers r join pg_constraint f on f.contype = 'f' and f.confrelid = r.child
  )
  select g.oid::regclass, cellfleet.rows_condition(g.oid, g.key_column, g.keyspace, p_key)
    from guarded g
   order by (select count(*) from refers r where r.parent = g.oid), g.oid::regclass::text
$$;

-- How many rows of the key stand in each guarded table, visible or not.
create or replace function cellfleet.rows_left(p_key text) returns table (table_name text, row_count bigint)
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_table record;
begin
  for v_table in select t.name, t.condition from cellfleet.tables_of(p_key) t loop
    table_name := v_table.name::text;
    row_count := 0;
    if v_table.condition is not null then
      execute format('select count(*) from %s r where %s', v_table.name, v_table.condition) into row_count;
    end if;
    return next;
  end loop;
end $$;

-- Removes up to p_limit rows of a key that is `dropped` here (55000 else), as often as it is called;
-- one line per table. Tables that refer to each other in a circle are tried in turn. 23503: rows of a
-- table that is not guarded still refer to some, and nothing could be removed.
create or replace function cellfleet.purge_rows(p_key text, p_limit integer default 10000)
  returns table (table_name text, removed bigint)
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_state text;
  v_table record;
  v_left bigint := p_limit;
  v_done bigint;
  v_refusal text;
begin
  if p_limit is null or p_limit < 1 then
    raise exception 'the limit of a purge must be at least 1' using errcode = '22023';
  end if;
  -- A key that is about to be taken back waits for this transaction.
  select o.state into v_state from cellfleet.ownership o where o.key = p_key collate "C" for share;
  if v_state is distinct from 'dropped' then
    raise exception 'placement key % is % here: only rows of a dropped key are purged', p_key, coalesce(v_state, 'absent')
      using errcode = '55000';
  end if;
  perform set_config('synchronous_commit', 'on', true);
  insert into cellfleet.purging (key, xid) values (p_key, pg_current_xact_id())
  on conflict (key) do update set xid = excluded.xid;
  -- What refers to a row is found out statement by statement, not at the commit.
  set constraints all immediate;
  for v_table in select t.name, t.condition from cellfleet.tables_of(p_key) t loop
    v_done := 0;
    if v_table.condition is not null and v_left > 0 then
      begin
        -- A ctid stands in each partition; the condition keeps all but the key's rows out.
        execute format('delete from %1$s r where r.ctid = any (array(select r.ctid from %1$s r where %2$s limit $1)) and %2$s',
                       v_table.name, v_table.condition) using v_left;
        get diagnostics v_done = row_count;
      exception when foreign_key_violation or restrict_violation then
        v_refusal := sqlerrm;
        v_done := 0;
      end;
    end if;
    v_left := v_left - v_done;
    table_name := v_table.name::text;
    removed := v_done;
    return next;
  end loop;
  if v_refusal is not null and v_left = p_limit then
    raise exception 'rows of % cannot be removed: %', p_key, v_refusal using errcode = '23503',
      hint = 'Guard the tables whose rows refer to them, or let those references cascade.';
  end if;
end $$;
