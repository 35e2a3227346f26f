-- What the shop sells, to whom. One account is one customer company; its rows carry account_id.

create table accounts (
  id         text        primary key,
  name       text        not null default '',
  created_at timestamptz not null default now()
);

create table currencies (
  code   text    primary key,
  digits integer not null
);
insert into currencies values ('EUR', 2), ('JPY', 0), ('USD', 2);

create table products (
  id         bigserial   primary key,
  account_id text        not null references accounts (id),
  sku        text        not null,
  price      bigint      not null default 0,
  currency   text        not null default 'EUR' references currencies (code),
  unique (account_id, sku)
);

create table orders (
  id         bigserial   primary key,
  account_id text        not null references accounts (id),
  status     text        not null default 'pending' check (status in ('pending', 'confirmed')),
  -- How often the queue's effect was applied: must never exceed one.
  confirmed  integer     not null default 0,
  created_at timestamptz not null default now()
);
create index orders_by_account on orders (account_id, id);

create table order_lines (
  id         bigserial   primary key,
  account_id text        not null,
  order_id   bigint      not null references orders (id),
  item       text        not null,
  quantity   integer     not null check (quantity between 1 and 1000000)
);
create index order_lines_by_order on order_lines (order_id);
