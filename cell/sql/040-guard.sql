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

-- True, or an error of class CF. Called from guard functions only, as their owner. The common case
-- comes first and in few expressions: each costs a microsecond once per transaction.
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
    return cellfleet.check_entered(v_key, v_epoch);
  end if;
  return cellfleet.check_further(p_keyspace, p_tenant, v_key, v_strategy, v_mode, v_state, v_epoch);
end $$;

-- What check_write did not find in order at first sight. It has locked the tenant's own key.
create or replace function cellfleet.check_further(
    p_keyspace text, p_tenant text, p_key text, p_strategy text, p_mode text, p_state text, p_epoch bigint)
  returns boolean
  language plpgsql volatile as $$
declare
  v_locked text;
begin
  if p_key is null or p_tenant = '' then
    raise exception 'a row''s placement key must not be empty' using errcode = 'CF009';
  end if;
  if p_strategy <> 'directory' then
    p_key := cellfleet.placement_key(p_keyspace, p_tenant);
    v_locked := pg_advisory_xact_lock_shared(cellfleet.lock_key(p_key));
    if p_key is distinct from cellfleet.placement_key(p_keyspace, p_tenant) then
      raise exception 'the placement key of % changed while it was being locked', p_tenant
        using errcode = '40001';
    end if;
    p_state := null;
    select o.state, o.epoch into p_state, p_epoch
      from cellfleet.ownership o where o.key = p_key collate "C";
  end if;
  if current_setting('transaction_isolation') <> 'read committed' then
    p_state := null;
    select o.state, o.epoch into p_state, p_epoch
      from cellfleet.ownership o where o.key = p_key collate "C" for share;
  end if;
  if p_state is distinct from 'active' then
    raise exception 'placement key % is % in this cell', p_key, coalesce(p_state, 'absent')
      using errcode = 'CF001', detail = format('epoch %s', coalesce(p_epoch, 0)),
            hint = 'Resolve the tenant''s cell anew and repeat the transaction there.';
  end if;
  if cellfleet.is_lease_live() is not true then
    raise exception 'this cell holds no valid lease' using errcode = 'CF004',
      hint = 'Resolve the tenant''s cell anew and repeat the transaction there.';
  end if;
  return p_mode = 'row' or cellfleet.check_entered(p_key, p_epoch);
end $$;

-- Strict mode: enter() was called in this transaction, for this key, with the epoch it has.
create or replace function cellfleet.check_entered(p_key text, p_epoch bigint) returns boolean
  language plpgsql stable as $$
declare
  v_entered text := current_setting('cellfleet.entered', true);
begin
  -- What a session was left with from an earlier transaction (SET, set_config(.., false), a pooled
  -- connection) bears another transaction's stamp.
  if v_entered is null or not starts_with(v_entered, cellfleet.transaction_stamp()) then
    raise exception 'cellfleet.enter() was not called in this transaction' using errcode = 'CF003',
      hint = 'select cellfleet.enter(key, epoch) first, with the two values of the request.';
  end if;
  if strpos(v_entered, ' ' || p_key || '=' || p_epoch || ' ') > 0 then
    return true;
  end if;
  if strpos(v_entered, ' ' || p_key || '=') > 0 then
    raise exception 'placement key % has epoch %, not the one that was entered', p_key, p_epoch
      using errcode = 'CF006',
            hint = 'Resolve the tenant''s cell anew and repeat the transaction there.';
  end if;
  raise exception 'the row belongs to %, which was not entered', p_key using errcode = 'CF007';
end $$;

-- The microsecond in which the transaction began: no two messages of one session share it (several
-- transactions in one message do; they are one client's). A transaction id would do too, but it would
-- make every transaction that only reads take one.
create or replace function cellfleet.transaction_stamp() returns text
  language sql stable parallel safe
  begin atomic
    select extract(epoch from transaction_timestamp())::text || ' ';
  end;

-- Says under which key and epoch this transaction runs; several calls add up. What is known to be
-- stale is refused at once, also for transactions that only read, so that they do not just find
-- nothing; that is a courtesy, for the guard looks again at every row and trusts none of this.
create or replace function cellfleet.enter_all(p_keys text[], p_epochs bigint[]) returns void
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_stamp text := cellfleet.transaction_stamp();
  v_entered text := current_setting('cellfleet.entered', true);
  v_pair record;
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
      raise exception 'not a placement key and epoch: % %', v_pair.key, v_pair.epoch
        using errcode = 'CF009';
    elsif v_pair.state is distinct from 'active' then
      raise exception 'placement key % is % in this cell', v_pair.key,
        coalesce(v_pair.state, 'absent') using errcode = 'CF001';
    elsif v_pair.own <> v_pair.epoch then
      raise exception 'placement key % has epoch %, not %', v_pair.key, v_pair.own, v_pair.epoch
        using errcode = 'CF006';
    end if;
    v_entered := v_entered || ' ' || v_pair.key || '=' || v_pair.epoch || ' ';
  end loop;
  if cellfleet.is_lease_live() is not true then
    raise exception 'this cell holds no valid lease' using errcode = 'CF004';
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
  if v_state = 'active' and v_epoch = p_epoch and cellfleet.is_lease_live()
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
begin
  if cellfleet.is_lease_live() is not true then
    raise exception 'the cell''s lease ended before the commit' using errcode = 'CF004',
      hint = 'Resolve the tenant''s cell anew and repeat the transaction there.';
  end if;
  return null;
end $$;

create or replace function cellfleet.refuse_truncate() returns trigger
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  raise exception 'TRUNCATE of % would remove rows of every tenant', tg_relid::regclass
    using errcode = 'CF005', hint = 'DELETE the rows of one tenant.';
end $$;

-- The trigger function of one key column. A record's field can be read by a fixed name only: reading
-- it through to_jsonb(new) would cost a copy of the whole row, large values included.
create or replace function cellfleet.guard_for(p_column text) returns text
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $guard$
declare
  v_name text := 'guard_' || case when p_column ~ '^[a-z0-9_]{1,40}$' then p_column else md5(p_column) end;
begin
  execute replace(replace($template$
    create or replace function cellfleet.NAME() returns trigger
      language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
    declare
      v_ok boolean;
    begin
      if tg_op = 'INSERT' then
        v_ok := cellfleet.check_write(tg_argv[0], new.COLUMN::text);
        return new;
      elsif tg_op = 'DELETE' then
        v_ok := cellfleet.check_write(tg_argv[0], old.COLUMN::text);
        return old;
      elsif new.COLUMN is distinct from old.COLUMN then
        raise exception 'the key column of % must not change', tg_relid::regclass
          using errcode = 'CF002';
      end if;
      v_ok := cellfleet.check_write(tg_argv[0], new.COLUMN::text);
      return new;
    end $$
  $template$, 'NAME', v_name), 'COLUMN', quote_ident(p_column));
  -- Only so that a table's owner may make a trigger of it: nobody can call it by itself.
  execute format('grant execute on function cellfleet.%I() to public', v_name);
  return v_name;
end $guard$;
