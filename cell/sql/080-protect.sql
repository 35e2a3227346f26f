-- Puts a table under the guard, and takes it out again. Run by the table's owner (it makes triggers
-- and policies on the table), as often as one likes.

create or replace function cellfleet.register_table(
    p_schema text, p_table text, p_key_column text, p_keyspace text) returns void
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  insert into cellfleet.guarded_table (schema_name, table_name, key_column, keyspace)
  values (p_schema, p_table, p_key_column, p_keyspace)
  on conflict (schema_name, table_name) do update
    set key_column = excluded.key_column, keyspace = excluded.keyspace;
end $$;

create or replace function cellfleet.forget_table(p_schema text, p_table text) returns void
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  delete from cellfleet.guarded_table g where g.schema_name = p_schema and g.table_name = p_table;
end $$;

create or replace function cellfleet.protect_table(
    p_schema text, p_table text, p_key_column text, p_keyspace text) returns void
  language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  v_table text := format('%I.%I', p_schema, p_table);
  v_column record;
  v_part regclass;
begin
  select a.atttypid::regtype::text as type, a.attgenerated, c.relkind into v_column
    from pg_attribute a join pg_class c on c.oid = a.attrelid
   where a.attrelid = v_table::regclass and a.attname = p_key_column and not a.attisdropped;
  if not found then
    raise exception 'table % has no column %', v_table, p_key_column using errcode = '42703';
  elsif v_column.relkind not in ('r', 'p') then
    raise exception '% is not a table', v_table using errcode = '42809';
  elsif v_column.type not in ('text', 'character varying', 'uuid', 'bigint', 'integer') then
    raise exception 'key column %.% is of type %; text, varchar, uuid, bigint and integer can be guarded',
      v_table, p_key_column, v_column.type using errcode = '42804';
  elsif v_column.attgenerated <> '' then
    -- A generated column has no value yet when the guard runs.
    raise exception 'key column %.% is generated', v_table, p_key_column using errcode = '42P17';
  end if;
  perform cellfleet.install_guard(v_table, p_key_column, p_keyspace);
  for v_part in select v_table::regclass union select t.relid from pg_partition_tree(v_table::regclass) t
  loop
    perform cellfleet.install_policy(v_part, p_key_column, p_keyspace);
  end loop;
  perform cellfleet.lease_ids(v_table::regclass);
  perform cellfleet.register_table(p_schema, p_table, p_key_column, p_keyspace);
end $$;

-- BEFORE triggers fire by name: zz_ comes after whatever else may still change the row.
create or replace function cellfleet.install_guard(p_table text, p_key_column text, p_keyspace text) returns void
  language plpgsql volatile set search_path = pg_catalog, pg_temp
  -- "does not exist, skipping" is no news here.
  set client_min_messages = warning as $$
