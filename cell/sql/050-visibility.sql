-- Which rows an application sees: only those whose key is active here. During a move and its soak
-- the rows of a tenant stand in two cells, and a job over all tenants must still see each one once.

-- Not replaced where it stands: that would wait for every query under way, and all others for it.
do $$ begin
  if to_regclass('cellfleet.owned_keys') is null then
    create view cellfleet.owned_keys as
      select o.key, o.keyspace, o.kind, o.value, o.epoch
        from cellfleet.ownership o
       where o.state = 'active';
  end if;
end $$;

-- Asked once per query (an InitPlan of the policy): how the keyspace maps tenants to keys, or CF004.
-- `all` is for what runs as the pack's owner (counting rows, purging them) and for a cell that is only
-- observed; nothing is counted here, for a query that runs in parallel cannot. On a replica the lease
-- cannot be read: the ownership that is replicated decides, and the agent's gate looks at the lease.
create or replace function cellfleet.reader(p_keyspace text, p_user name) returns text
  language plpgsql stable parallel safe security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_strategy text;
begin
  if p_user = 'cellfleet_owner' then
    return 'all';
  end if;
  select case k.stage when 'enforce' then k.strategy else 'all' end into v_strategy
    from cellfleet.keyspace k where k.name = p_keyspace collate "C";
  if v_strategy is null and (select s.stage <> 'enforce' from cellfleet.stage s) then
    return 'all';
  end if;
  if v_strategy is distinct from 'all' and not pg_is_in_recovery() and cellfleet.is_lease_live() is not true then
    if cellfleet.is_lease_live_in_part() then
      -- Some buckets are stopped: visible() looks row by row.
      return case when v_strategy is null then 'none' else 'stopped' end;
    end if;
    raise exception 'this cell holds no valid lease' using errcode = 'CF004',
      hint = 'Resolve the tenant''s cell anew and read there.';
  end if;
  return coalesce(v_strategy, 'none');
end $$;

-- Slots and ranges, and every keyspace while buckets are stopped: the key has to be resolved row by row, at
-- some 10 us each.
create or replace function cellfleet.visible(p_keyspace text, p_tenant text) returns boolean
  language plpgsql stable parallel safe security definer set search_path = pg_catalog, pg_temp as $$
begin
  return exists (
    select from cellfleet.ownership o
     where o.key = cellfleet.placement_key(p_keyspace, p_tenant) collate "C" and o.state = 'active')
    and (pg_is_in_recovery() or cellfleet.is_lease_live() is true
         or not cellfleet.is_stopped(p_keyspace, p_tenant));
end $$;

-- The condition on a row, in text. EXISTS, because the planner turns it into index lookups for few
-- rows and into one hash table for many. Measured with 1,000 keys and 100,000 rows, in microseconds
-- of processor time, without a policy / EXISTS / a function per row / a scalar subquery: one row by
-- key, planned anew 25 / 85 / 48 / 61; the same prepared 10 / 24 / 27 / 22; a tenant's 100 rows
-- 39 / 180 / 404 / 155; of a full scan, per row, 0.04 / 0.17 / 3.6 / 0.98. IN (select ..) builds a table
-- of all keys for one row too. To write slots out here as well would cost each query planned anew
-- 130 more.
-- Indexes on the key column go on being used: text and uuid equality are leakproof. PostgreSQL looks at
-- the condition only when it has a row in hand: without a lease, a query that meets no row at all
-- says nothing about the lease, and hides nothing either.
create or replace function cellfleet.visible_condition(p_column text, p_keyspace text) returns text
  language sql immutable parallel safe
  begin atomic
    select format($condition$
      case (select cellfleet.reader(%1$L, current_user))
        when 'all' then true
        when 'directory' then exists (
          select from cellfleet.owned_keys o where o.key = (%2$L || %3$s::text) collate "C")
        when 'none' then false
        else cellfleet.visible(%1$L, %3$s::text)
      end $condition$,
      p_keyspace, p_keyspace || '/tenant/', p_column);
  end;
