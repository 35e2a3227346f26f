-- Manual leases: for operators who trust power-off more than clocks. While the control plane is silent the
-- cell's agent gives the cell its next lease without anybody's promise, also after a restart of the server;
-- nobody takes the cell's keys over before an operator has said that it is powered off.
--
-- What must always be true: an older word never replaces a newer one; when `timed` stands here, no lease is
-- live that the cell gave itself as a manual one, so what the control plane has recorded bounds it again; a
-- database on another timeline than the control plane granted to gives itself nothing (corrections A14).

-- `set`; `same`; `stale`: a later word stands; `pending`: a lease of the manual mode is live, repeat after
-- the control plane's next grant.
create or replace function cellfleet.take_lease_mode(p_manual boolean, p_number bigint) returns text
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_seen cellfleet.grant_seen;
begin
  if p_manual is null or p_number is null or p_number < 0 then
    raise exception 'not a mode of leases: % %', p_manual, p_number using errcode = '22023';
  end if;
  -- What is acknowledged to the control plane must survive a crash.
  perform set_config('synchronous_commit', 'on', true);
  -- The same lock as set_lease.
  select * into v_seen from cellfleet.grant_seen for update;
  if p_number < v_seen.mode_number then
    return 'stale';
  elsif p_number = v_seen.mode_number then
    return case when v_seen.manual = p_manual then 'same' else 'stale' end;
  elsif v_seen.manual and not p_manual and cellfleet.lease_live()
        and coalesce(v_seen.control_grant, v_seen.lease_grant) < v_seen.lease_grant then
    return 'pending';
  end if;
  update cellfleet.grant_seen set manual = p_manual, mode_number = p_number;
  return 'set';
end $$;

-- As set_lease, by the agent itself. `not_manual`, `other_timeline`: not so.
create or replace function cellfleet.set_manual_lease(
  p_grant bigint, p_expires_at timestamptz, p_boot timestamptz, p_holder text) returns text
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_seen cellfleet.grant_seen;
begin
  -- Held until the lease is stored: the mode cannot change in between.
  select * into v_seen from cellfleet.grant_seen for update;
  if not v_seen.manual then
    return 'not_manual';
  elsif v_seen.lease_timeline is distinct from (select i.timeline from cellfleet.server_identity() i) then
    return 'other_timeline';
  end if;
  return cellfleet.set_lease(p_grant, p_expires_at, p_boot, p_holder, true);
end $$;

-- 099 has closed what stood then; these came after it.
do $$
declare
  v_agent text := current_setting('cellfleet_install.agent_role');
begin
  revoke all on function cellfleet.take_lease_mode(boolean, bigint),
    cellfleet.set_manual_lease(bigint, timestamptz, timestamptz, text) from public;
  execute format('grant execute on function cellfleet.take_lease_mode(boolean, bigint),
    cellfleet.set_manual_lease(bigint, timestamptz, timestamptz, text) to %I', v_agent);
end $$;
