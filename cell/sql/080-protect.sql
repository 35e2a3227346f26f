-- Puts a table under the guard, and takes it out again. Run by the table's owner (it makes triggers
-- and policies on the table), as often as one likes.
--
-- What is to be done is data: protect_plan() lists the statements that are still needed, in order, each
-- with the lock that it takes on the table. protect_table() runs them in one transaction; who protects
-- a table in use runs them one by one, each with a lock_timeout of its own. Every statement may be
-- repeated, and what takes time (looking for the highest id) takes no lock.

-- Grows when an installed policy or trigger has to be made anew.
create or replace function cellfleet.guard_version() returns integer
  language sql immutable parallel safe
  begin atomic
    select 2;
  end;

do $$ begin
  perform from pg_attribute a
    where a.attrelid = 'cellfleet.guarded_table'::regclass and a.attname = 'version' and not a.attisdropped;
  if not found then
    alter table cellfleet.guarded_table add column version integer not null default 1;
  end if;
end $$;

create or replace function cellfleet.register_table(
    p_schema text, p_table text, p_key_column text, p_keyspace text) returns void
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  insert into cellfleet.guarded_table (schema_name, table_name, key_column, keyspace, version)
  values (p_schema, p_table, p_key_column, p_keyspace, cellfleet.guard_version())
  on conflict (schema_name, table_name) do update
    set key_column = excluded.key_column, keyspace = excluded.keyspace, version = excluded.version;
end $$;

create or replace function cellfleet.forget_table(p_schema text, p_table text) returns void
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  delete from cellfleet.guarded_table g where g.schema_name = p_schema and g.table_name = p_table;
end $$;

-- A table and its partitions, the table first.
create or replace function cellfleet.parts_of(p_table regclass) returns setof regclass
  language sql stable set search_path = pg_catalog, pg_temp as $$
  select p_table
  union all
  select t.relid from pg_partition_tree(p_table) t join pg_class c on c.oid = t.relid
   where t.relid <> p_table and c.relkind in ('r', 'p')
$$;

-- 'absent', 'off' or 'on'; a trigger of that name that calls another function, or the same with other
-- arguments, counts as absent.
create or replace function cellfleet.trigger_state(p_table regclass, p_name text, p_function text, p_args text[])
  returns text
  language sql stable set search_path = pg_catalog, pg_temp as $$
  select coalesce((
    select case when t.tgenabled in ('O', 'A') then 'on' else 'off' end
      from pg_trigger t join pg_proc f on f.oid = t.tgfoid
     where t.tgrelid = p_table and t.tgname = p_name and f.proname = p_function
       and f.pronamespace = 'cellfleet'::regnamespace
       and encode(t.tgargs, 'hex') = coalesce((
             select string_agg(encode(convert_to(a.arg, getdatabaseencoding()), 'hex') || '00', '' order by a.n)
               from unnest(p_args) with ordinality a(arg, n)), '')), 'absent')
$$;

-- Says what cannot be guarded, with the reason.
create or replace function cellfleet.check_guardable(p_schema text, p_table text, p_key_column text) returns void
  language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  v_table text := format('%I.%I', p_schema, p_table);
  v_column record;
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
  select format('%I.%I', n.nspname, c.relname) as name into v_column
    from pg_inherits i join pg_class c on c.oid = i.inhrelid and not c.relispartition
    join pg_namespace n on n.oid = c.relnamespace
   where i.inhparent = v_table::regclass limit 1;
  if found then
    -- Their rows show in this table, past its guard.
    raise exception '% inherits from %, whose guard would not reach its rows', v_column.name, v_table
      using errcode = '42809', hint = format('alter table %s no inherit %s', v_column.name, v_table);
  end if;
end $$;

create or replace function cellfleet.protect_plan(
    p_schema text, p_table text, p_key_column text, p_keyspace text)
  returns table (what text, statement text, lock_mode text, wait_for text)
  language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  v_name text := format('%I.%I', p_schema, p_table);
  v_part regclass;
  v_known boolean;
  v_current boolean;
