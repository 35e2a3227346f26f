-- Work that no request waits for, and answers that can be asked for again.

-- The queue, and the outbox: a job is written in the transaction of the change that it follows.
-- state: pending (to be tried from next_at on), claimed (a worker has it; taken over from next_at on
-- if that worker died), done, dead (gave up; last_error says why).
create table jobs (
  id         bigserial   primary key,
  account_id text        not null,
  kind       text        not null,
  order_id   bigint,
  state      text        not null default 'pending'
             check (state in ('pending', 'claimed', 'done', 'dead')),
  attempts   integer     not null default 0,
  next_at    timestamptz not null default now(),
  last_error text,
  created_at timestamptz not null default now()
);
create index jobs_due on jobs (next_at) where state in ('pending', 'claimed');
create index jobs_by_account on jobs (account_id, state, id);

-- What the cron job did: once per account and tick.
create table ticks (
  account_id text        not null,
  tick       bigint      not null,
  done_by    text        not null,
  done_at    timestamptz not null default now(),
  primary key (account_id, tick)
);
create index ticks_by_age on ticks (done_at);

create table idempotency (
  account_id   text        not null,
  key          text        not null,
  request_hash text        not null,
  -- Null only inside the transaction that makes the order.
  status       integer,
  body         text,
  created_at   timestamptz not null default now(),
  primary key (account_id, key)
);
