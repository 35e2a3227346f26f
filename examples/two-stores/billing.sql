create table if not exists currencies (code text primary key);
insert into currencies (code) values ('CHF'), ('EUR') on conflict do nothing;

create table if not exists invoices (
  tenant_id text not null,
  ref text not null,
  order_id bigint not null,
  currency text not null default 'CHF' references currencies (code),
  created_at timestamptz not null default now(),
  primary key (tenant_id, ref)
);
