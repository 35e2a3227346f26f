-- What one cell's database knows of ownership, of its lease and of its ids.
--
-- Run by cell/store/install.ts inside one transaction, as the role cellfleet_owner, in the order of
-- the file names, at every start: every statement here may be run again.
--
-- Only SECURITY DEFINER functions of this schema write these tables; no other role holds INSERT,
-- UPDATE or DELETE on any of them (corrections A9: the guard trusts nothing that an app can set).

-- What is installed, newest last; a database that has seen a newer pack refuses an older one.
create table if not exists cellfleet.pack (
  version      integer primary key,
  digest       text not null,
  installed_at timestamptz not null default now()
);

-- Exactly one row. `cell` is null in a template that was not given to a cell yet.
create table if not exists cellfleet.progress (
  one              boolean primary key default true check (one),
  cell             text,
  -- The control plane's revision up to which ownership was applied; never falls.
  applied_revision bigint not null default 0,
  -- The highest epoch that was ever applied here; never falls, also when rows are gone.
  epoch_max        bigint not null default 0
);
insert into cellfleet.progress default values on conflict do nothing;
-- Stands in for the server's own number where a provider hides that (see 095). Asked first, because
-- even ADD COLUMN IF NOT EXISTS would lock readers out.
do $$ begin
  perform from pg_attribute a
    where a.attrelid = 'cellfleet.progress'::regclass and a.attname = 'identity' and not a.attisdropped;
  if not found then
    alter table cellfleet.progress add column identity bigint not null
      default ('x' || left(md5(gen_random_uuid()::text), 15))::bit(60)::bigint;
  end if;
end $$;

-- How far the adoption of this cell has come. `enforce`: what is not this cell's is refused. In the
-- other two it is counted and let pass, except what was ended here on purpose (a key with a state). Exactly one row, and a table of its own: set_stage() locks it
-- against all who write by leave of the stage, and nothing else ever locks it. Only the first
-- installation into a database chooses.
create table if not exists cellfleet.stage (
  one   boolean primary key default true check (one),
  stage text not null check (stage in ('pass-through', 'observe', 'enforce'))
);
insert into cellfleet.stage (stage)
values (coalesce(nullif(current_setting('cellfleet_install.stage', true), ''), 'enforce'))
on conflict do nothing;

-- Which change of stage was made last, by the control plane's count: an older one changes nothing any
-- more, however late it comes. Beside the stage, whose row transactions of the application lock.
do $$ begin
  perform from pg_attribute a
    where a.attrelid = 'cellfleet.progress'::regclass and a.attname = 'stage_number' and not a.attisdropped;
  if not found then
    alter table cellfleet.progress add column stage_number bigint not null default 0;
  end if;
end $$;

-- What `observe` let pass, per SQLSTATE. Sequences: they keep counting through rollbacks, nobody waits
-- for anybody, and a crash may only make them jump ahead (by at most 32).
create sequence if not exists cellfleet.would_refuse_cf001;
create sequence if not exists cellfleet.would_refuse_cf002;
create sequence if not exists cellfleet.would_refuse_cf003;
create sequence if not exists cellfleet.would_refuse_cf004;
create sequence if not exists cellfleet.would_refuse_cf005;
create sequence if not exists cellfleet.would_refuse_cf006;
create sequence if not exists cellfleet.would_refuse_cf007;
create sequence if not exists cellfleet.would_refuse_cf009;
create sequence if not exists cellfleet.would_refuse_cf010;

create table if not exists cellfleet.keyspace (
  name         text collate "C" primary key,
  strategy     text not null check (strategy in ('directory', 'range', 'slots')),
  slot_count   integer check (slot_count between 1 and 16384 and slot_count & (slot_count - 1) = 0),
  guard_mode   text not null check (guard_mode in ('row', 'strict')),
  -- Where ranges begin, of all cells: without them the last range that stands here would seem to
  -- reach to the end of the alphabet, also over ranges that another cell owns.
  range_starts text[] not null default '{}',
  check ((strategy = 'slots') = (slot_count is not null))
);
-- A copy of cellfleet.stage, which set_stage() keeps: who reads this row needs no second table.
-- Asked first, because even ADD COLUMN IF NOT EXISTS would lock every writer out.
do $$ begin
  perform from pg_attribute a
    where a.attrelid = 'cellfleet.keyspace'::regclass and a.attname = 'stage' and not a.attisdropped;
  if not found then
    alter table cellfleet.keyspace add column stage text not null default 'enforce'
      check (stage in ('pass-through', 'observe', 'enforce'));
  end if;
end $$;

