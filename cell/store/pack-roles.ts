/**
 * The roles that the SQL pack needs, made with no more rights than CREATEROLE (PostgreSQL 16+, also
 * where a provider hands out no superuser): who creates a role may administer it, and lets itself act
 * for those that own something.
 */
import pg from "pg";
import { CellError } from "../../contract/errors.ts";
import { type Queryable, sqlStateOf } from "./queryable.ts";

export const packOwnerRole = "cellfleet_owner";

export type PackRoles = {
  /** The application logs in as this role or as a member of it. */
  readonly appRole: string;
  /** Owns the application's tables; runs `protectTables`. */
  readonly appOwnerRole: string;
  readonly agentRole: string;
  /** Logs in for operators' questions: may read guarded tables, and sees what the application sees. */
  readonly readerRole?: string;
  /**
   * Logs in to move tenants: acts as the owner of the tables and of the pack. Replication, BYPASSRLS,
   * pg_create_subscription and session_replication_role are given by somebody who may (`check --role mover`).
   */
  readonly moverRole?: string;
};

const insufficientPrivilege = "42501";

/** Throws `CONFIG_INVALID` with the statement that somebody with more rights has to run. */
export async function createRoles(client: Queryable, roles: PackRoles): Promise<void> {
  await createRole(client, packOwnerRole, "nologin");
  await actFor(client, packOwnerRole);
  if (await createRole(client, roles.appOwnerRole, "nologin"))
    await actFor(client, roles.appOwnerRole);
  await createRole(client, roles.appRole, "login");
  await createRole(client, roles.agentRole, "login");
  const { readerRole, moverRole } = roles;
  if (moverRole !== undefined) {
    const made = await createRole(client, moverRole, "login");
    for (const role of [packOwnerRole, roles.appOwnerRole])
      await letActFor(client, { member: moverRole, made }, role);
  }
  if (readerRole === undefined || !(await createRole(client, readerRole, "login"))) return;
  const alter = `alter role ${pg.escapeIdentifier(readerRole)} set default_transaction_read_only = on`;
  await allowed(client, alter, alter);
}

/** True if it was missing, and was made here. */
async function createRole(client: Queryable, name: string, login: string): Promise<boolean> {
  const { rows } = await client.query("select from pg_roles where rolname = $1", [name]);
  if (rows.length > 0) return false;
  const create = `create role ${pg.escapeIdentifier(name)} ${login}`;
  // Roles are the server's, the lock is the database's: another installer may be as far.
  const text = `do $install$ begin
    execute ${pg.escapeLiteral(create)};
  exception when duplicate_object or unique_violation then null;
  end $install$`;
  await allowed(client, text, create);
  return true;
}

async function actFor(client: Queryable, role: string): Promise<void> {
  const { rows } = await client.query<{ name: string; may: boolean }>(
    `select current_user as name,
            pg_has_role(current_user, $1, 'SET') and pg_has_role(current_user, $1, 'USAGE') as may`,
    [role],
  );
  if (rows[0]?.may === true) return;
  const grant = `grant ${pg.escapeIdentifier(role)} to ${pg.escapeIdentifier(String(rows[0]?.name))} with inherit true, set true`;
  await allowed(client, grant, grant);
}

/** Rights of the other role by inheritance, and leave to become it: replication applies rows as their owner. */
async function letActFor(
  client: Queryable,
  { member, made }: { readonly member: string; readonly made: boolean },
  role: string,
): Promise<void> {
  const { rows } = await client.query(
    "select where pg_has_role($1, $2, 'SET') and pg_has_role($1, $2, 'USAGE')",
    [member, role],
  );
  if (rows.length > 0) return;
  const name = pg.escapeIdentifier(member);
  const grant = `grant ${pg.escapeIdentifier(role)} to ${name} with inherit true, set true`;
  // Refused, the role that was made here is undone with the rest.
  await allowed(client, grant, made ? `create role ${name} login; ${grant}` : grant);
}

async function allowed(client: Queryable, text: string, meant: string): Promise<void> {
  try {
    await client.query(text);
  } catch (error) {
    if (sqlStateOf(error) !== insufficientPrivilege) throw error;
    throw new CellError(
      "CONFIG_INVALID",
      `The role may not do this, nothing was changed: ${meant}`,
      {
        nextSteps: [`as a superuser, or a role with CREATEROLE and ADMIN on that role: ${meant};`],
        cause: error,
      },
    );
  }
}
