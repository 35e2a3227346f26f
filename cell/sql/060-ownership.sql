-- Changes of ownership, for the agent's role only.
--
-- One call is all or nothing and serialised with every other. Writers are waited for (exclusive
-- advisory locks, bounded by lock_timeout) exactly where it matters: when a key stops being active
-- or changes its epoch while active, and when the way a tenant resolves to a key changes. A key that
-- becomes active needs no lock, for no writer can have passed under it; so ten thousand fresh keys
-- cost no ten thousand locks.

create or replace function cellfleet.state_rank(p_state text) returns integer
  language sql immutable strict parallel safe
  begin atomic
    select array_position(array['importing', 'active', 'fenced', 'moved', 'dropped'], p_state);
  end;

-- Locks keys exclusively, in one order for everybody.
create or replace function cellfleet.lock_keys(p_keys text[]) returns void
  language plpgsql volatile as $$
declare
  v_key text;
begin
  -- A lock costs an entry of a table that all sessions share (max_locks_per_transaction).
  if cardinality(p_keys) > 1000 then
    raise exception 'a call may lock 1000 keys, not %', cardinality(p_keys) using errcode = '54000';
  end if;
  for v_key in select u.key from unnest(p_keys) u(key) order by cellfleet.lock_key(u.key)
  loop
    perform pg_advisory_xact_lock(cellfleet.lock_key(v_key));
  end loop;
end $$;

-- p_changes: [{"key","state","epoch","op","attempt"}], each key once. p_revision: everything up to
-- it is applied with this call; null for a part of it. Outcome per key: `applied`, `same`, or
-- `refused` with what is there: a lower epoch, or at the same epoch a lower (op, attempt), or within
-- one attempt a step back. 55P03: a writer was not done within the timeout; nothing was changed.
create or replace function cellfleet.apply_ownership(
    p_changes jsonb, p_revision bigint, p_lock_timeout_ms integer default 50)
  returns table (key text, outcome text, state text, epoch bigint, op text, attempt integer)
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
  v_change bigint;
  v_locks text[];
  v_containers text[];
begin
  -- A fence that was reported as applied must survive a crash.
  perform set_config('synchronous_commit', 'on', true);
  perform set_config('lock_timeout', p_lock_timeout_ms::text, true);
  -- One call at a time. A row, not an advisory lock: the application's role could hold that one.
  perform from cellfleet.progress for update;
  perform cellfleet.check_changes(p_changes);
  perform cellfleet.check_activation(p_changes);
  select array_agg(distinct l.own) filter (where l.leaves or l.resolves),
         array_agg(distinct l.container) filter (where l.resolves and l.container is not null)
    into v_locks, v_containers
    from cellfleet.locks_for(p_changes) l;
  perform cellfleet.lock_keys(v_locks || v_containers);
  v_change := nextval('cellfleet.change_number');
  return query
  with wanted as (
    select w.*, coalesce(p_revision, p.applied_revision) as revision
      from jsonb_to_recordset(p_changes) w(key text, state text, epoch bigint, op text, attempt integer)
     cross join cellfleet.progress p
  ), written as (
    insert into cellfleet.ownership as o
           (key, keyspace, kind, value, state, epoch, op, attempt, revision, change, updated_at)
    select w.key, split_part(w.key, '/', 1), split_part(w.key, '/', 2), split_part(w.key, '/', 3),
           w.state, w.epoch, w.op, w.attempt, w.revision, v_change, clock_timestamp()
      from wanted w
    on conflict (key) do update
      set state = excluded.state, epoch = excluded.epoch, op = excluded.op,
          attempt = excluded.attempt, revision = excluded.revision, change = excluded.change,
          updated_at = excluded.updated_at
      where (excluded.epoch, excluded.op, excluded.attempt, cellfleet.state_rank(excluded.state))
          > (o.epoch, o.op, o.attempt, cellfleet.state_rank(o.state))
    returning o.key
  )
  select w.key,
         case when n.key is not null then 'applied'
              when (w.epoch, w.op collate "C", w.attempt, w.state) = (o.epoch, o.op, o.attempt, o.state)
              then 'same' else 'refused' end,
         case when n.key is null then o.state else w.state end,
         case when n.key is null then o.epoch else w.epoch end,
         case when n.key is null then o.op else w.op end,
         case when n.key is null then o.attempt else w.attempt end
    from wanted w
    left join written n on n.key = w.key collate "C"
    left join cellfleet.ownership o on o.key = w.key collate "C";
  -- Older snapshots cannot see a new override: they must stumble over its container's row (40001).
  update cellfleet.ownership o set change = v_change where o.key = any (v_containers);
  update cellfleet.progress p
     set applied_revision = greatest(p.applied_revision, p_revision),
         epoch_max = greatest(p.epoch_max, (
           select max(w.epoch) from jsonb_to_recordset(p_changes) w(epoch bigint)))
   where p_revision > p.applied_revision or jsonb_array_length(p_changes) > 0;
  if jsonb_array_length(p_changes) > 0 then
    perform pg_notify('cellfleet_ownership', v_change::text);
  end if;