begin
  perform cellfleet.check_guardable(p_schema, p_table, p_key_column);
  select (g.key_column, g.keyspace, g.version) = (p_key_column, p_keyspace, cellfleet.guard_version()),
         g.version = cellfleet.guard_version()
    into v_known, v_current
    from cellfleet.guarded_table g where g.schema_name = p_schema and g.table_name = p_table;
  if to_regprocedure('cellfleet.' || cellfleet.guard_name(p_key_column) || '()') is null then
    return query select format('guard of column %I', p_key_column),
      format('select cellfleet.guard_for(%L)', p_key_column), 'none', null;
  end if;
  return query select * from cellfleet.trigger_plan(v_name, p_key_column, p_keyspace);
  for v_part in select * from cellfleet.parts_of(v_name::regclass) loop
    return query select * from cellfleet.policy_plan(v_part, p_key_column, p_keyspace, coalesce(v_current, true));
  end loop;
  return query select * from cellfleet.id_plan(v_name::regclass);
  if v_known is not true then
    return query select format('%s in the list of guarded tables', v_name),
      format('select cellfleet.register_table(%L, %L, %L, %L)', p_schema, p_table, p_key_column, p_keyspace),
      'none', null;
  end if;
end $$;

-- BEFORE triggers fire by name: zz_ comes after whatever else may still change the row.
create or replace function cellfleet.trigger_plan(p_name text, p_key_column text, p_keyspace text)
  returns table (what text, statement text, lock_mode text, wait_for text)
  language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  v_guard text := cellfleet.guard_name(p_key_column);
  v_state text;
