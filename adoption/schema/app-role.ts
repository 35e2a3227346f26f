/**
 * The role that the application logs in as. It is a fact of the database and is never made up or
 * guessed: rights are given to it, and whoever reads the tables beside it is filtered by the guard, too.
 */
import type { Manifest } from "../../cell/store/manifest.ts";
import type { PackRoles } from "../../cell/store/pack-roles.ts";
import { packOwnerRole } from "../../cell/store/pack-roles.ts";
import type { Queryable } from "../../cell/store/queryable.ts";
import { CellError } from "../../contract/errors.ts";

type Reader = {
  readonly role: string;
  readonly tables: readonly string[];
  readonly owner: boolean;
};

/** Who has rights on the tables, by whatever way; whom row security does not filter is left out. */
async function readReaders(
  client: Queryable,
  manifest: Manifest,
  except: readonly string[],
): Promise<readonly Reader[]> {
  const tables = manifest.tables.filter((table) => table.class === "tenant");
  const { rows } = await client.query<Reader>(
    `select r.rolname as role, jsonb_agg(n.nspname || '.' || c.relname order by n.nspname, c.relname) as tables,
            bool_or(pg_has_role(r.oid, c.relowner, 'USAGE')) as owner
       from jsonb_to_recordset($1::jsonb) w(schema text, "table" text)
       join pg_namespace n on n.nspname = w.schema
       join pg_class c on c.relnamespace = n.oid and c.relname = w.table and c.relkind in ('r', 'p')
      cross join pg_roles r
      where not r.rolsuper and not r.rolbypassrls and r.rolname !~ '^pg_'
        and (has_any_column_privilege(r.oid, c.oid, 'SELECT, INSERT, UPDATE')
             or has_table_privilege(r.oid, c.oid, 'DELETE'))
        and not exists (select from unnest($2::text[]) e(name) join pg_roles x on x.rolname = e.name
                         where pg_has_role(r.oid, x.oid, 'USAGE'))
      group by r.rolname order by bool_or(pg_has_role(r.oid, c.relowner, 'USAGE')), r.rolname`,
    [JSON.stringify(tables.map(({ schema, table }) => ({ schema, table }))), except],
  );
  return rows;
}

/** Throws REQUEST_INVALID, with those that it could be: a role made from a typo would serve nobody. */
export async function requireAppRole(
  client: Queryable,
  manifest: Manifest,
  appRole: string | undefined,
): Promise<string> {
  if (appRole !== undefined) {
    const { rows } = await client.query("select from pg_roles where rolname = $1", [appRole]);
    if (rows.length > 0) return appRole;
  }
  const readers = await readReaders(client, manifest, [packOwnerRole]);
  throw new CellError(
    "REQUEST_INVALID",
    appRole === undefined
      ? "--app-role is missing: the role that the application logs in as; nothing was changed"
      : `--app-role ${appRole}: this database server has no such role; nothing was changed`,
    {
      nextSteps:
        readers.length === 0
          ? ["create the application's role and grant it its tables, then name it: --app-role ROLE"]
          : readers.map(
              ({ role, tables, owner }) =>
                `--app-role ${role}   (${owner ? "owns" : "has rights on"} ${listed(tables)})`,
            ),
    },
  );
}

/** One sentence for each other role that the guard will filter, though nobody named it. */
export async function otherReaders(
  client: Queryable,
  manifest: Manifest,
  roles: PackRoles,
): Promise<readonly string[]> {
  const { appRole, appOwnerRole, agentRole, readerRole = agentRole, moverRole = agentRole } = roles;
  const named = [appRole, appOwnerRole, agentRole, readerRole, moverRole, packOwnerRole];
  const readers = await readReaders(client, manifest, named);
  return readers
    .filter(({ owner }) => !owner)
    .map(
      ({ role, tables }) =>
        `${role} also has rights on ${listed(tables)}: it is filtered as the application is`,
    );
}

const listedMax = 3;
const listed = (tables: readonly string[]): string =>
  tables.length <= listedMax
    ? tables.join(", ")
    : `${tables.slice(0, listedMax).join(", ")} and ${tables.length - listedMax} more`;
