-- The switch of a move: gates that close, a fence with a marker behind it, and the way back.
--
-- Every command carries (op, attempt). What is smaller than what was obeyed never takes effect, however
-- late it comes: of gates, `gate_order` and the key's own line of ownership remember; of a fence, the
-- line of ownership does. A refused command raises 55000, and nothing of it was done.
--
-- Agents' instances are those that hold a presence lock (shared, of their session). An instance writes
-- its name before it reads which gates are closed, a mover writes which are closed before it reads the
-- names: one of the two sees the other.

-- A row that travels through a stream behind everything that was committed before it. `op` is the move
-- whose stream carries it, and stands in the row filter of its publication; so it must be part of the
-- replica identity. Names are used once: a row is only ever inserted, and can collide nowhere.
create table if not exists cellfleet.move_marker (
  op      text collate "C" not null,
  name    text collate "C" not null,
  attempt integer not null,
  nonce   text not null,
  at      timestamptz not null default clock_timestamp(),
  primary key (op, name)
);

-- For keys at this epoch no request enters. Of a key that has another epoch, or is neither active nor
-- fenced, a line means nothing any more.
create table if not exists cellfleet.closed_gate (
  key     text collate "C" primary key,
  epoch   bigint not null,
  op      text collate "C" not null,
  attempt integer not null
);
create table if not exists cellfleet.gate_answer (
  instance  text collate "C" not null,
  op        text collate "C" not null,
  attempt   integer not null,
  in_flight integer not null,
  at        timestamptz not null default clock_timestamp(),
  primary key (instance, op)
);
create table if not exists cellfleet.gate_order (
  op      text collate "C" primary key,
  attempt integer not null,
  at      timestamptz not null default clock_timestamp()
);
create table if not exists cellfleet.gate_agent (
  instance text collate "C" primary key,
  since    timestamptz not null default clock_timestamp()
);

-- Agents whose session lives. Who may connect may take advisory locks, but no other name than those
-- that agents gave themselves is looked at.
create or replace view cellfleet.present_agent as
  select a.instance
    from cellfleet.gate_agent a
   where exists (
     select from pg_catalog.pg_locks l
      where l.locktype = 'advisory' and l.granted and l.mode = 'ShareLock' and l.objsubid = 1
        and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = current_database())
        and (l.classid::bigint << 32 | l.objid::bigint)
          = cellfleet.lock_key('cellfleet/agent/' || a.instance));

-- For an agent, on the one session that it keeps: from here on moves wait for its answers. The lock is
-- shared because the former session of the same agent may not have been given up yet.
create or replace function cellfleet.be_present(p_instance text) returns void
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  perform pg_advisory_lock_shared(cellfleet.lock_key('cellfleet/agent/' || p_instance));
  delete from cellfleet.gate_answer g where g.at < clock_timestamp() - interval '7 days';
  delete from cellfleet.gate_agent a
   where a.instance in (
     select b.instance from cellfleet.gate_agent b
      where b.instance <> p_instance
        and b.instance not in (select p.instance from cellfleet.present_agent p)
        for update skip locked);
  insert into cellfleet.gate_agent (instance) values (p_instance) on conflict do nothing;
end $$;

-- Notes that this attempt has spoken; raises where a greater one has. Commands of one op queue up here.
create or replace function cellfleet.note_attempt(p_op text, p_attempt integer) returns void
  language plpgsql volatile as $$
begin
  insert into cellfleet.gate_order as g (op, attempt) values (p_op, p_attempt)
  on conflict (op) do update set attempt = excluded.attempt, at = clock_timestamp()
    where g.attempt <= excluded.attempt;
  if not found then
    raise exception 'attempt % of % is over', p_attempt, p_op using errcode = '55000';
  end if;
end $$;

-- p_keys: [{"key","epoch"}]. Agents hear of it at once. Not waited for the disk: a crash ends every
-- agent's session too, and the move goes back.
create or replace function cellfleet.close_gates(p_keys jsonb, p_op text, p_attempt integer) returns void
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_key text;
begin
  perform set_config('synchronous_commit', 'off', true);
  perform cellfleet.note_attempt(p_op, p_attempt);
  delete from cellfleet.gate_order g where g.at < clock_timestamp() - interval '7 days';
  select o.key into v_key
    from jsonb_to_recordset(p_keys) w(key text, epoch bigint)
    join cellfleet.ownership o on o.key = w.key collate "C"
   where (o.epoch, o.op, o.attempt) > (w.epoch, p_op collate "C", p_attempt)
   limit 1;
  if found then
    raise exception 'attempt % of % is over for %', p_attempt, p_op, v_key using errcode = '55000';
  end if;
  insert into cellfleet.closed_gate as g (key, epoch, op, attempt)
  select w.key, w.epoch, p_op, p_attempt from jsonb_to_recordset(p_keys) w(key text, epoch bigint)
   order by w.key
  on conflict (key) do update
    set epoch = excluded.epoch, op = excluded.op, attempt = excluded.attempt
    where (g.epoch, g.op, g.attempt) <= (excluded.epoch, excluded.op, excluded.attempt);
  select w.key into v_key
    from jsonb_to_recordset(p_keys) w(key text, epoch bigint)
    join cellfleet.closed_gate g on g.key = w.key collate "C"
   where (g.epoch, g.op, g.attempt) <> (w.epoch, p_op collate "C", p_attempt)
   limit 1;
  if found then
    raise exception 'a later move has closed the gate of %', v_key using errcode = '55000';
  end if;
  perform pg_notify('cellfleet_gate_order', '');