begin
  lock_mode := 'share-row-exclusive';
  v_state := cellfleet.trigger_state(p_name::regclass, 'zz_cellfleet_guard', v_guard, array[p_keyspace, p_key_column]);
  what := 'guard trigger on ' || p_name;
  if v_state = 'absent' then
    statement := format(
      'create or replace trigger zz_cellfleet_guard before insert or update or delete on %s
         for each row execute function cellfleet.%I(%L, %L)', p_name, v_guard, p_keyspace, p_key_column);
    return next;
  elsif v_state = 'off' then
    statement := format('alter table %s enable trigger zz_cellfleet_guard', p_name);
    return next;
  end if;
  v_state := cellfleet.trigger_state(p_name::regclass, 'zz_cellfleet_commit', 'check_commit', '{}');
  what := 'commit trigger on ' || p_name;
  if v_state = 'absent' then
    statement := format(
      'create constraint trigger zz_cellfleet_commit after insert or update or delete on %s
         deferrable initially deferred for each row execute function cellfleet.check_commit()', p_name);
    return next;
  elsif v_state = 'off' then
    statement := format('alter table %s enable trigger zz_cellfleet_commit', p_name);
    return next;
  end if;
end $$;

-- Restrictive, so that policies of the application's own narrow it further and never widen it. Where
-- the application has none, a permissive one has to stand beside it; where it has, the pack's owner
-- needs one, to count and to purge. What is written is the guard's to judge. Row security is switched
-- on last: before that, the policies do nothing.
create or replace function cellfleet.policy_plan(
    p_table regclass, p_key_column text, p_keyspace text, p_current boolean)
  returns table (what text, statement text, lock_mode text, wait_for text)
  language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  v_table text := (select format('%I.%I', n.nspname, c.relname) from pg_class c
                     join pg_namespace n on n.oid = c.relnamespace where c.oid = p_table);
  v_short text := (select quote_ident(c.relname) from pg_class c where c.oid = p_table);
  v_secure boolean := (select c.relrowsecurity from pg_class c where c.oid = p_table);
  v_ours text[] := array(select p.polname::text from pg_policy p
                          where p.polrelid = p_table and starts_with(p.polname, 'cellfleet_'));
  v_theirs boolean := exists (select from pg_policy p where p.polrelid = p_table and p.polpermissive
                                 and not starts_with(p.polname, 'cellfleet_'));
  v_schema regnamespace := (select c.relnamespace::regnamespace from pg_class c where c.oid = p_table);
  v_reader text := (select r.role_name from cellfleet.pack_role r where r.purpose = 'reader');
  v_role text;
begin
  lock_mode := 'none';
  what := 'rights on ' || v_table;
  foreach v_role in array array['cellfleet_owner', v_reader] loop
    if v_role is not null and not has_schema_privilege(v_role, v_schema::oid, 'USAGE') then
      statement := format('grant usage on schema %s to %I', v_schema, v_role);
      return next;
    end if;
  end loop;
  if not (has_table_privilege('cellfleet_owner', p_table, 'SELECT') and has_table_privilege('cellfleet_owner', p_table, 'DELETE')) then
    statement := format('grant select, delete on %s to cellfleet_owner', v_table);
    return next;
  end if;
  if v_reader is not null and not has_table_privilege(v_reader, p_table, 'SELECT') then
    statement := format('grant select on %s to %I', v_table, v_reader);
    return next;
  end if;
  lock_mode := 'access-exclusive';
  what := 'visibility of ' || v_table;
  if v_theirs and 'cellfleet_open' = any (v_ours) then
    statement := format('drop policy if exists cellfleet_open on %s', v_table);
    return next;
  elsif not v_theirs and 'cellfleet_open' <> all (v_ours) and (not v_secure or 'cellfleet_visible' = any (v_ours)) then
    statement := format('create policy cellfleet_open on %s for all to public using (true) with check (true)', v_table);
    return next;
  end if;
  if 'cellfleet_pack' <> all (v_ours) then
    statement := format('create policy cellfleet_pack on %s for all to cellfleet_owner using (true) with check (true)', v_table);
    return next;
  end if;
  if 'cellfleet_visible' <> all (v_ours) then
    statement := format('create policy cellfleet_visible on %s as restrictive for all to public using (%s) with check (true)',
                        v_table, cellfleet.visible_condition(format('%s.%I', v_short, p_key_column), p_keyspace));
    return next;
  elsif not p_current or not cellfleet.is_visible_by(p_table, p_key_column, p_keyspace) then
    statement := format('alter policy cellfleet_visible on %s using (%s) with check (true)',
                        v_table, cellfleet.visible_condition(format('%s.%I', v_short, p_key_column), p_keyspace));
    return next;
  end if;
  if not v_secure then
    statement := format('alter table %s enable row level security', v_table);
    return next;
  end if;
  lock_mode := 'share-row-exclusive';
  what := 'truncate trigger on ' || v_table;
  if cellfleet.trigger_state(p_table, 'zz_cellfleet_truncate', 'refuse_truncate', '{}') <> 'on' then
    statement := format(
      'create or replace trigger zz_cellfleet_truncate before truncate on %s
         for each statement execute function cellfleet.refuse_truncate()', v_table);
    return next;
  end if;
end $$;

-- Does the policy that stands there ask for this column and this keyspace?
create or replace function cellfleet.is_visible_by(p_table regclass, p_key_column text, p_keyspace text) returns boolean
  language sql stable set search_path = pg_catalog, pg_temp as $$
  select exists (
    select from pg_policy p
      join pg_attribute a on a.attrelid = p.polrelid and a.attname = p_key_column
      join pg_depend d on d.classid = 'pg_policy'::regclass and d.objid = p.oid
                      and d.refclassid = 'pg_class'::regclass and d.refobjid = p.polrelid and d.refobjsubid = a.attnum
     where p.polrelid = p_table and p.polname = 'cellfleet_visible' and not p.polpermissive
       and strpos(pg_get_expr(p.polqual, p.polrelid), format('%L::text', p_keyspace || '/tenant/')) > 0)
$$;

-- A column that takes its default from a sequence takes it from leased ranges of that sequence.
create or replace function cellfleet.id_plan(p_table regclass)
  returns table (what text, statement text, lock_mode text, wait_for text)
  language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  v_table text := (select format('%I.%I', n.nspname, c.relname) from pg_class c
                     join pg_namespace n on n.oid = c.relnamespace where c.oid = p_table);
  v_column record;
begin
  for v_column in select * from cellfleet.numbered_columns(p_table) loop
    what := format('ids of %s.%I', v_table, v_column.name);
    lock_mode := 'none';
    wait_for := null;
    statement := format('select cellfleet.note_ids(%L, %L)', v_table, v_column.name);
    return next;
    lock_mode := 'access-exclusive';
    wait_for := format('select cellfleet.has_range(%L)', v_column.sequence);
    statement := case when v_column.identity
      then format('select cellfleet.lease_identity(%L, %L)', v_table, v_column.name)
      else format('alter table %s alter column %I set default cellfleet.next_id(%L::regclass)',
                  v_table, v_column.name, v_column.sequence) end;
    return next;
  end loop;
end $$;

-- Columns that take plain numbers of a sequence, by default or as identity.
create or replace function cellfleet.numbered_columns(p_table regclass)
  returns table (name text, sequence text, identity boolean)
  language sql stable set search_path = pg_catalog, pg_temp as $$
  select c.name, format('%I.%I', n.nspname, s.relname), c.identity
    from (
      select a.attname::text as name, a.attidentity <> '' as identity,
             case when a.attidentity <> '' then pg_get_serial_sequence(p_table::text, a.attname)::regclass
             else (select d.refobjid::regclass from pg_attrdef f
                     join pg_depend d on d.classid = 'pg_attrdef'::regclass and d.objid = f.oid
                                     and d.refclassid = 'pg_class'::regclass
                     join pg_class s on s.oid = d.refobjid and s.relkind = 'S'
                    where f.adrelid = p_table and f.adnum = a.attnum
                      and pg_get_expr(f.adbin, f.adrelid) like 'nextval(%') end as used
        from pg_attribute a
       where a.attrelid = p_table and a.attnum > 0 and not a.attisdropped) c
    join pg_class s on s.oid = c.used
    join pg_namespace n on n.oid = s.relnamespace
$$;

-- How far the ids of a column have come, so that leased ranges lie above them. Without an index that
-- begins with the column it reads the table, and holds up nobody.
create or replace function cellfleet.note_ids(p_table regclass, p_column text) returns void
  language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  v_sequence text;
  v_last bigint;
  v_max bigint;
begin
  select c.sequence into v_sequence from cellfleet.numbered_columns(p_table) c where c.name = p_column;
  if v_sequence is null then
    return;
  end if;
  execute format('select case when is_called then last_value else 0 end from %s', v_sequence) into v_last;
  execute format('select max(%I) from %s', p_column, p_table) into v_max;
  execute format('grant usage, select, update on sequence %s to cellfleet_owner', v_sequence);
  perform cellfleet.lease_sequence(v_sequence, greatest(v_last, v_max, 0));
end $$;

-- Would next_id() find an id? Also where none is needed, because the cell is only observed.
create or replace function cellfleet.has_range(p_sequence text) returns boolean
  language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select (select s.stage <> 'enforce' from cellfleet.stage s)
      or exists (select from cellfleet.id_sequence s join cellfleet.id_range r on r.sequence = s.name
                  where s.name = p_sequence and r.hi >= pg_sequence_last_value(s.register))
$$;

-- An identity column calls nextval by itself; it becomes what a bigserial column is.
create or replace function cellfleet.lease_identity(p_table regclass, p_column text) returns void
  language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  v_last bigint;
  v_name text;
  v_type text;
begin
  execute format('lock table %s in access exclusive mode', p_table);
  select format('%I.%I', n.nspname, c.relname), q.seqtypid::regtype::text into v_name, v_type
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    join pg_sequence q on q.seqrelid = c.oid
   where c.oid = (select a.sequence::regclass from cellfleet.numbered_columns(p_table) a
                   where a.name = p_column and a.identity);
  if not found then
    return;
  end if;
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
  execute format('grant usage, select, update on sequence %s to cellfleet_owner', v_name);
  perform cellfleet.lease_sequence(v_name, v_last);
  execute format('alter table %s alter column %I set default cellfleet.next_id(%L::regclass)',
                 p_table, p_column, v_name);
end $$;

create or replace function cellfleet.protect_table(
    p_schema text, p_table text, p_key_column text, p_keyspace text) returns void
  language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  v_statement text;
begin
  for v_statement in select p.statement from cellfleet.protect_plan(p_schema, p_table, p_key_column, p_keyspace) p
  loop
    execute v_statement;
  end loop;
end $$;

-- What a partition that was added later is missing: its parent's triggers reach it, policies do not.
create or replace function cellfleet.install_policy(p_table regclass, p_key_column text, p_keyspace text)
  returns void
  language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  v_statement text;
begin
  for v_statement in select p.statement from cellfleet.policy_plan(p_table, p_key_column, p_keyspace, true) p
  loop
    execute v_statement;
  end loop;
end $$;

-- The table as it was, ids apart: they go on by plain nextval, above all that are there.
create or replace function cellfleet.unprotect_plan(p_schema text, p_table text)
  returns table (what text, statement text, lock_mode text, wait_for text)
  language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  v_name text := format('%I.%I', p_schema, p_table);
  v_part regclass;
  v_item text;
begin
  lock_mode := 'access-exclusive';
  for v_item in
    select t.tgname from pg_trigger t
     where t.tgrelid = v_name::regclass and t.tgname in ('zz_cellfleet_guard', 'zz_cellfleet_commit') order by 1 desc
  loop
    what := format('trigger %s on %s', v_item, v_name);
    statement := format('drop trigger if exists %I on %s', v_item, v_name);
    return next;
  end loop;
  for v_part in select * from cellfleet.parts_of(v_name::regclass) loop
    return query select * from cellfleet.open_plan(v_part);
  end loop;
  for v_item in
    select a.attname from pg_attribute a
      join pg_attrdef f on f.adrelid = a.attrelid and f.adnum = a.attnum
      join pg_depend d on d.classid = 'pg_attrdef'::regclass and d.objid = f.oid
      join cellfleet.id_sequence s on s.sequence = d.refobjid and d.refclassid = 'pg_class'::regclass
     where a.attrelid = v_name::regclass and pg_get_expr(f.adbin, f.adrelid) like 'cellfleet.next_id(%'
  loop
    what := format('ids of %s.%I', v_name, v_item);
    statement := format('select cellfleet.note_max(%L, %L)', v_name, v_item);
    lock_mode := 'none';
    return next;
    statement := format('select cellfleet.unlease_column(%L, %L)', v_name, v_item);
    lock_mode := 'access-exclusive';
    return next;
  end loop;
  perform from cellfleet.guarded_table g where g.schema_name = p_schema and g.table_name = p_table;
  if found then
    what := format('%s in the list of guarded tables', v_name);
    statement := format('select cellfleet.forget_table(%L, %L)', p_schema, p_table);
    lock_mode := 'none';
    return next;
  end if;
end $$;

-- Row security goes before the policy that let everything through.
create or replace function cellfleet.open_plan(p_table regclass)
  returns table (what text, statement text, lock_mode text, wait_for text)
  language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  v_table text := (select format('%I.%I', n.nspname, c.relname) from pg_class c
                     join pg_namespace n on n.oid = c.relnamespace where c.oid = p_table);
  v_reader text := (select r.role_name from cellfleet.pack_role r where r.purpose = 'reader');
  v_item text;
begin
  lock_mode := 'access-exclusive';
  what := 'visibility of ' || v_table;
  perform from pg_trigger t where t.tgrelid = p_table and t.tgname = 'zz_cellfleet_truncate';
  if found then
    statement := format('drop trigger if exists zz_cellfleet_truncate on %s', v_table);
    return next;
  end if;
  perform from pg_policy p join pg_class c on c.oid = p.polrelid
    where p.polrelid = p_table and starts_with(p.polname, 'cellfleet_') and c.relrowsecurity;
  if found and not exists (select from pg_policy p where p.polrelid = p_table and not starts_with(p.polname, 'cellfleet_')) then
    statement := format('alter table %s disable row level security', v_table);
    return next;
  end if;
  for v_item in select p.polname from pg_policy p
                 where p.polrelid = p_table and starts_with(p.polname, 'cellfleet_') order by 1 desc loop
    statement := format('drop policy if exists %I on %s', v_item, v_table);
    return next;
  end loop;
  lock_mode := 'none';
  what := 'rights on ' || v_table;
  if has_table_privilege('cellfleet_owner', p_table, 'SELECT, DELETE') then
    statement := format('revoke all on %s from cellfleet_owner', v_table);
    return next;
  end if;
  if v_reader is not null and has_table_privilege(v_reader, p_table, 'SELECT') then
    statement := format('revoke select on %s from %I', v_table, v_reader);
    return next;
  end if;
end $$;

-- The highest id of a leased column, of other cells' ranges too: plain numbers will lie above.
create or replace function cellfleet.note_max(p_table regclass, p_column text) returns void
  language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  v_max bigint;
begin
  execute format('select max(%I) from %s', p_column, p_table) into v_max;
  perform cellfleet.raise_floor(cellfleet.leased_sequence(p_table, p_column), v_max);
end $$;

create or replace function cellfleet.raise_floor(p_sequence regclass, p_floor bigint) returns void
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  update cellfleet.id_sequence s set floor = greatest(s.floor, p_floor)
   where s.sequence = p_sequence and p_floor > s.floor;
end $$;

create or replace function cellfleet.leased_sequence(p_table regclass, p_column text) returns regclass
  language sql stable set search_path = pg_catalog, pg_temp as $$
  select s.sequence from pg_attribute a
    join pg_attrdef f on f.adrelid = a.attrelid and f.adnum = a.attnum
    join pg_depend d on d.classid = 'pg_attrdef'::regclass and d.objid = f.oid
    join cellfleet.id_sequence s on s.sequence = d.refobjid and d.refclassid = 'pg_class'::regclass
   where a.attrelid = p_table and a.attname = p_column
$$;

-- Back to plain nextval(); who may insert into the table may then take numbers again.
create or replace function cellfleet.unlease_column(p_table regclass, p_column text) returns void
  language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  v_sequence regclass;
  v_name text;
  v_role text;
begin
  execute format('lock table %s in access exclusive mode', p_table);
  v_sequence := cellfleet.leased_sequence(p_table, p_column);
  if v_sequence is null then
    return;
  end if;
  select format('%I.%I', n.nspname, c.relname) into v_name
    from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = v_sequence;
  execute format('alter table %s alter column %I set default nextval(%L::regclass)', p_table, p_column, v_name);
  perform setval(v_sequence, s.floor, true) from cellfleet.id_sequence s
    where s.sequence = v_sequence and s.floor > coalesce(pg_sequence_last_value(v_sequence), 0);
  for v_role in
    select distinct case when x.grantee = 0 then 'public' else x.grantee::regrole::text end
      from pg_class c cross join aclexplode(c.relacl) x
     where c.oid = p_table and x.privilege_type = 'INSERT' and x.grantee <> c.relowner
  loop
    execute format('grant usage on sequence %s to %s', v_name, v_role);
  end loop;
end $$;

create or replace function cellfleet.unprotect_table(p_schema text, p_table text) returns void
  language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  v_statement text;
begin
  for v_statement in select p.statement from cellfleet.unprotect_plan(p_schema, p_table) p loop
    execute v_statement;
  end loop;
end $$;

drop function if exists cellfleet.install_guard(text, text, text);
drop function if exists cellfleet.lease_ids(regclass);
drop function if exists cellfleet.identity_to_sequence(regclass, text, regclass);
