-- Keys of tier gold: an answer to a write for one of them waits until a partner has the write too. Kept
-- here so that an agent that starts while the control plane is away waits as well.

-- Exactly one row, once a list was told. `digest` tells a reader whether its own copy is the same.
create table if not exists cellfleet.gold_list (
  one             boolean primary key default true check (one),
  keys            jsonb not null,
  on_partner_loss text not null check (on_partner_loss in ('refuse', 'degrade')),
  digest          text not null
);

create or replace function cellfleet.take_gold(p_keys jsonb, p_on_partner_loss text) returns void
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_digest text := md5(p_keys::text || p_on_partner_loss);
begin
  if jsonb_typeof(p_keys) is distinct from 'array' then
    raise exception 'not a list of keys' using errcode = '22023';
  end if;
  insert into cellfleet.gold_list as g (keys, on_partner_loss, digest)
  values (p_keys, p_on_partner_loss, v_digest)
  on conflict (one) do update
    set keys = excluded.keys, on_partner_loss = excluded.on_partner_loss, digest = excluded.digest
    where g.digest <> excluded.digest;
end $$;

-- What answers of this cell have to heed of its standbys; the list of keys only for who knows another one.
create or replace function cellfleet.standby_needs(p_digest text) returns jsonb
  language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select jsonb_build_object(
    'partners', coalesce((select p.partners from cellfleet.partner_list p), '[]'),
    'keyspaces', coalesce((select jsonb_agg(jsonb_build_object(
                    'name', k.name, 'strategy', k.strategy, 'slotCount', k.slot_count))
                  from cellfleet.keyspace k), '[]'),
    'digest', (select g.digest from cellfleet.gold_list g),
    'gold', (select jsonb_build_object('keys', g.keys, 'onPartnerLoss', g.on_partner_loss)
               from cellfleet.gold_list g where g.digest is distinct from p_digest))
$$;

-- 099 has closed what stood then; these came after it.
do $$
declare
  v_agent text := current_setting('cellfleet_install.agent_role');
begin
  revoke all on function cellfleet.take_gold(jsonb, text), cellfleet.standby_needs(text) from public;
  revoke all on cellfleet.gold_list from public;
  execute format('grant execute on function cellfleet.take_gold(jsonb, text),
    cellfleet.standby_needs(text) to %I', v_agent);
end $$;
