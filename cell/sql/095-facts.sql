-- All that an agent presents to the control plane, of one moment.

-- Which server this is. Everybody may ask PostgreSQL for it; where a provider took that away, the
-- installation's own number stands in (a clone then looks like its original, except for its grants).
create or replace function cellfleet.server_identity(out system_identifier text, out timeline integer)
  language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
begin
  begin
    select c.system_identifier::text, k.timeline_id into system_identifier, timeline
      from pg_control_system() c cross join pg_control_checkpoint() k;
  exception when insufficient_privilege then
    select p.identity::text, 1 into system_identifier, timeline from cellfleet.progress p;
  end;
  if not pg_is_in_recovery() then
    timeline := ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::integer;
  end if;
end $$;

create or replace function cellfleet.would_refuse() returns jsonb
  language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select coalesce(jsonb_object_agg(upper(right(c.relname, 5)), v.value order by c.relname)
                    filter (where v.value > 0), '{}')
    from pg_class c cross join lateral (select pg_sequence_last_value(c.oid) as value) v
   where c.relnamespace = 'cellfleet'::regnamespace and c.relkind = 'S'
     and starts_with(c.relname, 'would_refuse_')
$$;

-- `clock` is read here, before the request for a lease is sent: the lease counts from it. On a replica
-- the lease cannot be read (unlogged), so there is none.
drop function if exists cellfleet.facts();
create or replace function cellfleet.facts() returns table (
    cell text, system_identifier text, timeline integer, boot timestamptz, clock timestamptz,
    grant_seen bigint, lease_grant bigint, lease_expires_at timestamptz, lease_live boolean,
    lease_remaining_ms double precision, epoch_max bigint, applied_revision bigint, in_recovery boolean,
    stage text, stage_number bigint, would_refuse jsonb, guarded_tables integer, schema_version text,
    standby jsonb)
  language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_clock timestamptz := cellfleet.clock();
  v_live boolean := false;
  v_grant bigint;
  v_expires_at timestamptz;
  v_leased boolean := false;
begin
  if not pg_is_in_recovery() then
    v_live := cellfleet.lease_live();
    select l.lease_grant, l.expires_at, l.boot = pg_postmaster_start_time()
      into v_grant, v_expires_at, v_leased from cellfleet.lease l;
  end if;
  return query
  select p.cell, i.system_identifier, i.timeline, pg_postmaster_start_time(), v_clock, s.lease_grant,
         v_grant, v_expires_at, v_live,
         case when v_live then extract(epoch from v_expires_at - v_clock)::double precision * 1000 else 0 end,
         p.epoch_max, p.applied_revision, pg_is_in_recovery(), t.stage, p.stage_number, cellfleet.would_refuse(),
         (select count(*)::integer from cellfleet.guarded_table g
            join pg_namespace n on n.nspname = g.schema_name
            join pg_class c on c.relnamespace = n.oid and c.relname = g.table_name),
         (select v.version from cellfleet.store_version v order by v.number desc limit 1),
         cellfleet.standby_facts() || jsonb_build_object('leased', coalesce(v_leased, false),
           'manual', s.manual, 'modeNumber', s.mode_number, 'leaseTimeline', s.lease_timeline)
    from cellfleet.progress p
   cross join cellfleet.stage t
   cross join cellfleet.grant_seen s
   cross join cellfleet.server_identity() i;
end $$;

-- Told by those who run the application's migrations; the same version again changes nothing.
create or replace function cellfleet.set_schema_version(p_version text) returns void
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  if p_version = (select v.version from cellfleet.store_version v order by v.number desc limit 1) then
    return;
  end if;
  insert into cellfleet.store_version (version, actor) values (p_version, session_user);
end $$;
