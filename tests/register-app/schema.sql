create table if not exists registers (
  tenant_id text not null,
  name text not null,
  value text,
  primary key (tenant_id, name)
);
create table if not exists orders (
  id bigserial primary key,
  tenant_id text not null,
  key text not null,
  item text not null,
  unique (tenant_id, key)
);
