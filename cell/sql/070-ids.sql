-- Ids of different cells never collide: each cell takes them from ranges that were leased to it
-- alone. next_id() stands where nextval() stood, over the same sequence.
--
-- Why no id is given twice. Per sequence there is a register, itself a sequence and therefore outside
-- of transactions and snapshots: the last id of the range in use. next_id reads the register first
-- and takes a number second; a number above what was read is thrown away. To open a range, under a
-- lock, the sequence is set to its first id and then the register to its last. So whoever reads
-- the new register finds the sequence already inside the range; whoever read the old one throws
-- away any number of the new range; and ranges only grow. A rollback undoes none of it. After a
-- crash the write-ahead log holds both settings in that order, before any commit that used them.
-- No id above the register was ever given, except by plain nextval() before the default was changed.
-- The register is 0 until a range was entered since then, and the first one is entered above whatever
-- the sequence has come to.
--
-- A cell that is only observed is alone: with no range left it takes the sequence's next number, one at
-- a time under that same lock, and moves the register along with it.

create or replace function cellfleet.next_id(p_sequence regclass) returns bigint
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_register regclass;
  v_last bigint;
  v_id bigint;
  v_passed boolean;
begin
  select s.register into v_register from cellfleet.id_sequence s where s.sequence = p_sequence;
  if v_register is null then
    v_passed := cellfleet.refuse('CF010', format('the ids of %s are not leased', p_sequence),
                                 'Put the table under the guard: cellfleet.protect_table().');
    return nextval(p_sequence);
  end if;
  loop
    v_last := pg_sequence_last_value(v_register);
    v_id := nextval(p_sequence);
    if v_id <= v_last then
      return v_id;
    end if;
    v_id := cellfleet.open_id_range(p_sequence, v_register, v_last, v_id);
    if v_id is not null then
      return v_id;
    end if;
  end loop;
end $$;

-- The same for a name that is not known when the statement is planned.
create or replace function cellfleet.next_id(p_sequence text) returns bigint
  language plpgsql volatile as $$
begin
  return cellfleet.next_id(p_sequence::regclass);
end $$;

-- For a caller that saw the register at p_seen and drew a number beyond it: opens the next leased
-- range, unless another session did meanwhile. An id, or null: draw again.
drop function if exists cellfleet.open_id_range(regclass, regclass, bigint);
create or replace function cellfleet.open_id_range(
    p_sequence regclass, p_register regclass, p_seen bigint, p_drawn bigint) returns bigint
  language plpgsql volatile as $$
declare
  v_name text := 'cellfleet/id/' || p_sequence::oid;
  v_last bigint;
  v_id bigint := p_drawn;
begin
  -- Of the session, not the transaction: other transactions wait for the switch, not for this one's end.
  perform pg_advisory_lock(cellfleet.lock_key(v_name));
  begin
    v_last := pg_sequence_last_value(p_register);
    -- Only who holds the lock moves the register, so a number drawn now lies in the range that it names.
    if v_last <> p_seen then
      v_id := nextval(p_sequence);
    end if;
    if v_id > v_last then
      v_id := cellfleet.next_id_range(p_sequence, p_register, v_last, v_id);
    end if;
    perform pg_advisory_unlock(cellfleet.lock_key(v_name));
  exception when query_canceled or assert_failure or others then
    perform pg_advisory_unlock(cellfleet.lock_key(v_name));
    raise;
  end;
  return v_id;
end $$;

-- Called under the lock.
create or replace function cellfleet.next_id_range(
    p_sequence regclass, p_register regclass, p_last bigint, p_drawn bigint) returns bigint
  language plpgsql volatile as $$
declare
  v_range cellfleet.id_range;
  v_floor bigint := 0;
  v_passed boolean;
begin
  if p_last = 0 then
    select s.floor into v_floor from cellfleet.id_sequence s where s.sequence = p_sequence;
  end if;
  select r.* into v_range from cellfleet.id_sequence s
    join cellfleet.id_range r on r.sequence = s.name
   where s.sequence = p_sequence and r.lo > p_last
     and (p_last > 0 or r.hi > greatest(v_floor, pg_sequence_last_value(p_sequence)))
   order by r.lo limit 1;
  if v_range.lo is null then
    v_passed := cellfleet.refuse('CF010', format('no leased id range is left for %s', p_sequence),
      'The cell''s agent leases ranges ahead; repeat the transaction when it has.');
    perform setval(p_register, p_drawn, true);
    return p_drawn;
  end if;
  perform setval(p_sequence,
    case when p_last > 0 then v_range.lo
         else greatest(v_range.lo, v_floor + 1, pg_sequence_last_value(p_sequence) + 1) end, false);
  perform setval(p_register, v_range.hi, true);
  return case when p_last = 0 and p_drawn > v_floor and p_drawn between v_range.lo and v_range.hi then p_drawn end;
