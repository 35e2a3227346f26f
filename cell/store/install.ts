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
import { createRoles, type PackRoles, packOwnerRole } from "./pack-roles.ts";
import type { Queryable } from "./queryable.ts";

export type { PackRoles } from "./pack-roles.ts";

/** Grows when a file of the pack changes in a way that an older agent must not undo. */
export const packVersion = 4;

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
const purgeFunction = "cellfleet.delete_rows_as_owner(regclass[], text[], bigint)";

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
 * `client`: one connection (not a pool) of a superuser, or of a role with CREATEROLE that may create
 * in the database. Roles that are missing are made, those that log in without a password; setting one
 * is the caller's. Where the pack is there as it should be, nothing is run.
 */
export async function installPack(client: Queryable, options: PackOptions): Promise<void> {
  await client.query("begin");
  try {
    await client.query("select pg_advisory_xact_lock($1)", [installLock]);
    await checkServer(client);
    // Never to stand in front of a running cell for long: 55P03, and nothing was changed.
    await client.query("set local lock_timeout = '3s'");
    await createRoles(client, options);
    const fresh = !(await isInstalled(client));
    await client.query(`create schema if not exists cellfleet authorization ${packOwnerRole}`);
    await client.query(`set local role ${packOwnerRole}`);
    await refuseNewer(client);
    await client.query("select set_config('search_path', 'pg_catalog, pg_temp', true)");
    const files = packFiles();
    const digest = createHash("sha256").update(files.join("\n")).digest("hex");
    if (fresh || !(await isCurrent(client, digest, options))) {
      await runFiles(client, files, { ...options, stage: fresh ? options.stage : undefined });
      await recordPack(client, digest);
    }
    if (options.cellId !== undefined) await claim(client, options.cellId);
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
        and pg_has_role(session_user, r.oid, 'SET')
        and r.oid <> (select p.proowner from pg_proc p where p.oid = $2::regprocedure)`,
    [appOwnerRole, purgeFunction],
  );
  if (rows.length === 0) return;
  const role = pg.escapeIdentifier(appOwnerRole);
  await client.query(`grant create on schema cellfleet to ${role};
    grant execute on function cellfleet.delete_rows(regclass[], text[], bigint) to ${role}`);
  await client.query("set local role none");
  await client.query(`alter function ${purgeFunction} owner to ${role}`);
  await client.query(`revoke all on function ${purgeFunction} from public, ${role};
    grant execute on function ${purgeFunction} to ${packOwnerRole};
    revoke create on schema cellfleet from ${role}`);
}

/** The same pack with the same roles: then nothing is run, and no lock is taken. */
async function isCurrent(client: Queryable, digest: string, roles: PackRoles): Promise<boolean> {
  const { rows } = await client.query(
    "select from cellfleet.pack where version = $1 and digest = $2",
    [packVersion, digest],
  );
  // An older pack has no list of its roles.
  if (rows.length === 0) return false;
  const { rows: known } = await client.query<{ roles: Record<string, string> }>(
    "select coalesce(jsonb_object_agg(purpose, role_name), '{}') as roles from cellfleet.pack_role",
  );
  const there = known[0]?.roles ?? {};
  return (
    there["app"] === roles.appRole &&
    there["app_owner"] === roles.appOwnerRole &&
    there["agent"] === roles.agentRole &&
    (roles.readerRole === undefined || there["reader"] === roles.readerRole) &&
    (roles.moverRole === undefined || there["mover"] === roles.moverRole)
  );
}

async function runFiles(
  client: Queryable,
  files: readonly string[],
  options: PackRoles & { readonly stage?: CellStage | undefined },
): Promise<void> {
  const variables = {
    app_role: options.appRole,
    app_owner_role: options.appOwnerRole,
    agent_role: options.agentRole,
    reader_role: options.readerRole ?? "",
    mover_role: options.moverRole ?? "",
    stage: options.stage ?? "enforce",
  };
  for (const [name, value] of Object.entries(variables)) {
    await client.query("select set_config($1, $2, true)", [`cellfleet_install.${name}`, value]);
  }
  for (const file of files) await client.query(file);
}

async function recordPack(client: Queryable, digest: string): Promise<void> {
  await client.query(
    `insert into cellfleet.pack (version, digest) values ($1, $2)
     on conflict (version) do update set digest = excluded.digest, installed_at = now()
       where pack.digest <> excluded.digest`,
    [packVersion, digest],
  );
}

async function claim(client: Queryable, cellId: string): Promise<void> {
  const { rows } = await client.query(
    "update cellfleet.progress set cell = $1 where cell is null or cell = $1 returning cell",
    [cellId],
  );
  if (rows.length === 1) return;
  throw new CellError("CONFIG_INVALID", `The database belongs to another cell than ${cellId}`, {
    nextSteps: ["point the cell at its own database"],
  });
}