end $$;

-- The form of the changes; contract/placement-key.ts has checked the ids themselves.
create or replace function cellfleet.check_changes(p_changes jsonb) returns void
  language plpgsql stable as $$
declare
  v_bad text;
begin
  if jsonb_typeof(p_changes) is distinct from 'array' then
    raise exception 'changes must be a JSON array' using errcode = '22023';
  end if;
  select w.key into v_bad
    from jsonb_to_recordset(p_changes) w(key text, state text, epoch bigint, op text, attempt integer)
   where w.key is null or w.key !~ '^[a-z0-9-]+/(tenant/[^/ ]+|slot/[0-9]+|range/[^/ ]*)$'
      or cellfleet.state_rank(w.state) is null or coalesce(w.epoch, 0) < 1
      or w.op is null or coalesce(w.attempt, -1) < 0
   limit 1;
  if found then
    raise exception 'not a change of ownership: %', v_bad using errcode = 'CF009';
  end if;
  select w.key into v_bad from jsonb_to_recordset(p_changes) w(key text)
   group by w.key having count(*) > 1 limit 1;
  if found then
    raise exception 'placement key % is named twice in one call', v_bad using errcode = '22023';
  end if;
end $$;

-- Per change that will take effect: does the key leave `active`, and does it change which key some
-- tenant resolves to (an override or a range appears or is dropped)? Then `container` is the key
-- that held, or will hold, those tenants.
create or replace function cellfleet.locks_for(p_changes jsonb)
  returns table (own text, container text, leaves boolean, resolves boolean)
  language sql stable set search_path = pg_catalog, pg_temp as $$
  select e.key,
         case when not e.resolves then null
              when e.kind = 'tenant' then cellfleet.container_key(e.keyspace, e.value)
              else cellfleet.range_before(e.keyspace, e.value) end,
         e.leaves, e.resolves
    from (
      select w.key, k.name as keyspace, split_part(w.key, '/', 2) as kind,
             split_part(w.key, '/', 3) as value,
             coalesce(o.state = 'active' and (w.state <> 'active' or w.epoch <> o.epoch), false) as leaves,
             coalesce((split_part(w.key, '/', 2) = 'tenant' and k.strategy in ('slots', 'range')
                       or split_part(w.key, '/', 2) = 'range' and k.strategy = 'range')
                      and (coalesce(o.state, 'dropped') = 'dropped') <> (w.state = 'dropped'), false) as resolves
        from jsonb_to_recordset(p_changes) w(key text, state text, epoch bigint, op text, attempt integer)
        left join cellfleet.keyspace k on k.name = split_part(w.key, '/', 1) collate "C"
        left join cellfleet.ownership o on o.key = w.key collate "C"
       where o.key is null
          or (w.epoch, w.op collate "C", w.attempt, cellfleet.state_rank(w.state))
           > (o.epoch, o.op, o.attempt, cellfleet.state_rank(o.state))
    ) e
   where e.leaves or e.resolves
$$;

-- [{"name","strategy","slotCount","guardMode","ranges"}]. Strategy and slot count of a keyspace that
-- owns keys are fixed: another value would make every row resolve elsewhere (55000).
create or replace function cellfleet.set_keyspaces(p_keyspaces jsonb, p_lock_timeout_ms integer default 50)
  returns void
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_new record;
  v_moved text[];
