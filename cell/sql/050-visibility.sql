-- Which rows an application sees: only those whose key is active here. During a move and its soak
-- the rows of a tenant stand in two cells, and a job over all tenants must still see each one once.

create or replace view cellfleet.owned_keys as
  select o.key, o.keyspace, o.kind, o.value, o.epoch
    from cellfleet.ownership o
   where o.state = 'active';

-- Tenants that stand above their slot or range, here or elsewhere.
create or replace view cellfleet.override_keys as
  select o.key
    from cellfleet.ownership o
   where o.kind = 'tenant' and o.state <> 'dropped';

-- Asked once per query (an InitPlan of the policy): how the keyspace maps tenants to keys, or CF004.
-- `all` is for what runs as the pack's owner: counting rows, and later copying them.
create or replace function cellfleet.reader(p_keyspace text, p_user name) returns text
  language plpgsql stable parallel safe security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_strategy text;
begin
  if p_user = 'cellfleet_owner' then
    return 'all';
  end if;
  if not cellfleet.lease_live() then
    raise exception 'this cell holds no valid lease' using errcode = 'CF004',
      hint = 'Resolve the tenant''s cell anew and read there.';
  end if;
  select k.strategy into v_strategy from cellfleet.keyspace k where k.name = p_keyspace;
  return coalesce(v_strategy, 'none');
end $$;

create or replace function cellfleet.slot_count(p_keyspace text) returns integer
  language sql stable parallel safe security definer set search_path = pg_catalog, pg_temp as $$
  select k.slot_count from cellfleet.keyspace k where k.name = p_keyspace collate "C"
$$;

-- Ranges: the key has to be resolved row by row, at some 8 us each.
create or replace function cellfleet.visible(p_keyspace text, p_tenant text) returns boolean
  language plpgsql stable parallel safe security definer set search_path = pg_catalog, pg_temp as $$
begin
  return exists (
    select from cellfleet.ownership o
     where o.key = cellfleet.placement_key(p_keyspace, p_tenant) collate "C" and o.state = 'active');
end $$;

-- The condition on a row, in text. EXISTS, because the planner turns it into index lookups for few
-- rows and into one hash table for many: measured with 1,000 keys and 100,000 rows, a tenant's 100
-- rows cost 0.2 ms more and a full scan 0.15 us per row, where a function per row cost 0.8 ms and 9 us.
-- IN (select ..) is as quick on a full scan, but builds its table of all keys for one row too.
-- Indexes on the key column go on being used: text and uuid equality are leakproof.
create or replace function cellfleet.visible_condition(p_column text, p_keyspace text) returns text
  language sql immutable parallel safe
  begin atomic
    select format($condition$
      case (select cellfleet.reader(%1$L, current_user))
        when 'all' then true
        when 'directory' then exists (
          select from cellfleet.owned_keys o where o.key = (%2$L || %4$s::text) collate "C")
        when 'slots' then
          case when exists (
                 select from cellfleet.override_keys o where o.key = (%2$L || %4$s::text) collate "C")
               then exists (
                 select from cellfleet.owned_keys o where o.key = (%2$L || %4$s::text) collate "C")
               else exists (
                 select from cellfleet.owned_keys o
                  where o.key = (%3$L || cellfleet.slot(%4$s::text, (select cellfleet.slot_count(%1$L))))
                                collate "C") end
        when 'range' then cellfleet.visible(%1$L, %4$s::text)
        else false
      end $condition$,
      p_keyspace, p_keyspace || '/tenant/', p_keyspace || '/slot/', p_column);
  end;