end $$;

create or replace function cellfleet.open_gates(p_op text, p_attempt integer) returns void
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  -- Lost in a crash, it would leave a tenant shut out with nobody who knows of it.
  perform set_config('synchronous_commit', 'on', true);
  perform cellfleet.note_attempt(p_op, p_attempt);
  delete from cellfleet.closed_gate g where g.op = p_op collate "C";
  delete from cellfleet.gate_answer g where g.op = p_op collate "C";
  perform pg_notify('cellfleet_gate_order', '');
end $$;

-- What agents obey.
create or replace view cellfleet.gate_in_force as
  select g.key, g.op, g.attempt
    from cellfleet.closed_gate g
    join cellfleet.ownership o on o.key = g.key
   where o.epoch = g.epoch and o.state in ('active', 'fenced');

-- "Of the keys of this op, under this attempt, nothing enters here any more, and so many are inside."
create or replace function cellfleet.answer_gate(
    p_instance text, p_op text, p_attempt integer, p_in_flight integer) returns void
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  -- Seen at once, and worth nothing after a crash.
  perform set_config('synchronous_commit', 'off', true);
  insert into cellfleet.gate_answer as g (instance, op, attempt, in_flight)
  select p_instance, p_op, p_attempt, p_in_flight
   where exists (select from cellfleet.closed_gate c
                  where c.op = p_op collate "C" and c.attempt = p_attempt)
  on conflict (instance, op) do update
    set attempt = excluded.attempt, in_flight = excluded.in_flight, at = clock_timestamp()
    where g.attempt <= excluded.attempt;
end $$;

-- Agents that have not answered "none inside" under this attempt; null: not answered at all.
create or replace function cellfleet.gates_open(p_op text, p_attempt integer)
  returns table (instance text, in_flight integer)
  language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
  select p.instance, g.in_flight
    from cellfleet.present_agent p
    left join cellfleet.gate_answer g
      on g.instance = p.instance and g.op = p_op collate "C" and g.attempt = p_attempt
   where g.in_flight is distinct from 0
   order by p.instance
$$;

