-- Who may call what. Everything is closed first, then opened role by role; the names of the roles
-- come with the installation.
do $$
declare
  v_app text := current_setting('cellfleet_install.app_role');
  v_owner text := current_setting('cellfleet_install.app_owner_role');
  v_agent text := current_setting('cellfleet_install.agent_role');
  v_reader text := nullif(current_setting('cellfleet_install.reader_role', true), '');
  -- A member of this schema's owner: it needs no grant of its own.
  v_mover text := nullif(current_setting('cellfleet_install.mover_role', true), '');
  v_column text;
begin
  insert into cellfleet.pack_role (purpose, role_name)
  select r.purpose, r.name
    from (values ('app', v_app), ('app_owner', v_owner), ('agent', v_agent), ('reader', v_reader),
                 ('mover', v_mover)) r(purpose, name)
   where r.name is not null
  on conflict (purpose) do update set role_name = excluded.role_name;
  revoke all on all functions in schema cellfleet from public;
  revoke all on all tables in schema cellfleet from public;
  -- Guards of tables that an older pack protected; each opens itself to owners of tables.
  for v_column in select distinct g.key_column from cellfleet.guarded_table g loop
    perform cellfleet.guard_for(v_column);
  end loop;
  execute format('grant usage on schema cellfleet to %I, %I, %I', v_app, v_owner, v_agent);
  execute format('grant select on cellfleet.owned_keys to %I, %I, %I', v_app, v_owner, v_agent);
  execute format(
    'grant execute on function cellfleet.enter(text, bigint), cellfleet.enter_all(text[], bigint[]),
       cellfleet.placement_key(text, text), cellfleet.reader(text, name), cellfleet.visible(text, text),
       cellfleet.next_id(regclass), cellfleet.next_id(text), cellfleet.lease_live() to %I, %I', v_app, v_owner);
  -- Whoever may read or write a guarded table goes through its policy and its ids' default, also a role
  -- that nobody named at the installation: a report must not break because the guard came.
  grant usage on schema cellfleet to public;
  grant select on cellfleet.owned_keys to public;
  grant execute on function cellfleet.reader(text, name), cellfleet.visible(text, text),
    cellfleet.placement_key(text, text), cellfleet.next_id(regclass), cellfleet.next_id(text) to public;
  execute format('grant select on cellfleet.progress, cellfleet.stage, cellfleet.store_version, cellfleet.pack to %I', v_owner);
  execute format(
    'grant execute on function cellfleet.protect_table(text, text, text, text),
       cellfleet.protect_plan(text, text, text, text), cellfleet.check_guardable(text, text, text),
       cellfleet.trigger_plan(text, text, text), cellfleet.policy_plan(regclass, text, text, boolean),
       cellfleet.is_visible_by(regclass, text, text), cellfleet.id_plan(regclass), cellfleet.trigger_state(regclass, text, text, text[]),
       cellfleet.parts_of(regclass), cellfleet.numbered_columns(regclass), cellfleet.note_ids(regclass, text),
       cellfleet.has_range(text), cellfleet.lease_identity(regclass, text), cellfleet.guard_version(),
       cellfleet.unprotect_table(text, text), cellfleet.unprotect_plan(text, text), cellfleet.open_plan(regclass),
       cellfleet.note_max(regclass, text), cellfleet.raise_floor(regclass, bigint),
       cellfleet.leased_sequence(regclass, text), cellfleet.unlease_column(regclass, text),
       cellfleet.install_policy(regclass, text, text), cellfleet.visible_condition(text, text),
       cellfleet.guard_for(text), cellfleet.guard_name(text), cellfleet.register_table(text, text, text, text),
       cellfleet.forget_table(text, text), cellfleet.lease_sequence(regclass, bigint),
       cellfleet.check_commit(), cellfleet.refuse_truncate(), cellfleet.slot(text, integer) to %I', v_owner);
  execute format('grant execute on function cellfleet.set_schema_version(text) to %I', v_owner);
  execute format('grant execute on function cellfleet.record_manifest(jsonb) to %I', v_owner);
  execute format('grant execute on function cellfleet.unclassed_tables() to %I, %I', v_owner, v_agent);
  execute format('grant select on cellfleet.classed_table to %I, %I', v_owner, v_agent);
  execute format('grant select on cellfleet.guarded_table, cellfleet.id_sequence, cellfleet.pack_role to %I', v_owner);
  execute format(
    'grant execute on function cellfleet.apply_ownership(jsonb, bigint, integer),
       cellfleet.set_keyspaces(jsonb, integer), cellfleet.set_lease(bigint, timestamptz, timestamptz, text, boolean),
       cellfleet.expire_lease(bigint), cellfleet.facts(), cellfleet.clock(), cellfleet.lease_live(),
       cellfleet.placement_key(text, text), cellfleet.add_id_range(text, bigint, bigint),
       cellfleet.low_ranges(), cellfleet.held_ranges(), cellfleet.stats(integer), cellfleet.lock_key(text),
       cellfleet.set_stage(text, bigint, integer), cellfleet.purge_rows(text, integer),
       cellfleet.rows_left(text) to %I', v_agent);
  execute format(
    'grant select on cellfleet.ownership, cellfleet.keyspace, cellfleet.lease, cellfleet.progress,
       cellfleet.guarded_table, cellfleet.id_sequence, cellfleet.id_range, cellfleet.pack,
       cellfleet.stage, cellfleet.store_version to %I', v_agent);
  if v_reader is not null then
    execute format('grant usage on schema cellfleet to %I', v_reader);
    execute format('grant select on cellfleet.owned_keys to %I', v_reader);
    execute format('grant execute on function cellfleet.reader(text, name), cellfleet.visible(text, text),
                      cellfleet.placement_key(text, text) to %I', v_reader);
  end if;
end $$;
