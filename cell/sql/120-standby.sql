-- Standbys as one database knows them. Of a cell with standby partners (an origin): its heartbeat, the list
-- of partners that it was told, the buckets that it stopped serving. Of an annex, which keeps another
-- cell's rows: what it has promised that cell, and the takeover that it was ordered.
--
-- What must always be true (corrections A1 to A3, A19): an older list never replaces a newer one; a
-- promise is durable before it is answered; once a takeover is recorded nothing is promised any more; and
-- an annex makes a key active only by an open takeover, with no promise left, looked at in the same
-- transaction.

-- Its own row is written by the origin's agent, while the cell can serve; rows of others arrive through a
-- stream. `beat`: how far the origin's log had come, in bytes; `lease_grant`: the highest grant that it had
-- seen. A database that knows less than what has arrived here was set back, or is a copy.
create table if not exists cellfleet.heartbeat (
  origin      text collate "C" primary key,
  beat        bigint not null,
  lease_grant bigint not null default 0,
  at          timestamptz not null
);

-- False, and nothing is written, while the cell may not serve.
create or replace function cellfleet.beat(p_cell text) returns boolean
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  if not cellfleet.lease_live() then
    return false;
  end if;
  insert into cellfleet.heartbeat as h (origin, beat, lease_grant, at)
  select p_cell, (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint, s.lease_grant, clock_timestamp()
    from cellfleet.grant_seen s
  on conflict (origin) do update
    set beat = greatest(h.beat, excluded.beat), lease_grant = excluded.lease_grant, at = excluded.at;
  return true;
end $$;

-- Exactly one row, once a list was told; an empty list is one. Holds what the partners know the origin's
-- agent by, so only the agent's role reads it.
create table if not exists cellfleet.partner_list (
  one        boolean primary key default true check (one),
  revision   bigint not null,
  partners   jsonb not null,
  promise_ms bigint not null
);

-- `set`; `same`, when it was told before; `stale`: a newer list stands.
create or replace function cellfleet.take_partners(p_revision bigint, p_partners jsonb, p_promise_ms bigint)
  returns text
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_list cellfleet.partner_list;
begin
  if p_revision is null or p_revision < 0 or p_promise_ms is null or p_promise_ms < 1
     or jsonb_typeof(p_partners) is distinct from 'array' then
    raise exception 'not a list of partners: revision %', p_revision using errcode = '22023';
  end if;
  -- What is acknowledged to the control plane must survive a crash (corrections A2).
  perform set_config('synchronous_commit', 'on', true);
  perform from cellfleet.progress for update;
  select * into v_list from cellfleet.partner_list;
  if v_list.revision > p_revision then
    return 'stale';
  end if;
  -- Where a partner is reached may change without another list.
  insert into cellfleet.partner_list (revision, partners, promise_ms)
  values (p_revision, p_partners, p_promise_ms)
  on conflict (one) do update set revision = excluded.revision, partners = excluded.partners,
    promise_ms = excluded.promise_ms;
  return case when v_list.revision = p_revision then 'same' else 'set' end;
end $$;

-- The control plane refused a lease: its silence afterwards is no reason to go on. Ended by its next grant.
create or replace function cellfleet.note_refused() returns void
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  perform set_config('synchronous_commit', 'on', true);
  update cellfleet.grant_seen set refused = true where not refused;
end $$;

-- Buckets whose partner's promise is over: refused and hidden until the control plane grants again. The
-- guard reads sequences, whose values stand outside of snapshots: a REPEATABLE READ transaction meets a
-- stop at once. 256 buckets, one bit each.
create table if not exists cellfleet.stopped (
  annex text collate "C" primary key,
  lo    integer not null,
  hi    integer not null,
  at    timestamptz not null default clock_timestamp(),
  check (0 <= lo and lo <= hi and hi <= 255)
);
create sequence if not exists cellfleet.stopped_0 minvalue -9223372036854775808 start 0;
create sequence if not exists cellfleet.stopped_1 minvalue -9223372036854775808 start 0;
create sequence if not exists cellfleet.stopped_2 minvalue -9223372036854775808 start 0;
create sequence if not exists cellfleet.stopped_3 minvalue -9223372036854775808 start 0;

-- The expression of contract/placement-key.ts: all rows of a key lie in one bucket.
create or replace function cellfleet.bucket(p_keyspace text, p_tenant text) returns integer
  language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp as $$
declare
  v_keyspace cellfleet.keyspace;
begin
  select * into v_keyspace from cellfleet.keyspace k where k.name = p_keyspace collate "C";
  if v_keyspace.strategy = 'range' then
    return cellfleet.slot(p_keyspace, 256);
  elsif v_keyspace.strategy = 'slots' then
    return cellfleet.slot(p_tenant, least(256, v_keyspace.slot_count));
  end if;
  return cellfleet.slot(p_tenant, 256);
end $$;

create or replace function cellfleet.is_stopped(p_keyspace text, p_tenant text) returns boolean
  language plpgsql stable parallel safe security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_bucket integer := cellfleet.bucket(p_keyspace, p_tenant);
begin
  return coalesce(
    (pg_sequence_last_value(('cellfleet.stopped_' || (v_bucket >> 6))::regclass) >> (v_bucket & 63)) & 1 = 1,
    false);
end $$;

-- As the table says. Last in a transaction: setval is not undone by a rollback.
create or replace function cellfleet.write_stopped() returns void
  language plpgsql volatile as $$
begin
  perform setval(('cellfleet.stopped_' || w.word)::regclass,
                 coalesce((select bit_or(1::bigint << (b.bucket & 63))
                             from cellfleet.stopped s, generate_series(s.lo, s.hi) b(bucket)
                            where b.bucket >> 6 = w.word), 0))
     from generate_series(0, 3) w(word);
  perform setval('cellfleet.lease_boot',
                 floor(extract(epoch from l.boot) * 1000000)::bigint
                   + case when exists (select from cellfleet.stopped) then 1 else 0 end)
     from cellfleet.lease l where l.boot = pg_postmaster_start_time();
end $$;

-- Durable before the lease is extended past the end of what the partner promised. Writers that passed the
-- guard before meet it again at their commit.
create or replace function cellfleet.stop_buckets(p_annex text, p_lo integer, p_hi integer) returns void
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  perform set_config('synchronous_commit', 'on', true);
  -- The same lock as set_lease.
  perform from cellfleet.grant_seen for update;
  insert into cellfleet.stopped (annex, lo, hi) values (p_annex, p_lo, p_hi)
  on conflict (annex) do update set lo = least(stopped.lo, excluded.lo), hi = greatest(stopped.hi, excluded.hi);
  perform cellfleet.write_stopped();
end $$;

-- By a grant of the control plane alone; false where a later grant stands.
create or replace function cellfleet.resume_buckets(p_grant bigint) returns boolean
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  perform set_config('synchronous_commit', 'on', true);
  perform from cellfleet.grant_seen for update;
  perform from cellfleet.grant_seen s where s.control_grant = p_grant and s.lease_grant = p_grant;
  if not found then
    return false;
  end if;
  delete from cellfleet.stopped;
  perform cellfleet.write_stopped();
  return true;
end $$;

-- A row: this database is an annex, of `origin`. What was promised is counted by the agent's monotonic
-- clock, which takes it back when it is over (end_promise): no clock is read here, for it may be set.
create table if not exists cellfleet.annex_of (
  one               boolean primary key default true check (one),
  origin            text not null,
  -- Digest of what the origin's agent shows when it asks for a promise; empty: not told yet.
  token_digest      text not null default '',
  -- 0: nothing is promised. Else for how long, from when the agent that asks here began or answered.
  promised_ms       bigint not null default 0,
  promise_number    bigint not null default 0,
  -- The highest that the origin has presented (corrections A14, A19).
  system_identifier text not null default '',
  timeline          integer not null default 0,
  boot              timestamptz,
  presenter         text not null default '',
  lease_grant       bigint not null default 0,
  lsn               pg_lsn not null default '0/0',
  -- The takeover that was ordered; null: none. Once there is one nothing is promised any more.
  failover          text,
  attempt           integer not null default 0,
  open              boolean not null default false,
  -- It was given up before it was open: promises are made again. The line stays, so that it cannot come back.
  withdrawn         boolean not null default false
);

-- Before anything is applied here. False: it is the annex of another cell.
create or replace function cellfleet.become_annex(p_origin text, p_token_digest text) returns boolean
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  perform set_config('synchronous_commit', 'on', true);
  insert into cellfleet.annex_of (origin) values (p_origin) on conflict do nothing;
  update cellfleet.annex_of a set token_digest = p_token_digest
   where a.origin = p_origin and p_token_digest not in ('', a.token_digest);
  perform from cellfleet.annex_of a where a.origin = p_origin;
  return found;
end $$;

-- Nobody makes a key active here for p_for_ms from the answer on. `promised`, or why not: `not_my_origin`,
-- `takeover`, `other_database`, `time_travel`, `contested` (the former life of the origin's database still
-- asks: p_contested says that the presenter of that life was heard a moment ago). Null for p_system: the
-- identity was looked at in another store.
create or replace function cellfleet.promise(
    p_origin text, p_for_ms bigint, p_system text, p_timeline integer, p_boot timestamptz,
    p_presenter text, p_grant bigint, p_lsn pg_lsn, p_contested boolean)
  returns table (outcome text, number bigint)
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_annex cellfleet.annex_of;
  v_beat cellfleet.heartbeat;
begin
  perform set_config('synchronous_commit', 'on', true);
  select * into v_annex from cellfleet.annex_of a for update;
  if v_annex.origin is distinct from p_origin then
    return query select 'not_my_origin', 0::bigint;
    return;
  elsif v_annex.failover is not null and not v_annex.withdrawn then
    return query select 'takeover', 0::bigint;
    return;
  end if;
  if p_system is not null then
    select * into v_beat from cellfleet.heartbeat h where h.origin = p_origin collate "C";
    if v_annex.system_identifier not in ('', p_system) or p_boot < v_annex.boot then
      return query select 'other_database', 0::bigint;
      return;
    elsif p_timeline < v_annex.timeline
       or p_grant < greatest(v_annex.lease_grant, coalesce(v_beat.lease_grant, 0))
       or p_lsn < greatest(v_annex.lsn, '0/0'::pg_lsn + coalesce(v_beat.beat, 0)::numeric) then
      return query select 'time_travel', 0::bigint;
      return;
    elsif p_boot > v_annex.boot and p_presenter <> v_annex.presenter and p_contested then
      return query select 'contested', 0::bigint;
      return;
    end if;
    update cellfleet.annex_of set system_identifier = p_system, timeline = p_timeline, boot = p_boot,
           presenter = p_presenter, lease_grant = p_grant, lsn = p_lsn;
  end if;
  return query
  update cellfleet.annex_of a
     set promised_ms = greatest(a.promised_ms, p_for_ms), promise_number = a.promise_number + 1
  returning 'promised', a.promise_number;
end $$;

-- What was promised is over, or given back. Of an older number than the last, nothing: it was renewed.
create or replace function cellfleet.end_promise(p_number bigint) returns boolean
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  perform set_config('synchronous_commit', 'on', true);
  update cellfleet.annex_of a set promised_ms = 0 where a.promise_number = p_number;
  return found;
end $$;

-- `recorded`; `same`; `stale`: a later failover, or a later attempt of this one, has spoken. What is open
-- stays open for all attempts of its failover, and is withdrawn no more. p_proved: nothing of the origin runs any more, so what
-- was promised to it binds nobody.
create or replace function cellfleet.record_takeover(
    p_failover text, p_attempt integer, p_open boolean, p_proved boolean, p_withdrawn boolean) returns text
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_annex cellfleet.annex_of;
  v_open boolean;
begin
  if coalesce(p_failover, '') = '' or p_attempt is null or p_open is null then
    raise exception 'not an order of a takeover: % %', p_failover, p_attempt using errcode = '22023';
  end if;
  perform set_config('synchronous_commit', 'on', true);
  select * into v_annex from cellfleet.annex_of a for update;
  if not found then
    raise exception 'this database is no annex' using errcode = '55000';
  end if;
  if (p_failover collate "C", p_attempt) < (v_annex.failover collate "C", v_annex.attempt) then
    return 'stale';
  end if;
  v_open := p_open or (v_annex.open and v_annex.failover = p_failover);
  if p_withdrawn and v_annex.open then
    return 'stale';
  end if;
  if (v_annex.failover, v_annex.attempt, v_annex.open, v_annex.withdrawn)
       is not distinct from (p_failover, p_attempt, v_open, p_withdrawn)
     and not (p_proved and v_annex.promised_ms > 0) then
    return 'same';
  end if;
  update cellfleet.annex_of
     set failover = p_failover, attempt = p_attempt, open = v_open, withdrawn = p_withdrawn,
         promised_ms = case when p_proved then 0 else promised_ms end,
         promise_number = promise_number + case when p_proved then 1 else 0 end;
  return 'recorded';
end $$;

-- For apply_ownership, in its transaction. The row is locked, so that an old snapshot stumbles (40001), and
-- so that a promise waits for what becomes active, or this for the promise.
create or replace function cellfleet.check_activation(p_changes jsonb) returns void
  language plpgsql volatile as $$
declare
  v_annex cellfleet.annex_of;
begin
  perform from jsonb_to_recordset(p_changes) w(state text) where w.state = 'active';
  if not found then
    return;
  end if;
  select * into v_annex from cellfleet.annex_of a for share;
  if found and (not v_annex.open or v_annex.promised_ms > 0) then
    raise exception using errcode = 'CF011',
      message = format('this is the annex of %s, and no takeover of it is open', v_annex.origin),
      hint = case when v_annex.promised_ms > 0 then 'What was promised to the origin is not over.'
                  else 'The failover that adopts from here opens it.' end;
  end if;
end $$;

-- How far the origin's log has been applied here, by what replication itself remembers; null: not known, or not
-- shown to whoever installed this.
create or replace function cellfleet.applied_position() returns pg_lsn
  language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
begin
  return (select max(o.remote_lsn)
            from pg_show_replication_origin_status() o
            join pg_subscription s on o.external_id = 'pg_' || s.oid
            join pg_database d on d.oid = s.subdbid and d.datname = current_database()
            join cellfleet.standby_stream t on t.name = s.subname collate "C");
exception when insufficient_privilege then
  return null;
end $$;

-- What the agent presents, beside facts(); without the partners, which only a failsafe asks for.
-- `lsn` is what would outlast a crash of this server: what is not written yet nobody may be held to.
create or replace function cellfleet.standby_facts() returns jsonb
  language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select jsonb_build_object(
    'listRevision', (select p.revision from cellfleet.partner_list p),
    'controlGrant', coalesce(s.control_grant, s.lease_grant),
    'refused', s.refused,
    'lsn', case when not pg_is_in_recovery() then pg_current_wal_flush_lsn()::text else '0/0' end,
    'stopped', (select coalesce(jsonb_agg(jsonb_build_object('annex', t.annex, 'lo', t.lo, 'hi', t.hi)
                                          order by t.annex), '[]') from cellfleet.stopped t),
    'keyspaces', case when exists (select from cellfleet.stopped) then (
        select coalesce(jsonb_agg(jsonb_build_object('name', k.name, 'strategy', k.strategy,
                                                     'slotCount', k.slot_count)), '[]')
          from cellfleet.keyspace k) else '[]' end,
    'annex', (select jsonb_build_object('origin', a.origin, 'tokenDigest', a.token_digest, 'promisedMs', a.promised_ms,
                       'promiseNumber', a.promise_number, 'failover', a.failover, 'attempt', a.attempt,
                       'open', a.open, 'withdrawn', a.withdrawn, 'presenter', a.presenter, 'boot', a.boot,
                       'beat', h.beat,
                       'seen', jsonb_build_object('systemIdentifier', a.system_identifier, 'timeline', a.timeline,
                         'boot', a.boot, 'grant', greatest(a.lease_grant, h.lease_grant),
                         'lsn', greatest(a.lsn, '0/0'::pg_lsn + coalesce(h.beat, 0)::numeric,
                                         cellfleet.applied_position())::text))
                from cellfleet.annex_of a
                left join cellfleet.heartbeat h on h.origin = a.origin collate "C"))
    from cellfleet.grant_seen s
$$;

-- 099 has closed what stood then; these came after it.
do $$
declare
  v_agent text := current_setting('cellfleet_install.agent_role');
begin
  revoke all on function cellfleet.beat(text), cellfleet.take_partners(bigint, jsonb, bigint),
    cellfleet.note_refused(), cellfleet.bucket(text, text), cellfleet.is_stopped(text, text),
    cellfleet.write_stopped(), cellfleet.stop_buckets(text, integer, integer),
    cellfleet.resume_buckets(bigint), cellfleet.become_annex(text, text),
    cellfleet.promise(text, bigint, text, integer, timestamptz, text, bigint, pg_lsn, boolean),
    cellfleet.end_promise(bigint), cellfleet.record_takeover(text, integer, boolean, boolean, boolean),
    cellfleet.check_activation(jsonb), cellfleet.applied_position(), cellfleet.standby_facts() from public;
  revoke all on cellfleet.heartbeat, cellfleet.partner_list, cellfleet.stopped, cellfleet.annex_of from public;
  execute format('grant execute on function cellfleet.beat(text),
    cellfleet.take_partners(bigint, jsonb, bigint), cellfleet.note_refused(),
    cellfleet.stop_buckets(text, integer, integer), cellfleet.resume_buckets(bigint),
    cellfleet.become_annex(text, text),
    cellfleet.promise(text, bigint, text, integer, timestamptz, text, bigint, pg_lsn, boolean),
    cellfleet.end_promise(bigint), cellfleet.record_takeover(text, integer, boolean, boolean, boolean),
    cellfleet.standby_facts() to %I', v_agent);
  execute format('grant select on cellfleet.heartbeat, cellfleet.partner_list, cellfleet.stopped,
    cellfleet.annex_of to %I', v_agent);
end $$;
