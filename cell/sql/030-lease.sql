-- The lease: the cell's permission to serve, bounded in time (promise 1, corrections A14, A18).

-- One expression, so that it becomes part of the caller's; callers run as this schema's owner.
-- to_timestamp takes a double, which holds microseconds exactly until the year 2255. Null, and so
-- refused, while no lease was stored since the last crash.
create or replace function cellfleet.is_lease_live() returns boolean
  language sql volatile parallel safe
  begin atomic
    select to_timestamp(pg_sequence_last_value('cellfleet.lease_boot') / 1000000.0::double precision)
             = pg_postmaster_start_time()
       and cellfleet.clock()
             < to_timestamp(pg_sequence_last_value('cellfleet.lease_until') / 1000000.0::double precision);
  end;

-- Live, and some buckets are stopped (120-standby.sql): then the postmaster's time is stored with one
-- microsecond more, so that is_lease_live() says no and only its slow branches ask further. While nothing is
-- stopped, that there are stops costs nothing.
create or replace function cellfleet.is_lease_live_in_part() returns boolean
  language sql volatile parallel safe
  begin atomic
    select to_timestamp((pg_sequence_last_value('cellfleet.lease_boot') - 1) / 1000000.0::double precision)
             = pg_postmaster_start_time()
       and cellfleet.clock()
             < to_timestamp(pg_sequence_last_value('cellfleet.lease_until') / 1000000.0::double precision);
  end;

create or replace function cellfleet.lease_live() returns boolean
  language plpgsql volatile parallel safe security definer set search_path = pg_catalog, pg_temp as $$
begin
  return coalesce(cellfleet.is_lease_live() or cellfleet.is_lease_live_in_part(), false);
end $$;

-- Stores a grant. `set`: it counts. `same`: this grant stood already; its end may have come closer,
-- never later. `other_boot`: granted to a postmaster that is gone. `stale_grant`: the database has
-- seen this grant or a newer one; after a restart only a new grant opens it. `refused`: the control plane's
-- last word was no, so nobody grants himself anything.
-- p_own: the cell's agent gives it to itself, by promises of all partners (failsafe).
drop function if exists cellfleet.set_lease(bigint, timestamptz, timestamptz, text);
create or replace function cellfleet.set_lease(
  p_grant bigint, p_expires_at timestamptz, p_boot timestamptz, p_holder text, p_own boolean default false)
  returns text
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_seen bigint;
  v_refused boolean;
  v_lease cellfleet.lease;
  v_until bigint := floor(extract(epoch from p_expires_at) * 1000000);
begin
  -- The grant must be durable before it is used, whatever this session's default is.
  perform set_config('synchronous_commit', 'on', true);
  select s.lease_grant, s.refused into v_seen, v_refused from cellfleet.grant_seen s for update;
  if p_own and v_refused then
    return 'refused';
  end if;
  if p_boot is distinct from pg_postmaster_start_time() then
    return 'other_boot';
  end if;
  select * into v_lease from cellfleet.lease;
  if p_grant = v_seen and v_lease.boot = p_boot and v_lease.lease_grant = p_grant then
    if p_expires_at < v_lease.expires_at then
      update cellfleet.lease set expires_at = p_expires_at;
      perform setval('cellfleet.lease_until', greatest(v_until, 0));
    end if;
    return 'same';
  end if;
  if p_grant <= v_seen then
    return 'stale_grant';
  end if;
  update cellfleet.grant_seen s set lease_grant = p_grant, refused = false,
    control_grant = case when p_own then coalesce(s.control_grant, s.lease_grant) else p_grant end,
    lease_timeline = case when p_own then s.lease_timeline
                          else (select i.timeline from cellfleet.server_identity() i) end;
  insert into cellfleet.lease as l (lease_grant, expires_at, boot, holder)
       values (p_grant, p_expires_at, p_boot, p_holder)
  on conflict (one) do update set lease_grant = excluded.lease_grant,
    expires_at = excluded.expires_at, boot = excluded.boot, holder = excluded.holder;
  -- Last, because setval is not undone by a rollback; and the end before the postmaster, or for a
  -- moment after a restart the old end would count for the new one.
  perform setval('cellfleet.lease_until', greatest(v_until, 0));
  perform setval('cellfleet.lease_boot', floor(extract(epoch from p_boot) * 1000000)::bigint
                   + case when exists (select from cellfleet.stopped) then 1 else 0 end);
  return 'set';
end $$;

-- Ends the lease now, unless a newer grant than the caller's stands (one agent's monotonic clock
-- must not end what another agent has just renewed). True if no lease of up to that grant is left.
create or replace function cellfleet.expire_lease(p_grant bigint) returns boolean
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  -- The same lock as set_lease, so that a renewal cannot slip between the look and the end.
  perform from cellfleet.grant_seen for update;
  perform from cellfleet.lease l where l.lease_grant > p_grant;
  if found then
    return false;
  end if;
  perform setval('cellfleet.lease_until', 0);
  update cellfleet.lease set expires_at = '-infinity';
  return true;
end $$;
