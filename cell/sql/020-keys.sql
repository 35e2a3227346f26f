-- Time, lock keys and placement keys: each has one source.

-- The only source of time of the lease. Tests replace it, cell by cell; a running transaction hears of
-- that with its next statement.
create or replace function cellfleet.clock() returns timestamptz
  language sql volatile parallel safe
  begin atomic
    select pg_catalog.clock_timestamp();
  end;

-- The only place that computes an advisory key. Two hashes with different seeds exclude nothing.
create or replace function cellfleet.lock_key(p_name text) returns bigint
  language sql immutable strict parallel safe
  begin atomic
    select pg_catalog.hashtextextended(p_name, 7305);
  end;

-- The expression of contract/placement-key.ts, also accepted in a publication's row filter.
create or replace function cellfleet.slot(p_tenant text, p_slot_count integer) returns integer
  language sql immutable strict parallel safe
  begin atomic
    select (get_byte(decode(md5(p_tenant), 'hex'), 0) * 256
            + get_byte(decode(md5(p_tenant), 'hex'), 1)) & (p_slot_count - 1);
  end;

-- The slot or range that holds a tenant when nothing stands above it; null in a directory, and where
-- the first range is not known.
create or replace function cellfleet.container_key(p_keyspace text, p_tenant text) returns text
  language plpgsql stable parallel safe security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_keyspace cellfleet.keyspace;
  v_start text;
begin
  select * into v_keyspace from cellfleet.keyspace k where k.name = p_keyspace;
  if v_keyspace.strategy = 'slots' then
    return p_keyspace || '/slot/' || cellfleet.slot(p_tenant, v_keyspace.slot_count);
  elsif v_keyspace.strategy = 'range' then
    select max(s.start collate "C") into v_start from (
      select u.start from unnest(v_keyspace.range_starts) u(start)
       where u.start collate "C" <= p_tenant collate "C"
      union all
      (select o.value from cellfleet.ownership o
        where o.keyspace = p_keyspace and o.kind = 'range' and o.state <> 'dropped'
          and o.value <= p_tenant collate "C"
        order by o.value desc limit 1)) s(start);
    return p_keyspace || '/range/' || v_start;
  end if;
  return null;
end $$;

-- The range whose tenants a range starting at p_start would take.
create or replace function cellfleet.range_before(p_keyspace text, p_start text) returns text
  language sql stable set search_path = pg_catalog, pg_temp as $$
  select p_keyspace || '/range/' || max(s.start collate "C") from (
    select u.start from cellfleet.keyspace k, unnest(k.range_starts) u(start)
     where k.name = p_keyspace collate "C"
    union all
    select o.value from cellfleet.ownership o
     where o.keyspace = p_keyspace collate "C" and o.kind = 'range' and o.state <> 'dropped') s(start)
   where s.start collate "C" < p_start collate "C"
$$;

-- Which key a tenant's rows belong to: its own where there is one, else its slot or range. A tenant
-- key that was dropped stands above nothing any more.
create or replace function cellfleet.placement_key(p_keyspace text, p_tenant text) returns text
  language plpgsql stable parallel safe security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_own text := p_keyspace || '/tenant/' || p_tenant;
  v_strategy text;
begin
  select k.strategy into v_strategy from cellfleet.keyspace k where k.name = p_keyspace;
  if v_strategy is null or v_strategy = 'directory' then
    return v_own;
  end if;
  perform from cellfleet.ownership o where o.key = v_own collate "C" and o.state <> 'dropped';
  if found then
    return v_own;
  end if;
  return cellfleet.container_key(p_keyspace, p_tenant);
end $$;
