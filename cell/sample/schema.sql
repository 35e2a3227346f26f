-- The sample application's tables. Idempotent: run by the owner role as often as one likes.
-- Every table is a tenant table: its key column stands in the primary key, so that one tenant can
-- be replicated, verified and purged by itself. The application's own role owns nothing here.

create table if not exists orders (
  id         bigserial   not null,
  tenant_id  text        not null,
  item       text        not null,
  quantity   integer     not null check (quantity between 1 and 1000000),
  status     text        not null default 'pending' check (status in ('pending', 'confirmed')),
  created_at timestamptz not null default now(),
  primary key (tenant_id, id)
);

create table if not exists idempotency (
  tenant_id    text        not null,
  key          text        not null,
  request_hash text        not null,
  -- Null only inside the transaction that is making the order.
  status       integer,
  body         text,
  created_at   timestamptz not null default now(),
  primary key (tenant_id, key)
);
create index if not exists idempotency_age on idempotency (tenant_id, created_at);

-- state: pending (to be tried from next_at on), claimed (being sent; to be tried again from next_at
-- on if its worker died), done, dead (gave up after attempts; last_error says why).
create table if not exists outbox (
  id         bigserial   not null,
  tenant_id  text        not null,
  order_id   bigint      not null,
  kind       text        not null,
  payload    jsonb       not null,
  state      text        not null default 'pending'
             check (state in ('pending', 'claimed', 'done', 'dead')),
  attempts   integer     not null default 0,
  next_at    timestamptz not null default now(),
  last_error text,
  created_at timestamptz not null default now(),
  primary key (tenant_id, id)
);
create index if not exists outbox_due on outbox (next_at, tenant_id) where state in ('pending', 'claimed');
create index if not exists outbox_tenant_state on outbox (tenant_id, state, id);