end $$;

-- Takes a leased range: `added`, `same`, or `refused`, when it does not lie above all ids and ranges
-- that stand here or the sequence's type cannot hold it.
create or replace function cellfleet.add_id_range(p_sequence text, p_lo bigint, p_hi bigint) returns text
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_sequence cellfleet.id_sequence;
begin
  perform set_config('synchronous_commit', 'on', true);
  select * into v_sequence from cellfleet.id_sequence s where s.name = p_sequence for update;
  perform from cellfleet.id_range r where r.sequence = p_sequence and r.lo = p_lo and r.hi = p_hi;
  if found then
    return 'same';
  end if;
  if v_sequence.name is null or p_hi < p_lo or p_hi >= 9007199254740992
     or p_hi > (select q.seqmax from pg_sequence q where q.seqrelid = v_sequence.sequence)
     or p_lo <= (select greatest(v_sequence.floor, pg_sequence_last_value(v_sequence.register), max(r.hi))
                   from cellfleet.id_range r where r.sequence = p_sequence)
  then
    return 'refused';
  end if;
  insert into cellfleet.id_range (sequence, lo, hi) values (p_sequence, p_lo, p_hi);
  -- Ranges behind the one in use are history; keep what proves the floor, which is the last one.
  delete from cellfleet.id_range r
   where r.sequence = p_sequence and r.hi < pg_sequence_last_value(v_sequence.register);
  return 'added';
end $$;

-- Sequences without an untouched range in stock; a new range must begin above `floor`.
create or replace function cellfleet.low_ranges() returns table (sequence text, floor bigint)
  language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select s.name, greatest(s.floor, pg_sequence_last_value(s.register),
                          (select max(r.hi) from cellfleet.id_range r where r.sequence = s.name))
    from cellfleet.id_sequence s
   where not exists (select from cellfleet.id_range r
                      where r.sequence = s.name and r.lo > pg_sequence_last_value(s.register))
   order by s.name
$$;

-- The highest id that this cell has, or may give, per sequence.
create or replace function cellfleet.held_ranges() returns table (sequence text, max bigint)
  language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select s.name, greatest(s.floor, pg_sequence_last_value(s.register),
                          (select max(r.hi) from cellfleet.id_range r where r.sequence = s.name))
    from cellfleet.id_sequence s
   order by s.name
$$;

-- Called by protect_table, whose caller has let this schema's owner use the sequence.
create or replace function cellfleet.lease_sequence(p_sequence regclass, p_floor bigint) returns void
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_name text;
  v_register text;
  v_known cellfleet.id_sequence;
begin
  select format('%I.%I', n.nspname, c.relname) into v_name
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
   where c.oid = p_sequence and c.relkind = 'S';
  v_register := format('cellfleet.%I', 'id_' || left(md5(v_name), 16));
  -- Also what was dropped and made anew under the same name: it starts where the old one had come to.
  select * into v_known from cellfleet.id_sequence s where s.name = v_name or s.sequence = p_sequence
   order by s.sequence = p_sequence desc limit 1;
  if v_known.name is null then
    execute format('create sequence if not exists %s minvalue 0 start 0', v_register);
    perform setval(v_register::regclass, 0, true);
    insert into cellfleet.id_sequence (sequence, name, register, floor)
    values (p_sequence, v_name, v_register::regclass, p_floor);
  elsif v_known.sequence <> p_sequence then
    update cellfleet.id_sequence s set sequence = p_sequence, floor = greatest(s.floor, p_floor)
     where s.name = v_name;
  elsif p_floor > v_known.floor then
    -- Plain nextval() may have gone past the range in use meanwhile: it is entered anew, from there.
    perform pg_advisory_xact_lock(cellfleet.lock_key('cellfleet/id/' || p_sequence::oid));
    update cellfleet.id_sequence s set floor = p_floor where s.name = v_name;
    perform setval(v_known.register, 0, true);
  end if;
end $$;
