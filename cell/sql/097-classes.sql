-- Which tables stand in no class (corrections A20). The manifest, cellfleet.schema.yaml, says of every
-- table what it is; the cell's database remembers what it said, because a table that a later migration
-- adds must be noticed by what runs, not by a person who happens to look.
create table if not exists cellfleet.classed_table (
  schema_name text not null,
  table_name  text not null,
  class       text not null check (class in ('tenant', 'reference', 'cell-local', 'ignore')),
  primary key (schema_name, table_name)
);

-- The manifest as a whole: what it names no more is forgotten. Rows are deleted, never truncated, so
-- that nobody who reads waits. p_tables: [{"schema", "table", "class"}, …].
create or replace function cellfleet.record_manifest(p_tables jsonb) returns void
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  -- Two manifests at once would leave a mixture.
  lock table cellfleet.classed_table in share row exclusive mode;
  delete from cellfleet.classed_table k
   where not exists (select from jsonb_to_recordset(p_tables) as t("schema" text, "table" text)
                      where t."schema" = k.schema_name and t."table" = k.table_name);
  insert into cellfleet.classed_table as k (schema_name, table_name, class)
  select t."schema", t."table", t.class
    from jsonb_to_recordset(p_tables) as t("schema" text, "table" text, class text)
  on conflict (schema_name, table_name) do update set class = excluded.class
    where k.class <> excluded.class;
end $$;

-- Tables that are neither guarded nor classed, and those that are classed `tenant` and not guarded;
-- before a manifest was recorded, all that are not guarded. A partition is reached through its parent,
-- and what an extension brought is the extension's. The list of guarded tables alone proves nothing:
-- a table that was dropped and made anew has its name in it, but no trigger.
--
-- NOT IN of what cannot be null is one hash of the list, whatever the planner knows of it: as a join, a
-- list that nobody has analyzed yet is read once for each table (0.2 s of 2,000 tables).
create or replace function cellfleet.unclassed_tables()
  returns table (schema_name text, table_name text, class text)
  language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select n.nspname::text, c.relname::text,
         (select k.class from cellfleet.classed_table k
           where k.schema_name = n.nspname::text and k.table_name = c.relname::text)
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
   where c.relkind in ('r', 'p') and c.relpersistence <> 't' and not c.relispartition
     and n.nspname not in ('pg_catalog', 'information_schema', 'cellfleet')
     and not starts_with(n.nspname::text, 'pg_toast')
     and (n.nspname::text, c.relname::text) not in (
           select k.schema_name, k.table_name from cellfleet.classed_table k where k.class <> 'tenant')
     and ((n.nspname::text, c.relname::text) not in (
             select g.schema_name, g.table_name from cellfleet.guarded_table g)
          or c.oid not in (
             select t.tgrelid from pg_trigger t
              where t.tgname = 'zz_cellfleet_guard' and t.tgenabled in ('O', 'A')
                and t.tgfoid in (select f.oid from pg_proc f where f.pronamespace = 'cellfleet'::regnamespace)))
     and not exists (select from pg_depend d
                      where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
$$;