begin
  execute format(
    'create or replace trigger zz_cellfleet_guard before insert or update or delete on %s
       for each row execute function cellfleet.%I(%L, %L)',
    p_table, cellfleet.guard_for(p_key_column), p_keyspace, p_key_column);
  execute format('alter table %s enable trigger zz_cellfleet_guard', p_table);
  execute format('drop trigger if exists zz_cellfleet_commit on %s', p_table);
  execute format(
    'create constraint trigger zz_cellfleet_commit after insert or update or delete on %s
       deferrable initially deferred for each row execute function cellfleet.check_commit()', p_table);
end $$;

-- Restrictive, so that policies of the application's own narrow it further and never widen it. Where
-- the application has none, a permissive one has to stand beside it. What is written is the guard's
-- to judge.
create or replace function cellfleet.install_policy(p_table regclass, p_key_column text, p_keyspace text)
  returns void
  language plpgsql volatile set search_path = pg_catalog, pg_temp
  -- "does not exist, skipping" is no news here.
  set client_min_messages = warning as $$
declare
  v_name text := (select quote_ident(c.relname) from pg_class c where c.oid = p_table);
begin
  execute format('drop policy if exists cellfleet_visible on %s', p_table);
  execute format('create policy cellfleet_visible on %s as restrictive for all to public using (%s) with check (true)',
                 p_table, cellfleet.visible_condition(format('%s.%I', v_name, p_key_column), p_keyspace));
  perform from pg_policy p
    where p.polrelid = p_table and p.polpermissive and p.polname <> 'cellfleet_open';
  execute format('drop policy if exists cellfleet_open on %s', p_table);
  if not found then
    execute format('create policy cellfleet_open on %s for all to public using (true) with check (true)', p_table);
  end if;
  execute format('alter table %s enable row level security', p_table);
  execute format(
    'create or replace trigger zz_cellfleet_truncate before truncate on %s
       for each statement execute function cellfleet.refuse_truncate()', p_table);
  execute format('grant select on %s to cellfleet_owner', p_table);
end $$;

-- Every column that takes its default from a sequence takes it from leased ranges of that sequence.
create or replace function cellfleet.lease_ids(p_table regclass) returns void
  language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  v_column record;
  v_sequence regclass;
  v_last bigint;
  v_max bigint;
begin
  for v_column in
    select a.attname, a.attidentity, pg_get_serial_sequence(p_table::text, a.attname)::regclass as own,
           (select d.refobjid::regclass from pg_attrdef f
              join pg_depend d on d.classid = 'pg_attrdef'::regclass and d.objid = f.oid
                              and d.refclassid = 'pg_class'::regclass
              join pg_class s on s.oid = d.refobjid and s.relkind = 'S'
             where f.adrelid = p_table and f.adnum = a.attnum
               and pg_get_expr(f.adbin, f.adrelid) like 'nextval(%') as used
      from pg_attribute a
     where a.attrelid = p_table and a.attnum > 0 and not a.attisdropped
  loop
    v_sequence := v_column.used;
    if v_column.attidentity <> '' then
      v_sequence := cellfleet.identity_to_sequence(p_table, v_column.attname, v_column.own);
    end if;
    continue when v_sequence is null;
    execute format('select case when is_called then last_value else 0 end from %s', v_sequence) into v_last;
    execute format('select max(%I) from %s', v_column.attname, p_table) into v_max;
    execute format('grant usage, select, update on sequence %s to cellfleet_owner', v_sequence);
    perform cellfleet.lease_sequence(v_sequence, greatest(v_last, v_max, 0));
    execute format('alter table %s alter column %I set default cellfleet.next_id(%L::regclass)',
                   p_table, v_column.attname, v_sequence::text);
  end loop;
end $$;

-- An identity column calls nextval by itself; it becomes what a bigserial column is.
create or replace function cellfleet.identity_to_sequence(p_table regclass, p_column text, p_old regclass)
  returns regclass
  language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  v_last bigint;
  v_name text;
  v_type text;
begin
  select format('%I.%I', n.nspname, c.relname), q.seqtypid::regtype::text into v_name, v_type
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    join pg_sequence q on q.seqrelid = c.oid
   where c.oid = p_old;
  execute format('select case when is_called then last_value else 0 end from %s', v_name) into v_last;
  execute format('alter table %s alter column %I drop identity', p_table, p_column);
  execute format('create sequence %s as %s', v_name, v_type);
  -- A superuser may be the caller: sequence and table must have one owner.
  execute format('alter sequence %s owner to %s', v_name,
                 (select c.relowner::regrole from pg_class c where c.oid = p_table));
  execute format('alter sequence %s owned by %s.%I', v_name, p_table, p_column);
  if v_last > 0 then
    perform setval(v_name::regclass, v_last, true);
  end if;
  return v_name::regclass;
end $$;

-- The table as it was, ids apart: they go on in the range in use, by plain nextval.
create or replace function cellfleet.unprotect_table(p_schema text, p_table text) returns void
  language plpgsql volatile set search_path = pg_catalog, pg_temp
  -- "does not exist, skipping" is no news here.
  set client_min_messages = warning as $$
declare
  v_table text := format('%I.%I', p_schema, p_table);
  v_part regclass;
  v_column record;
begin
  execute format('drop trigger if exists zz_cellfleet_guard on %s', v_table);
  execute format('drop trigger if exists zz_cellfleet_commit on %s', v_table);
  for v_part in select v_table::regclass union select t.relid from pg_partition_tree(v_table::regclass) t
  loop
    execute format('drop trigger if exists zz_cellfleet_truncate on %s', v_part);
    execute format('drop policy if exists cellfleet_visible on %s', v_part);
    execute format('drop policy if exists cellfleet_open on %s', v_part);
    perform from pg_policy p where p.polrelid = v_part;
    if not found then
      execute format('alter table %s disable row level security', v_part);
    end if;
  end loop;
  for v_column in
    select a.attname, s.sequence from pg_attribute a
      join pg_attrdef f on f.adrelid = a.attrelid and f.adnum = a.attnum
      join pg_depend d on d.classid = 'pg_attrdef'::regclass and d.objid = f.oid
      join cellfleet.id_sequence s on s.sequence = d.refobjid and d.refclassid = 'pg_class'::regclass
     where a.attrelid = v_table::regclass
  loop
    execute format('alter table %s alter column %I set default nextval(%L::regclass)',
                   v_table, v_column.attname, v_column.sequence::text);
  end loop;
  perform cellfleet.forget_table(p_schema, p_table);
end $$;