begin
  perform set_config('lock_timeout', p_lock_timeout_ms::text, true);
  -- One call at a time. A row, not an advisory lock: the application's role could hold that one.
  perform from cellfleet.progress for update;
  for v_new in
    select w.name, w.strategy, w."slotCount" as slot_count, w."guardMode" as guard_mode,
           coalesce(w.ranges, k.range_starts, '{}') as ranges, k.name as known, k.strategy as old_strategy,
           k.slot_count as old_slot_count, k.range_starts as old_ranges
      from jsonb_to_recordset(p_keyspaces)
           w(name text, strategy text, "slotCount" integer, "guardMode" text, ranges text[])
      left join cellfleet.keyspace k on k.name = w.name collate "C"
  loop
    perform from cellfleet.ownership o where o.keyspace = v_new.name collate "C" limit 1;
    if found and v_new.known is not null
       and (v_new.strategy, v_new.slot_count) is distinct from (v_new.old_strategy, v_new.old_slot_count) then
      raise exception 'keyspace % owns keys: its strategy cannot change', v_new.name using errcode = '55000';
    end if;
    -- Tenants move from one key to another wherever a boundary appears or goes.
    select array_agg(distinct b.key) into v_moved from (
      select unnest(array[v_new.name || '/range/' || d.start, cellfleet.range_before(v_new.name, d.start)]) as key
        from (select unnest(v_new.ranges) except select unnest(v_new.old_ranges)
              union all
              (select unnest(v_new.old_ranges) except select unnest(v_new.ranges))) d(start)) b
     where b.key is not null;
    perform cellfleet.lock_keys(v_moved);
    insert into cellfleet.keyspace as k (name, strategy, slot_count, guard_mode, range_starts, stage)
    values (v_new.name, v_new.strategy, v_new.slot_count, v_new.guard_mode, v_new.ranges,
            (select s.stage from cellfleet.stage s))
    on conflict (name) do update
      set strategy = excluded.strategy, slot_count = excluded.slot_count,
          guard_mode = excluded.guard_mode, range_starts = excluded.range_starts
      where (k.strategy, k.slot_count, k.guard_mode, k.range_starts)
         is distinct from (excluded.strategy, excluded.slot_count, excluded.guard_mode, excluded.range_starts);
    update cellfleet.ownership o set change = nextval('cellfleet.change_number')
     where o.key = any (v_moved);
  end loop;
end $$;

-- The stage of this cell's adoption. When it has become `enforce`, no transaction is left that wrote by
-- leave of an earlier stage: each holds a lock on cellfleet.stage, and all who come later read anew.
-- 55P03: one of them was not done within the timeout; nothing was changed. `p_number` counts changes of
-- stage: false, and nothing changed, when this database has a later one, or another one of this number.
-- The number stands between the two, so that nobody who knows nothing of it calls this by mistake.
drop function if exists cellfleet.set_stage(text, integer);
create or replace function cellfleet.set_stage(p_stage text, p_number bigint, p_lock_timeout_ms integer)
  returns boolean
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_number bigint;
  v_stage text;
begin
  if p_stage is null or p_stage not in ('pass-through', 'observe', 'enforce') then
    raise exception 'a stage is pass-through, observe or enforce, not %', p_stage using errcode = '22023';
  end if;
  if p_number is null or p_number < 0 then
    raise exception 'changes of stage are counted from 0, not %', p_number using errcode = '22023';
  end if;
  perform set_config('synchronous_commit', 'on', true);
  perform set_config('lock_timeout', p_lock_timeout_ms::text, true);
  -- One call at a time, also with set_keyspaces, which copies the stage.
  select p.stage_number into v_number from cellfleet.progress p for update;
  select s.stage into v_stage from cellfleet.stage s;
  if p_number <= v_number then
    return p_number = v_number and v_stage = p_stage;
  end if;
  if v_stage <> p_stage then
    if p_stage = 'enforce' then
      lock table cellfleet.stage in exclusive mode;
    end if;
    update cellfleet.stage set stage = p_stage;
    update cellfleet.keyspace set stage = p_stage;
  end if;
  update cellfleet.progress set stage_number = p_number;
  return true;
end $$;
