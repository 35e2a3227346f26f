-- The guard: PostgreSQL's own check of every row that is written (rule R1, corrections A9 and A10).
--
-- Order matters, and so does that each step is a statement of its own (a new snapshot in READ
-- COMMITTED): resolve the key, take its shared lock, resolve and read again. A fence takes the lock
-- exclusively, so it waits for writers that passed the guard and is seen by all who come later. In
-- REPEATABLE READ and SERIALIZABLE a snapshot hides the fence; there FOR SHARE of the key's row fails
-- with 40001 if the row changed since the snapshot. Lock and read in one statement leak (measured),
-- and so does FOR KEY SHARE.
--
-- Nothing that a session can SET is trusted: search_path is fixed, no backslash and no date text is
-- used, and cellfleet.entered can only narrow what is allowed.
--
-- What is not in order goes to refuse(), which alone knows of stages: what is in order never asks.

-- Is this cell still being adopted, so that refusals are only counted? A transaction that writes and
-- hears yes keeps set_stage('enforce') waiting until it has ended: a table's lock, because an
-- application can hold advisory ones. Lock and read are two statements for the reason above; an old
-- snapshot stumbles over the row (40001). Never asks whether the transaction only reads: a statement
-- can say so of itself while it writes.
create or replace function cellfleet.is_observing() returns boolean
  language plpgsql volatile as $$
declare
  v_stage text;
begin
  lock table cellfleet.stage in row share mode;
  if current_setting('transaction_isolation') = 'read committed' then
    select s.stage into v_stage from cellfleet.stage s;
  else
    select s.stage into v_stage from cellfleet.stage s for share;
  end if;
  return v_stage <> 'enforce';
end $$;

-- A replica and a transaction that only reads cannot count, and need not.
create or replace function cellfleet.count_refusal(p_code text) returns void
  language plpgsql volatile as $$
begin
  if current_setting('transaction_read_only') = 'off' then
    perform nextval(('cellfleet.would_refuse_' || lower(p_code))::regclass);
  end if;
end $$;

-- An error of class CF, or leave to go on: true while the cell is only observed, false while this
-- very transaction purges the key. p_own is the tenant's own key, p_key the one that it resolves to.
-- p_always: in every stage.
drop function if exists cellfleet.refuse(text, text, text, text, text, text);
create or replace function cellfleet.refuse(
    p_code text, p_message text, p_hint text, p_detail text default null,
    p_own text default null, p_key text default null, p_always boolean default false) returns boolean
  language plpgsql volatile as $$
begin
  if p_own is not null or p_code = 'CF004' then
    perform from cellfleet.purging p
      where p.xid = pg_current_xact_id_if_assigned() and (p_own is null or p.key in (p_own, p_key));
    if found then
      return false;
    end if;
  end if;
  if not p_always and cellfleet.is_observing() then
    perform cellfleet.count_refusal(p_code);
    return true;
  elsif p_detail is null then
    raise exception using errcode = p_code, message = p_message, hint = p_hint;
  end if;
  raise exception using errcode = p_code, message = p_message, hint = p_hint, detail = p_detail;
end $$;

-- True, or as refuse(). Called from guard functions only, as their owner. The common case comes
-- first and in few expressions: each costs a microsecond once per transaction.
create or replace function cellfleet.check_write(p_keyspace text, p_tenant text) returns boolean
  language plpgsql volatile as $$
declare
  v_key text := p_keyspace || '/tenant/' || p_tenant;
  v_strategy text;
  v_mode text;
  v_state text;
  v_epoch bigint;
  -- Void. An assignment is an expression to PL/pgSQL, PERFORM a query: 1 us less.
  v_locked text;
begin
  -- The tenant's own key is locked in every strategy: a directory has no other, and elsewhere an
  -- override that is being made for this tenant locks it too.
  v_locked := pg_advisory_xact_lock_shared(cellfleet.lock_key(v_key));
  select k.strategy, k.guard_mode, o.state, o.epoch
    into v_strategy, v_mode, v_state, v_epoch
    from cellfleet.keyspace k
    left join cellfleet.ownership o on o.key = v_key collate "C"
   where k.name = p_keyspace collate "C";
  if v_strategy = 'directory' and v_state = 'active'
     and current_setting('transaction_isolation') = 'read committed'
     and cellfleet.is_lease_live() then
    if v_mode = 'row' then
      return true;
    end if;
    return cellfleet.check_entered(v_key, v_key, v_epoch);
  end if;
  return cellfleet.check_further(p_keyspace, p_tenant, v_key, v_strategy, v_mode, v_state, v_epoch);
