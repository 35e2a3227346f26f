-- Removing the rows of a key that was dropped here: a tenant that is deleted, or what a move left. A
-- deleted tenant with a key of its own above a container stays fenced: dropped, the container would
-- take its rows in again.

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

-- One statement's worth of a purge: per table how many rows went. In one statement, because rows that
-- refer to each other in a circle can go together only. The tables' own triggers fire, so they find
-- the search_path that they would find anywhere else. p_limit per table; null for all rows.
--
-- What is deleted is asked once more whose it is: a place alone (ctid) names another row in each table
-- that inherits from this one, and may be another row's by now. ONLY, for such tables are not this one.
create or replace function cellfleet.delete_rows(p_tables regclass[], p_conditions text[], p_limit bigint)
  returns bigint[]
  language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  v_statement text;
  v_removed bigint[];
begin
  select format('with %s select array[%s]',
           string_agg(format('d%s as (delete from %s%s r where %s%s returning 1)', d.n,
             case when c.relkind <> 'p' then 'only ' end, d.name, d.condition, case
             when p_limit is null then ''
             -- A ctid stands once in each partition.
             when c.relkind = 'p' then format(' and (r.tableoid, r.ctid) in (select r.tableoid, r.ctid from %s r where %s limit %s)',
                                              d.name, d.condition, p_limit)
             else format(' and r.ctid = any (array(select r.ctid from only %s r where %s limit %s))', d.name, d.condition, p_limit)
             end), ', ' order by d.n),
           string_agg(format('(select count(*) from d%s)', d.n), ', ' order by d.n))
    into v_statement
    from unnest(p_tables, p_conditions) with ordinality d(name, condition, n)
    join pg_class c on c.oid = d.name;
  perform set_config('search_path', (select g.reset_val from pg_settings g where g.name = 'search_path'), true);
  execute v_statement into v_removed;
  return v_removed;
end $$;

-- The same with the rights of the application's tables' owner, to whom the installation gives this
-- function where it can: the triggers of a table are his work, and must not run as the pack's owner.
-- Only purge_rows() may call it. Dropped first, for who owns it could not replace it.
drop function if exists cellfleet.delete_rows_as_owner(regclass[], text[], bigint);
create function cellfleet.delete_rows_as_owner(p_tables regclass[], p_conditions text[], p_limit bigint)
  returns bigint[]
  language sql volatile security definer set search_path = pg_catalog, pg_temp
  begin atomic
    select cellfleet.delete_rows(p_tables, p_conditions, p_limit);
  end;

-- As the tables' owner, if there is one of all and it is he. Not past FORCE ROW LEVEL SECURITY, which
-- hides rows from him too.
create or replace function cellfleet.delete_batch(p_tables regclass[], p_conditions text[], p_limit bigint)
  returns bigint[]
  language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
  perform from pg_class c, pg_proc p
    where c.oid = any (p_tables) and (c.relowner <> p.proowner or c.relforcerowsecurity)
      and p.oid = 'cellfleet.delete_rows_as_owner(regclass[], text[], bigint)'::regprocedure;
  if found then
    return cellfleet.delete_rows(p_tables, p_conditions, p_limit);
  end if;
  return cellfleet.delete_rows_as_owner(p_tables, p_conditions, p_limit);
end $$;

-- Removes up to p_limit rows of a key that is `dropped` here, or `fenced` above a container (55000 else: a
-- suspended tenant is fenced, too), as often as it is called; one line per table. Rows that refer to each other in a circle, or within their table, go all at
-- once if they must. 23503: rows of a table that is not guarded still refer to all that is left.
create or replace function cellfleet.purge_rows(p_key text, p_limit integer default 10000)
  returns table (table_name text, removed bigint)
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_state text;
  v_tables regclass[];
  v_conditions text[];
  v_removed bigint[];
  v_blocked regclass[] := '{}';
  v_blocked_conditions text[] := '{}';
  v_left bigint := p_limit;
  v_refusal text;
begin
  if p_limit is null or p_limit < 1 then
    raise exception 'the limit of a purge must be at least 1' using errcode = '22023';
  end if;
  -- A key that is about to be taken back waits for this transaction.
  select o.state into v_state from cellfleet.ownership o where o.key = p_key collate "C" for share;
  perform from cellfleet.keyspace k
    where k.name = split_part(p_key, '/', 1) collate "C" and k.strategy <> 'directory'
      and split_part(p_key, '/', 2) = 'tenant' and v_state = 'fenced';
  if v_state is distinct from 'dropped' and not found then
    raise exception 'placement key % is % here: only rows of a dropped key are purged', p_key, coalesce(v_state, 'absent')
      using errcode = '55000';
  end if;
  perform set_config('synchronous_commit', 'on', true);
  insert into cellfleet.purging (key, xid) values (p_key, pg_current_xact_id())
  on conflict (key) do update set xid = excluded.xid;
  -- What refers to a row is found out statement by statement, not at the commit.
  set constraints all immediate;
  select array_agg(t.name), array_agg(t.condition), array_agg(0) into v_tables, v_conditions, v_removed
    from cellfleet.tables_of(p_key) t;
  for i in 1 .. coalesce(cardinality(v_tables), 0) loop
    continue when v_conditions[i] is null or v_left = 0;
    begin
      v_removed[i] := (cellfleet.delete_batch(v_tables[i:i], v_conditions[i:i], v_left))[1];
      v_left := v_left - v_removed[i];
    exception when foreign_key_violation or restrict_violation then
      v_refusal := sqlerrm;
      v_blocked := v_blocked || v_tables[i];
      v_blocked_conditions := v_blocked_conditions || v_conditions[i];
    end;
  end loop;
  if v_refusal is not null and v_left = p_limit then
    begin
      v_removed := cellfleet.spread(v_tables, v_blocked, cellfleet.delete_batch(v_blocked, v_blocked_conditions, null));
    exception when foreign_key_violation or restrict_violation then
      raise exception 'rows of % cannot be removed: %', p_key, sqlerrm using errcode = '23503',
        hint = 'Guard the tables whose rows refer to them, or let those references cascade.';
    end;
  end if;
  return query select n.name::text, coalesce(n.count, 0) from unnest(v_tables, v_removed) n(name, count);
end $$;

-- Counts of some tables as counts of all, in the order of all.
create or replace function cellfleet.spread(p_tables regclass[], p_some regclass[], p_counts bigint[]) returns bigint[]
  language sql immutable set search_path = pg_catalog, pg_temp as $$
  select array_agg(coalesce(s.count, 0) order by t.n)
    from unnest(p_tables) with ordinality t(name, n)
    left join unnest(p_some, p_counts) s(name, count) on s.name = t.name
$$;
