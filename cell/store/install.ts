/**
 * Installs the SQL pack (`cell/sql/*.sql`) into one store database of a cell.
 *
 * All or nothing, one installer at a time, as often as one likes. Everything of the pack belongs to
 * the role `cellfleet_owner`, which nobody logs in as; the application's role must own none of it and
 * be no superuser, or the guard could be switched off (corrections A9).
 */
import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import pg from "pg";
import { CellError } from "../../contract/errors.ts";
import type { CellStage } from "../../contract/routing-table.ts";
import type { Queryable } from "./queryable.ts";

/** Grows when a file of the pack changes in a way that an older agent must not undo. */
export const packVersion = 2;
export const packOwnerRole = "cellfleet_owner";

export type PackRoles = {
  /** The application logs in as this role or as a member of it. */
  readonly appRole: string;
  /** Owns the application's tables; runs `protectTables`. */
  readonly appOwnerRole: string;
  readonly agentRole: string;
  /** Logs in for operators' questions: may read guarded tables, and sees what the application sees. */
  readonly readerRole?: string;
};

export type PackOptions = PackRoles & {
  /** Absent in a template. A database that is another cell's is refused. */
  readonly cellId?: string;
  /** Of a database that has no pack yet; one that has keeps its stage. Absent: `enforce`. */
  readonly stage?: CellStage;
};

const folder = new URL("../sql/", import.meta.url);
/** Any constant does: the lock function of the pack is not there yet. */
const installLock = 7305;
const oldestServer = 160_000;

/** All that shapes an installed pack, in text: part of the key of a prepared database. */
export const packContent = (): string => packFiles().join("\n");

/** The SQL of the pack, in the order in which it is run. */
function packFiles(): readonly string[] {
  return readdirSync(folder)
    .filter((name) => /^\d{3}-.*\.sql$/.test(name))
    .toSorted()
    .map((name) => readFileSync(new URL(name, folder), "utf8"));
}

/**
 * `client`: one connection (not a pool) of a superuser, or of a role that may create in the database
 * and is a member of `cellfleet_owner`, when the roles exist. Roles that are missing are made, the
 * two that log in without a password; setting one is the caller's.
 */
export async function installPack(client: Queryable, options: PackOptions): Promise<void> {
  await client.query("begin");
  try {
    await client.query("select pg_advisory_xact_lock($1)", [installLock]);
    await checkServer(client);
    await createRoles(client, options);
    const fresh = !(await isInstalled(client));
    await client.query(`create schema if not exists cellfleet authorization ${packOwnerRole}`);
    await client.query(`set local role ${packOwnerRole}`);
    await refuseNewer(client);
    await client.query("select set_config('search_path', 'pg_catalog, pg_temp', true)");
    await setInstallVariable(client, "app_role", options.appRole);
    await setInstallVariable(client, "app_owner_role", options.appOwnerRole);
    await setInstallVariable(client, "agent_role", options.agentRole);
    await setInstallVariable(client, "reader_role", options.readerRole ?? "");
    await setInstallVariable(client, "stage", fresh ? (options.stage ?? "enforce") : "enforce");
    const files = packFiles();
    for (const file of files) await client.query(file);
    await record(client, files, options.cellId);
    await giveAway(client, options.appOwnerRole);
    await client.query("commit");
  } catch (error) {
    await client.query("rollback");
    throw error;
  }
}

async function checkServer(client: Queryable): Promise<void> {
  const { rows } = await client.query<{ version: number; name: string }>(
    "select current_setting('server_version_num')::integer as version, current_setting('server_version') as name",
  );
  const [server] = rows;
  if (server !== undefined && server.version >= oldestServer) return;
  throw new CellError("CONFIG_INVALID", `PostgreSQL ${server?.name} is older than 16`, {
    nextSteps: ["use PostgreSQL 16 or newer for the stores of a cell"],
  });
}