-- Text is compared in byte order everywhere, so that PostgreSQL and JavaScript agree.
create table if not exists cellfleet.ownership (
  key        text collate "C" primary key,
  keyspace   text collate "C" not null,
  kind       text not null check (kind in ('tenant', 'slot', 'range')),
  value      text collate "C" not null,
  state      text not null check (state in ('active', 'fenced', 'importing', 'moved', 'dropped')),
  epoch      bigint not null check (epoch >= 1),
  op         text collate "C" not null,
  attempt    integer not null check (attempt >= 0),
  revision   bigint not null,
  -- Grows in commit order (applying is serialised): "what changed since" is one index scan.
  change     bigint not null,
  updated_at timestamptz not null
);
create index if not exists ownership_change on cellfleet.ownership (change);
create index if not exists ownership_range on cellfleet.ownership (keyspace, value) where kind = 'range';
create sequence if not exists cellfleet.change_number;

-- The lease: lost in a crash (unlogged), void after any restart (boot): born fenced. What the guard
-- reads are two sequences, in microseconds since 1970: when the lease ends, and for which postmaster
-- it was granted. Their values stand outside of snapshots: a REPEATABLE READ transaction sees a
-- renewal and, above all, an early end at once; from a table it would see the row as of its first
-- statement. They are also the cheapest thing to read.
create unlogged sequence if not exists cellfleet.lease_until minvalue 0 start 0;
create unlogged sequence if not exists cellfleet.lease_boot minvalue 0 start 0;
-- The same for people and for set_lease(); `lease_grant`, because GRANT is a word of SQL.
create unlogged table if not exists cellfleet.lease (
  one         boolean primary key default true check (one),
  lease_grant bigint not null,
  expires_at  timestamptz not null,
  boot        timestamptz not null,
  holder      text not null
);

-- The highest grant ever stored, durable (corrections A14): a restored clone presents an old one.
create table if not exists cellfleet.grant_seen (
  one         boolean primary key default true check (one),
  lease_grant bigint not null default 0
);
insert into cellfleet.grant_seen default values on conflict do nothing;
-- The highest grant that the control plane gave: in a failsafe the cell's agent gives itself further ones,
-- which no control plane can know. Null: all were the control plane's. `refused`: its last word was no.
do $$ begin
  perform from pg_attribute a
    where a.attrelid = 'cellfleet.grant_seen'::regclass and a.attname = 'refused' and not a.attisdropped;
  if not found then
    alter table cellfleet.grant_seen add column control_grant bigint,
      add column refused boolean not null default false;
  end if;
  -- How the cell's leases end (122-lease-mode.sql), by which change; and the timeline that the control plane
  -- granted to last: what was promoted or restored since is not what it granted to.
  perform from pg_attribute a
    where a.attrelid = 'cellfleet.grant_seen'::regclass and a.attname = 'manual' and not a.attisdropped;
  if not found then
    alter table cellfleet.grant_seen add column manual boolean not null default false,
      add column mode_number bigint not null default 0,
      add column lease_timeline integer;
  end if;
end $$;

-- What protect_table() installed; coverage compares it with the catalog.
create table if not exists cellfleet.guarded_table (
  schema_name text not null,
  table_name  text not null,
  key_column  text not null,
  keyspace    text not null,
  primary key (schema_name, table_name)
);

-- A purge under way: deletes of rows of this key pass the guard in this one transaction. Only
-- purge_rows() writes here.
create table if not exists cellfleet.purging (
  key text collate "C" primary key,
  xid xid8 not null
);

-- What the application's own migrations have come to, told by those who run them.
create table if not exists cellfleet.store_version (
  number     bigint generated always as identity primary key,
  version    text not null check (version <> ''),
  applied_at timestamptz not null default now(),
  actor      text not null
);

-- Roles that the installation named and that tables are opened to when they are protected.
create table if not exists cellfleet.pack_role (
  purpose   text primary key,
  role_name text not null
);
-- Of an earlier pack: what a role is for is the installation's matter.
do $$ begin
  perform from pg_constraint c
    where c.conrelid = 'cellfleet.pack_role'::regclass and c.conname = 'pack_role_purpose_check';
  if found then
    alter table cellfleet.pack_role drop constraint pack_role_purpose_check;
  end if;
end $$;

-- One sequence whose ids are leased. `register` holds the last id of the range in use (see 070).
create table if not exists cellfleet.id_sequence (
  sequence regclass primary key,
  name     text not null unique,
  register regclass not null,
  -- Ids up to here were given before ranges began.
  floor    bigint not null
);
create table if not exists cellfleet.id_range (
  sequence text not null,
  lo       bigint not null,
  hi       bigint not null,
  primary key (sequence, lo),
  check (lo >= 1 and hi >= lo and hi < 9007199254740992)
);
