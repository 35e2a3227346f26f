-- Who may call what. Everything is closed first, then opened role by role; the names of the roles
-- come with the installation.
do $$
declare
  v_app text := current_setting('cellfleet_install.app_role');
  v_owner text := current_setting('cellfleet_install.app_owner_role');
  v_agent text := current_setting('cellfleet_install.agent_role');
begin
  revoke all on all functions in schema cellfleet from public;
  revoke all on all tables in schema cellfleet from public;
  execute format('grant usage on schema cellfleet to %I, %I, %I', v_app, v_owner, v_agent);
  execute format('grant select on cellfleet.owned_keys to %I, %I, %I', v_app, v_owner, v_agent);
  execute format(
    'grant execute on function cellfleet.enter(text, bigint), cellfleet.enter_all(text[], bigint[]),
       cellfleet.placement_key(text, text), cellfleet.reader(text, name), cellfleet.visible(text, text),
       cellfleet.next_id(regclass), cellfleet.next_id(text), cellfleet.lease_live() to %I, %I', v_app, v_owner);
  execute format(
    'grant execute on function cellfleet.protect_table(text, text, text, text),
       cellfleet.unprotect_table(text, text), cellfleet.install_guard(text, text, text),
       cellfleet.install_policy(regclass, text, text),
       cellfleet.visible_condition(text, text), cellfleet.lease_ids(regclass),
       cellfleet.identity_to_sequence(regclass, text, regclass), cellfleet.guard_for(text),
       cellfleet.register_table(text, text, text, text), cellfleet.forget_table(text, text),
       cellfleet.lease_sequence(regclass, bigint), cellfleet.check_commit(),
       cellfleet.refuse_truncate() to %I', v_owner);
  execute format('grant select on cellfleet.guarded_table, cellfleet.id_sequence to %I', v_owner);
  execute format(
    'grant execute on function cellfleet.apply_ownership(jsonb, bigint, integer),
       cellfleet.set_keyspaces(jsonb, integer), cellfleet.set_lease(bigint, timestamptz, timestamptz, text),
       cellfleet.expire_lease(bigint), cellfleet.facts(), cellfleet.clock(), cellfleet.lease_live(),
       cellfleet.placement_key(text, text), cellfleet.add_id_range(text, bigint, bigint),
       cellfleet.low_ranges(), cellfleet.stats(integer), cellfleet.lock_key(text) to %I', v_agent);
  execute format(
    'grant select on cellfleet.ownership, cellfleet.keyspace, cellfleet.lease, cellfleet.progress,
       cellfleet.guarded_table, cellfleet.id_sequence, cellfleet.id_range, cellfleet.pack to %I', v_agent);
end $$;