async function createRoles(client: Queryable, roles: PackRoles): Promise<void> {
  const wanted = [
    { name: packOwnerRole, login: "nologin" },
    { name: roles.appOwnerRole, login: "nologin" },
    { name: roles.appRole, login: "login" },
    { name: roles.agentRole, login: "login" },
    ...(roles.readerRole === undefined ? [] : [{ name: roles.readerRole, login: "login" }]),
  ];
  for (const { name, login } of wanted) {
    const { rows } = await client.query("select from pg_roles where rolname = $1", [name]);
    if (rows.length > 0) continue;
    // Roles are the server's, the lock is the database's: another installer may be as far.
    const text = pg.escapeLiteral(`create role ${pg.escapeIdentifier(name)} ${login}`);
    await client.query(`do $install$ begin
      execute ${text};
    exception when duplicate_object or unique_violation then null;
    end $install$`);
  }
  await client.query(`do $$ begin
    if not pg_has_role(current_user, '${packOwnerRole}', 'SET') then
      execute format('grant ${packOwnerRole} to %I', current_user);
    end if;
  end $$`);
}

async function isInstalled(client: Queryable): Promise<boolean> {
  const { rows } = await client.query("select where to_regclass('cellfleet.pack') is not null");
  return rows.length > 0;
}

async function refuseNewer(client: Queryable): Promise<void> {
  if (!(await isInstalled(client))) return;
  const { rows } = await client.query<{ version: number }>(
    "select coalesce(max(version), 0) as version from cellfleet.pack",
  );
  const installed = rows[0]?.version ?? 0;
  if (installed <= packVersion) return;
  throw new CellError(
    "CONFIG_INVALID",
    `The database has version ${installed} of the SQL pack, this release brings ${packVersion}`,
    { nextSteps: ["run the newer release"] },
  );
}

/**
 * The deletes of a purge run with the rights of the tables' owner, so that the triggers of his tables
 * do. An installer who may not act for him leaves them to the pack's owner, which suffices where
 * tables have no triggers of their own. Never to a superuser: the pack's owner would have his rights.
 */
async function giveAway(client: Queryable, appOwnerRole: string): Promise<void> {
  const { rows } = await client.query(
    `select from pg_roles r where r.rolname = $1 and not r.rolsuper
        and pg_has_role(session_user, r.oid, 'SET')`,
    [appOwnerRole],
  );
  if (rows.length === 0) return;
  const role = pg.escapeIdentifier(appOwnerRole);
  const name = "cellfleet.delete_rows_as_owner(regclass[], text[], bigint)";
  await client.query(`grant create on schema cellfleet to ${role};
    grant execute on function cellfleet.delete_rows(regclass[], text[], bigint) to ${role}`);
  await client.query("set local role none");
  await client.query(`alter function ${name} owner to ${role}`);
  await client.query(`revoke all on function ${name} from public, ${role};
    grant execute on function ${name} to ${packOwnerRole};
    revoke create on schema cellfleet from ${role}`);
}

async function setInstallVariable(client: Queryable, name: string, value: string): Promise<void> {
  await client.query("select set_config($1, $2, true)", [`cellfleet_install.${name}`, value]);
}

async function record(
  client: Queryable,
  files: readonly string[],
  cellId: string | undefined,
): Promise<void> {
  const digest = createHash("sha256").update(files.join("\n")).digest("hex");
  await client.query(
    `insert into cellfleet.pack (version, digest) values ($1, $2)
     on conflict (version) do update set digest = excluded.digest, installed_at = now()
       where pack.digest <> excluded.digest`,
    [packVersion, digest],
  );
  if (cellId === undefined) return;
  const { rows } = await client.query(
    "update cellfleet.progress set cell = $1 where cell is null or cell = $1 returning cell",
    [cellId],
  );
  if (rows.length === 1) return;
  throw new CellError("CONFIG_INVALID", `The database belongs to another cell than ${cellId}`, {
    nextSteps: ["point the cell at its own database"],
  });
}