end $$;
drop function if exists cellfleet.check_entered(text, bigint);

-- What check_write did not find in order at first sight. It has locked the tenant's own key.
create or replace function cellfleet.check_further(
    p_keyspace text, p_tenant text, p_key text, p_strategy text, p_mode text, p_state text, p_epoch bigint)
  returns boolean
  language plpgsql volatile as $$
declare
  v_own text := p_key;
  v_locked text;
  v_elsewhere text := 'Resolve the tenant''s cell anew and repeat the transaction there.';
begin
  if p_key is null or p_tenant = '' then
    return cellfleet.refuse('CF009', 'a row''s placement key must not be empty',
                            'Give the row the id of its tenant.');
  end if;
  if p_strategy <> 'directory' then
    p_key := cellfleet.placement_key(p_keyspace, p_tenant);
    v_locked := pg_advisory_xact_lock_shared(cellfleet.lock_key(p_key));
    if p_key is distinct from cellfleet.placement_key(p_keyspace, p_tenant)
       and not cellfleet.is_observing() then
      raise exception 'the placement key of % changed while it was being locked', p_tenant
        using errcode = '40001';
    end if;
    p_state := null;
    select o.state, o.epoch into p_state, p_epoch
      from cellfleet.ownership o where o.key = p_key collate "C";
  end if;
  -- In every stage: what was ended here is ended for old snapshots too.
  if current_setting('transaction_isolation') <> 'read committed' then
    p_state := null;
    select o.state, o.epoch into p_state, p_epoch
      from cellfleet.ownership o where o.key = p_key collate "C" for share;
  end if;
  if p_state is distinct from 'active' then
    return cellfleet.refuse('CF001',
      format('placement key %s is %s in this cell', p_key, coalesce(p_state, 'absent')), v_elsewhere,
      -- Observing overlooks what it does not know. A key with a state was ended, or is not begun, on purpose.
      format('epoch %s', coalesce(p_epoch, 0)), v_own, p_key, p_state is not null);
  end if;
  if cellfleet.is_lease_live() is not true then
    if cellfleet.is_lease_live_in_part() is not true then
      return cellfleet.refuse('CF004', 'this cell holds no valid lease', v_elsewhere, null, v_own, p_key);
    elsif cellfleet.is_stopped(p_keyspace, p_tenant) then
      return cellfleet.refuse('CF004', 'the partner that keeps a copy of this key promises nothing any more',
                              v_elsewhere, null, v_own, p_key, true);
    end if;
  end if;
  return p_mode = 'row' or cellfleet.check_entered(v_own, p_key, p_epoch);
end $$;

drop function if exists cellfleet.was_observed(text);

-- Strict mode: enter() was called in this transaction, for this key, with the epoch it has.
create or replace function cellfleet.check_entered(p_own text, p_key text, p_epoch bigint) returns boolean
  language plpgsql stable as $$
declare
  v_entered text := current_setting('cellfleet.entered', true);
begin
  -- What a session was left with from an earlier transaction (SET, set_config(.., false), a pooled
  -- connection) bears another transaction's stamp.
  if v_entered is null or not starts_with(v_entered, cellfleet.transaction_stamp()) then
    return cellfleet.refuse('CF003', 'cellfleet.enter() was not called in this transaction',
      'select cellfleet.enter(key, epoch) first, with the two values of the request.', null, p_own, p_key);
  end if;
  if strpos(v_entered, ' ' || p_key || '=' || p_epoch || ' ') > 0 then
    return true;
  end if;
  if strpos(v_entered, ' ' || p_key || '=') > 0 then
    return cellfleet.refuse('CF006',
      format('placement key %s has epoch %s, not the one that was entered', p_key, p_epoch),
      'Resolve the tenant''s cell anew and repeat the transaction there.', null, p_own, p_key);
  end if;
  return cellfleet.refuse('CF007', format('the row belongs to %s, which was not entered', p_key),
    'Enter every key that the transaction writes for: cellfleet.enter_all(keys, epochs).', null, p_own, p_key);
