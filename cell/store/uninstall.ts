/**
 * Takes the SQL pack out of a database: guard, visibility and leased ids off every table, then the
 * schema `cellfleet`. Rows, ids and roles stay (roles are the server's, other databases may need them).
 */
import { CellError } from "../../contract/errors.ts";
import { packOwnerRole } from "./pack-roles.ts";
import { unprotectSteps } from "./protect.ts";
import type { Queryable } from "./queryable.ts";

/** Objects outside of the pack that lean on it, as PostgreSQL names them; none: the schema can go. */
export async function readDependents(client: Queryable): Promise<string[]> {
  const { rows } = await client.query<{ name: string }>(
    `with ours (classid, objid) as (
       select 'pg_class'::regclass::oid, c.oid from pg_class c where c.relnamespace = to_regnamespace('cellfleet')
       union all
       select 'pg_proc'::regclass::oid, p.oid from pg_proc p where p.pronamespace = to_regnamespace('cellfleet')
       union all
       select 'pg_type'::regclass::oid, t.oid from pg_type t where t.typnamespace = to_regnamespace('cellfleet'))
     select distinct i.type || ' ' || i.identity as name
       from pg_depend d join ours o on o.classid = d.refclassid and o.objid = d.refobjid
      cross join pg_identify_object(d.classid, d.objid, d.objsubid) i
      where d.deptype in ('n', 'a')
        and not exists (select from ours n where n.classid = d.classid and n.objid = d.objid)
        and coalesce(i.schema, '') <> 'cellfleet' and i.identity !~ '(^| (on|for) |^for )cellfleet\\.'
      order by 1`,
  );
  return rows.map((row) => row.name);
}

/** What `unprotectSteps` takes off. */
const protectParts = /^(policy cellfleet_|trigger zz_cellfleet_|default value )/;

const stillUsed = (dependents: readonly string[], state: string): CellError =>
  new CellError(
    "SAFETY_RULE",
    `These use the schema cellfleet: ${dependents.join(", ")}; ${state}`,
    {
      nextSteps: ["drop or change them, then repeat"],
      details: { dependents },
    },
  );

/**
 * `client`: one connection of a superuser, or of a role that may act for the tables' owners and for
 * `cellfleet_owner`. Tables in use are better unprotected step by step first (`unprotectSteps`); what
 * is left is done here. Throws `SAFETY_RULE` if something of the application leans on the pack.
 */
export async function uninstallPack(client: Queryable): Promise<void> {
  const foreign = (await readDependents(client)).filter((name) => !protectParts.test(name));
  if (foreign.length > 0) throw stillUsed(foreign, "nothing was changed");
  const { rows } = await client.query<{ schema: string; table: string }>(
    `select g.schema_name as schema, g.table_name as table from cellfleet.guarded_table g
      where to_regclass(format('%I.%I', g.schema_name, g.table_name)) is not null`,
  );
  for (const { schema, table } of rows) {
    for (const step of await unprotectSteps(client, schema, table)) await client.query(step.sql);
  }
  await client.query("begin");
  try {
    const dependents = await readDependents(client);
    if (dependents.length > 0) throw stillUsed(dependents, "no table is guarded any more");
    await client.query(`set local role ${packOwnerRole}`);
    await client.query("drop schema cellfleet cascade");
    await client.query("commit");
  } catch (error) {
    await client.query("rollback");
    throw error;
  }
}
