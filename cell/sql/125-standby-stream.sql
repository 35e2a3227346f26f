-- What an annex's database knows of the stream that fills it, and when a heartbeat of its origin was
-- applied. In a cell's own database both tables stay empty.

-- One line per stream that was ever made here; it goes only with the database, or when a standby is
-- taken down. `severing` and `severed` are final: no subscription is made under this name again, so a
-- keeper that was left behind cannot join what was cut (rule R4). `remote_lsn`: all that the origin
-- committed before it is applied here.
create table if not exists cellfleet.standby_stream (
  name             text collate "C" primary key,
  state            text not null check (state in ('kept', 'severing', 'severed')),
  -- Of the subscription: names of slots that the copy of a table leaves at the origin begin with it.
  subscription     oid,
  remote_lsn       pg_lsn,
  heartbeat_age_ms double precision,
  changed_at       timestamptz not null default clock_timestamp()
);

-- Heartbeats by this side's clock. `lead` is what the two clocks differ by, and the shortest way: the least
-- that arrival was behind `at`. It follows slowly when it should grow, as after a step of the origin's clock.
create table if not exists cellfleet.heartbeat_seen (
  origin  text collate "C" primary key,
  beat    bigint not null,
  at      timestamptz not null,
  seen_at timestamptz not null,
  lead    interval not null
);

create or replace function cellfleet.see_heartbeat() returns trigger
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_now timestamptz := clock_timestamp();
begin
  insert into cellfleet.heartbeat_seen as s (origin, beat, at, seen_at, lead)
  values (new.origin, new.beat, new.at, v_now, v_now - new.at)
  on conflict (origin) do update
    set beat = excluded.beat, at = excluded.at, seen_at = excluded.seen_at,
        lead = least(excluded.lead, s.lead + (excluded.seen_at - s.seen_at) * 0.001);
  return null;
end $$;
revoke all on function cellfleet.see_heartbeat() from public;

-- Only what replication applies fires it: the origin writes its own row without.
drop trigger if exists zz_cellfleet_seen on cellfleet.heartbeat;
create trigger zz_cellfleet_seen after insert or update on cellfleet.heartbeat
  for each row execute function cellfleet.see_heartbeat();
alter table cellfleet.heartbeat enable replica trigger zz_cellfleet_seen;

-- Age of the newest heartbeat of this origin that was applied, in milliseconds; null: none was.
create or replace function cellfleet.heartbeat_age_ms(p_origin text) returns double precision
  language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
  select greatest(0, extract(epoch from clock_timestamp() - s.at - s.lead) * 1000)::double precision
    from cellfleet.heartbeat_seen s where s.origin = p_origin collate "C"
$$;

do $$
declare
  v_agent text := current_setting('cellfleet_install.agent_role');
begin
  revoke all on function cellfleet.heartbeat_age_ms(text) from public;
  execute format('grant execute on function cellfleet.heartbeat_age_ms(text) to %I', v_agent);
  execute format('grant select on cellfleet.standby_stream, cellfleet.heartbeat_seen to %I', v_agent);
end $$;