-- p_changes as in apply_ownership(), all `fenced`. One transaction: writers of the keys are waited for,
-- p_lock_timeout_ms in all and not for each; then the keys are fenced, and the marker stands behind all
-- they wrote. 55P03: a writer was not done; 55000: a greater attempt stands, or a key is not active here (a
-- suspended tenant's would come out of the fence active). Nothing was changed then.
-- Again under the same attempt it changes nothing: the first marker stands. It says nothing of keys that
-- it did not find fenced, so then there must be none. Of no keys at all it changes nothing; a session that
-- has done that once is quick.
create or replace function cellfleet.fence_for_move(
    p_changes jsonb, p_lock_timeout_ms integer, p_name text, p_op text, p_attempt integer, p_nonce text)
  returns void
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_until timestamptz := clock_timestamp() + p_lock_timeout_ms * interval '1 ms';
  v_left integer;
  v_key text;
  v_other record;
  v_fenced integer;
begin
  perform set_config('lock_timeout', p_lock_timeout_ms::text, true);
  -- In the order of everybody who changes ownership: this row first, then keys.
  perform from cellfleet.progress for update;
  for v_key in
    select l.own from cellfleet.locks_for(p_changes) l where l.leaves order by cellfleet.lock_key(l.own)
  loop
    -- A lock that is free is had also when the time is over: a slow machine is nobody in the way.
    v_left := greatest(1, ceil(extract(epoch from v_until - clock_timestamp()) * 1000));
    perform set_config('lock_timeout', v_left::text, true);
    perform cellfleet.lock_keys(array[v_key]);
  end loop;
  select w.key, coalesce(o.state, 'absent') as state into v_other
    from jsonb_to_recordset(p_changes) w(key text, op text)
    left join cellfleet.ownership o on o.key = w.key collate "C"
   where o.state is null or o.state <> 'active' and (o.state <> 'fenced' or o.op <> w.op collate "C")
   limit 1;
  if found then
    raise exception '% is % here', v_other.key, v_other.state using errcode = '55000';
  end if;
  v_fenced := cellfleet.apply_for_move(p_changes, p_lock_timeout_ms);
  if jsonb_array_length(p_changes) = 0 then
    return;
  end if;
  delete from cellfleet.move_marker m where m.at < clock_timestamp() - interval '7 days';
  insert into cellfleet.move_marker (op, name, attempt, nonce) values (p_op, p_name, p_attempt, p_nonce)
  on conflict do nothing;
  if not found and v_fenced > 0 then
    raise exception 'attempt % of % has fenced before', p_attempt, p_op using errcode = '55000';
  end if;
end $$;

-- All of the changes, or 55000: who commands is not the last word on one of the keys. How many were not
-- there already.
create or replace function cellfleet.apply_for_move(p_changes jsonb, p_lock_timeout_ms integer) returns integer
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_change record;
  v_applied integer := 0;
begin
  for v_change in select * from cellfleet.apply_ownership(p_changes, null, p_lock_timeout_ms) loop
    if v_change.outcome = 'refused' then
      raise exception '% is % at epoch % here, by attempt % of %', v_change.key, v_change.state,
        v_change.epoch, v_change.attempt, v_change.op using errcode = '55000';
    elsif v_change.outcome = 'applied' then
      v_applied := v_applied + 1;
    end if;
  end loop;
  return v_applied;
end $$;

-- p_changes, all `active`, at an attempt above that of the fence. A key that was not fenced is written
-- too: so a fence of the smaller attempt that is still under way comes too late here as well. A key that
-- has left, was never here, or is fenced by another operation, stays as it is.
create or replace function cellfleet.unfence_for_move(p_changes jsonb, p_lock_timeout_ms integer) returns void
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_changes jsonb;
begin
  perform set_config('lock_timeout', p_lock_timeout_ms::text, true);
  perform from cellfleet.progress for update;
  select jsonb_agg(c.change) into v_changes
    from jsonb_array_elements(p_changes) c(change)
    join cellfleet.ownership o
      on o.key = (c.change ->> 'key') collate "C" and o.epoch = (c.change ->> 'epoch')::bigint
   where o.state = 'active' or o.state = 'fenced' and o.op = (c.change ->> 'op') collate "C";
  if v_changes is not null then
    perform cellfleet.apply_for_move(v_changes, p_lock_timeout_ms);
  end if;
end $$;

-- Sessions that keep a fence of these keys from coming: they wrote, and are not done. With the caller's
-- rights: of other roles' sessions it sees what he may see.
create or replace function cellfleet.sessions_in_the_way(p_keys text[])
  returns table (pid integer, user_name text, application text, state text, age_ms bigint, key text)
  language sql volatile set search_path = pg_catalog, pg_temp as $$
  select a.pid, a.usename::text, a.application_name, a.state,
         (extract(epoch from clock_timestamp() - a.xact_start) * 1000)::bigint, u.key
    from unnest(p_keys) u(key)
    join pg_locks l
      on (l.classid::bigint << 32 | l.objid::bigint) = cellfleet.lock_key(u.key)
     and l.locktype = 'advisory' and l.objsubid = 1 and l.granted
     and l.database = (select d.oid from pg_database d where d.datname = current_database())
    join pg_stat_activity a on a.pid = l.pid
   where a.pid <> pg_backend_pid()
   order by a.xact_start nulls last, a.pid, u.key
$$;

-- 099 has closed what stood then; these came after it. The mover is a member of this schema's owner.
do $$
declare
  v_agent text := current_setting('cellfleet_install.agent_role');
begin
  revoke all on function cellfleet.be_present(text), cellfleet.note_attempt(text, integer),
    cellfleet.close_gates(jsonb, text, integer), cellfleet.open_gates(text, integer),
    cellfleet.answer_gate(text, text, integer, integer), cellfleet.gates_open(text, integer),
    cellfleet.fence_for_move(jsonb, integer, text, text, integer, text),
    cellfleet.apply_for_move(jsonb, integer), cellfleet.unfence_for_move(jsonb, integer),
    cellfleet.sessions_in_the_way(text[]) from public;
  execute format('grant execute on function cellfleet.be_present(text),
    cellfleet.answer_gate(text, text, integer, integer) to %I', v_agent);
  execute format('grant select on cellfleet.gate_in_force to %I', v_agent);
end $$;
