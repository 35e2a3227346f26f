-- An audit trigger that tests install into a cell's database: which transaction wrote which value for which
-- tenant under which epoch. Its rows are part of the transaction they tell of, so a row exists exactly when
-- the write was committed. Production cells do not have it.
--
-- It reads the epoch itself and asks the guard nothing: a write that slipped past a broken guard is logged
-- all the same, with the epoch of a key that is not active, or 0 where the key is unknown here.

create schema if not exists cellfleet_history;

create table if not exists cellfleet_history.commit_log (
  n      bigserial primary key,
  tenant text not null,
  epoch  bigint not null,
  value  text not null,
  txid   xid8 not null default pg_current_xact_id(),
  at     timestamptz not null default clock_timestamp()
);

-- Arguments: keyspace, key column, value column. Runs as its owner, because the application may not write here.
create or replace function cellfleet_history.record() returns trigger
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_row jsonb := to_jsonb(new);
  v_tenant text := v_row ->> tg_argv[1];
begin
  insert into cellfleet_history.commit_log (tenant, epoch, value)
  values (v_tenant,
          coalesce((select o.epoch from cellfleet.ownership o
                     where o.key = cellfleet.placement_key(tg_argv[0], v_tenant) collate "C"), 0),
          v_row ->> tg_argv[2]);
  return null;
end $$;