end $$;

-- The microsecond in which the transaction began: no two messages of one session share it (several
-- transactions in one message do; they are one client's). A transaction id would do too, but it would
-- make every transaction that only reads take one.
create or replace function cellfleet.transaction_stamp() returns text
  language sql stable parallel safe
  begin atomic
    select extract(epoch from transaction_timestamp())::text || ' ';
  end;

-- refuse(), for enter(), which a transaction that only reads may call, also on a replica: there the
-- stage's row cannot be locked, and need not be, for nothing is written by leave of it.
create or replace function cellfleet.refuse_entry(
    p_code text, p_message text, p_hint text, p_always boolean default false) returns boolean
  language plpgsql volatile as $$
begin
  if p_always or current_setting('transaction_read_only') = 'off' then
    return cellfleet.refuse(p_code, p_message, p_hint, null, null, null, p_always);
  end if;
  perform from cellfleet.stage s where s.stage <> 'enforce';
  if found then
    return true;
  end if;
  return cellfleet.refuse(p_code, p_message, p_hint, null, null, null, true);
end $$;

-- Says under which key and epoch this transaction runs; several calls add up. What is known to be
-- stale is refused at once, also for transactions that only read, so that they do not just find
-- nothing; that is a courtesy, for the guard looks again at every row and trusts none of this.
create or replace function cellfleet.enter_all(p_keys text[], p_epochs bigint[]) returns void
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_stamp text := cellfleet.transaction_stamp();
  v_entered text := current_setting('cellfleet.entered', true);
  v_pair record;
  v_passed boolean;
  v_elsewhere text := 'Resolve the tenant''s cell anew and repeat the transaction there.';
begin
  if cardinality(p_keys) is distinct from cardinality(p_epochs)
     or cardinality(p_keys) not between 1 and 1000 then
    raise exception 'enter_all() takes 1 to 1000 keys, each with its epoch' using errcode = '22023';
  end if;
  if v_entered is null or not starts_with(v_entered, v_stamp) then
    v_entered := v_stamp;
  end if;
  for v_pair in
    select e.key, e.epoch, o.state, o.epoch as own
      from unnest(p_keys, p_epochs) e(key, epoch)
      left join cellfleet.ownership o on o.key = e.key collate "C"
  loop
    if v_pair.key is null or v_pair.epoch is null or strpos(v_pair.key, ' ') > 0 then
      v_passed := cellfleet.refuse_entry('CF009',
        format('not a placement key and epoch: %s %s', v_pair.key, v_pair.epoch),
        'enter() takes the two values of the request: key and epoch.');
      continue;
    elsif v_pair.state is distinct from 'active' then
      v_passed := cellfleet.refuse_entry('CF001',
        format('placement key %s is %s in this cell', v_pair.key, coalesce(v_pair.state, 'absent')), v_elsewhere,
        v_pair.state is not null);
    elsif v_pair.own <> v_pair.epoch then
      v_passed := cellfleet.refuse_entry('CF006',
        format('placement key %s has epoch %s, not %s', v_pair.key, v_pair.own, v_pair.epoch), v_elsewhere);
    end if;
    v_entered := v_entered || ' ' || v_pair.key || '=' || v_pair.epoch || ' ';
  end loop;
  if not pg_is_in_recovery() and not cellfleet.lease_live() then
    v_passed := cellfleet.refuse_entry('CF004', 'this cell holds no valid lease', v_elsewhere);
  end if;
  perform set_config('cellfleet.entered', v_entered, true);
end $$;

-- The form for one key. Not an overload: drivers send parameters without types, and then
-- enter($1, $2) would be ambiguous.
create or replace function cellfleet.enter(p_key text, p_epoch bigint) returns void
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_state text;
  v_epoch bigint;
begin
  select o.state, o.epoch into v_state, v_epoch
    from cellfleet.ownership o where o.key = p_key collate "C";
  if v_state = 'active' and v_epoch = p_epoch and not pg_is_in_recovery() and cellfleet.is_lease_live()
     and strpos(coalesce(current_setting('cellfleet.entered', true), ''), cellfleet.transaction_stamp()) <> 1
     and set_config('cellfleet.entered',
                    cellfleet.transaction_stamp() || ' ' || p_key || '=' || p_epoch || ' ', true) <> '' then
    return;
  end if;
  -- A further key, or one to refuse.
  perform cellfleet.enter_all(array[p_key], array[p_epoch]);
end $$;

-- Late commits: a transaction that wrote while the lease was good and stalls before its COMMIT until
-- the lease is over. A deferred constraint trigger looks once more, inside the commit.
-- transaction_timeout was the other candidate: PostgreSQL 16 has none, any session may SET it off, it
-- would have to be as short as the lease's margin for every transaction, and it ends the connection.
-- The key's lock is held until the commit is over, so its state needs no second look. What is left
-- (SET CONSTRAINTS ALL IMMEDIATE and then a stall, a stall inside the commit, PREPARE TRANSACTION where
-- max_prepared_transactions allows it) is never acknowledged: the router looks again when the answer
-- arrives (rule R2).
create or replace function cellfleet.check_commit() returns trigger
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_passed boolean;
begin
  if cellfleet.is_lease_live() is not true
     and (cellfleet.is_lease_live_in_part() is not true
          or cellfleet.is_row_stopped(tg_relid, to_jsonb(coalesce(new, old)))) then
    v_passed := cellfleet.refuse('CF004', 'the cell''s lease ended before the commit',
      'Resolve the tenant''s cell anew and repeat the transaction there.');
  end if;
  return null;
end $$;

-- Only while something is stopped: a copy of the row is dear.
create or replace function cellfleet.is_row_stopped(p_table oid, p_row jsonb) returns boolean
  language plpgsql volatile as $$
declare
  v_key_column text;
  v_keyspace text;
begin
  select g.key_column, g.keyspace into v_key_column, v_keyspace
    from cellfleet.guarded_table g
    join pg_namespace n on n.nspname = g.schema_name
    join pg_class c on c.relnamespace = n.oid and c.relname = g.table_name
   where c.oid in (select p_table union all select r.relid from pg_partition_ancestors(p_table) r);
  return coalesce(cellfleet.is_stopped(v_keyspace, p_row ->> v_key_column), true);
end $$;

create or replace function cellfleet.refuse_truncate() returns trigger
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_passed boolean;
begin
  v_passed := cellfleet.refuse('CF005', format('TRUNCATE of %s would remove rows of every tenant', tg_relid::regclass),
                               'DELETE the rows of one tenant.');
  return null;
end $$;

create or replace function cellfleet.guard_name(p_column text) returns text
  language sql immutable parallel safe
  begin atomic
    select 'guard_' || case when p_column ~ '^[a-z0-9_]{1,40}$' then p_column else md5(p_column) end;
  end;

-- The trigger function of one key column. A record's field can be read by a fixed name only: reading
-- it through to_jsonb(new) would cost a copy of the whole row, large values included. Owners of tables
-- call this, and it runs as the pack's owner: nothing of the name may be read as anything but a name,
-- so the whole body is quoted, with whatever `$$` stands in it.
create or replace function cellfleet.guard_for(p_column text) returns text
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $guard$
declare
  v_name text := cellfleet.guard_name(p_column);
begin
  execute format($create$
    create or replace function cellfleet.%I() returns trigger
      language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as %L
  $create$, v_name, replace($body$
    declare
      v_ok boolean;
    begin
      if tg_op = 'INSERT' then
        v_ok := cellfleet.check_write(tg_argv[0], new.COLUMN::text);
        if v_ok then
          return new;
        end if;
        -- What a trigger of the application's writes about rows that are being purged goes with them.
        return null;
      elsif tg_op = 'DELETE' then
        v_ok := cellfleet.check_write(tg_argv[0], old.COLUMN::text);
        return old;
      elsif new.COLUMN is distinct from old.COLUMN then
        v_ok := cellfleet.refuse('CF002', format('the key column of %s must not change', tg_relid::regclass),
                                 'Insert the row anew for the other tenant, and delete this one.');
      end if;
      v_ok := cellfleet.check_write(tg_argv[0], new.COLUMN::text);
      return new;
    end
  $body$, 'COLUMN', quote_ident(p_column)));
  -- Only so that a table's owner may make a trigger of it: nobody can call it by itself.
  execute format('grant execute on function cellfleet.%I() to public', v_name);
  return v_name;
end $guard$;
