-- Which rows an application sees: only those whose key is active here. During a move and its soak
-- the rows of a tenant stand in two cells, and a job over all tenants must still see each one once.

create or replace view cellfleet.owned_keys as
  select o.key, o.keyspace, o.kind, o.value, o.epoch
    from cellfleet.ownership o
   where o.state = 'active';

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

-- Slots and ranges: the key has to be resolved row by row.
create or replace function cellfleet.visible(p_keyspace text, p_tenant text) returns boolean
  language plpgsql stable parallel safe security definer set search_path = pg_catalog, pg_temp as $$
begin
  return exists (
    select from cellfleet.ownership o
     where o.key = cellfleet.placement_key(p_keyspace, p_tenant) collate "C" and o.state = 'active');
end $$;
