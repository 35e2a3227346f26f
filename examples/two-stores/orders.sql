-- A key as most applications have it: plain numbers, the tenant beside them.
create table if not exists orders (
  id bigserial primary key,
  tenant_id text not null,
  ref text not null,
  item text not null,
  created_at timestamptz not null default now(),
  unique (tenant_id, ref)
);
