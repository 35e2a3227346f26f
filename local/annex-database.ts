/**
 * The databases of an annex: one per store of the application, beside those of the cell that hosts it,
 * in the same server, made by the same migrations and under the same guard.
 *
 * The roles belong to the server, so their passwords are the host's; the ownership and the lease that
 * decide who may write are the annex's own, as they lie in its databases.
 */
import { createHash } from "node:crypto";
import pg from "pg";
import type { CellId } from "../contract/ids.ts";
import type { Random } from "../runtime/random.ts";
import type { LocalApplication, LocalStore } from "./application.ts";
import { type CellLogins, cellTemplate, withClient, writeLogins } from "./cell-database.ts";
import type { PostgresServer } from "./postgres/server.ts";

export type AnnexDatabases = {
  readonly annex: CellId;
  /** As it runs in the host. */
  readonly application: LocalApplication;
  readonly random: Random;
  readonly server: PostgresServer;
};

/** Of a name in PostgreSQL; a longer one is cut without a word. */
const nameBytesMax = 63;
const markLength = 10;

/** `app__sb_cell_01_cell_02`. Ids have dashes and no underscores, so no two of them come out alike. */
export function annexDatabaseName(database: string, annex: CellId): string {
  const whole = `${database}__${annex.replaceAll("-", "_")}`;
  if (Buffer.byteLength(whole) <= nameBytesMax) return whole;
  const mark = createHash("sha256").update(`${database}\n${annex}`).digest("hex");
  const tail = `__${mark.slice(0, markLength)}`;
  // Cut in whole characters: half of one is not text.
  let head = "";
  for (const character of whole) {
    if (Buffer.byteLength(head + character) > nameBytesMax - tail.length) break;
    head += character;
  }
  return `${head}${tail}`;
}

/** The application as an annex of it knows it: other databases, all else the same. */
export function applicationOfAnnex(application: LocalApplication, annex: CellId): LocalApplication {
  const of = (store: LocalStore): LocalStore => ({
    ...store,
    database: annexDatabaseName(store.database, annex),
  });
  const [first, ...others] = application.stores;
  return { ...application, stores: [of(first), ...others.map(of)] };
}

/** Made where missing, brought up to date where older code made them. `hostSecrets`: the passwords of the roles. */
export async function ensureAnnexDatabases(
  about: AnnexDatabases & { readonly hostSecrets: string },
): Promise<void> {
  const { annex, random, server, hostSecrets } = about;
  const application = applicationOfAnnex(about.application, annex);
  const names = application.stores.map(({ database }) => database);
  await withClient(server.url(), async (client) => {
    const known = await databasesOf(client, names);
    for (const name of names.filter((one) => !known.includes(one))) {
      await client.query(`create database ${pg.escapeIdentifier(name)}`);
    }
  });
  await templateOf({ application, random }).bringUpToDate(server, annex, hostSecrets);
}

/** Undefined: what the application's migrations do may be another thing at every start. */
export function schemaOfAnnex(about: Omit<AnnexDatabases, "server">): string | undefined {
  const { annex, random } = about;
  if (about.application.stores.some(({ everyStart }) => everyStart)) return undefined;
  return templateOf({ application: applicationOfAnnex(about.application, annex), random }).mark;
}

/** What is worth knowing about the tables was said when the cells' template was made. */
const templateOf = (about: Pick<AnnexDatabases, "application" | "random">) =>
  cellTemplate({ ...about, say: () => {} });

/** At every start, as the server's port may have changed. */
export const writeAnnexLogins = (
  about: AnnexDatabases & {
    readonly hostSecrets: string;
    readonly secrets: string;
    readonly movers?: ReadonlyMap<string, string>;
  },
): Promise<CellLogins> =>
  writeLogins({
    application: applicationOfAnnex(about.application, about.annex),
    random: about.random,
    server: about.server,
    secrets: about.secrets,
    passwords: about.hostSecrets,
    ...(about.movers === undefined ? {} : { movers: about.movers }),
  });

/**
 * Whatever still streams into or out of them is cut first: PostgreSQL drops no database with a
 * subscription or a slot in use. The other ends are their owners' to remove.
 */
export async function dropAnnexDatabases(about: AnnexDatabases): Promise<void> {
  const { annex, server } = about;
  const { stores } = applicationOfAnnex(about.application, annex);
  const names = stores.map(({ database }) => database);
  const there = await withClient(server.url(), (client) => databasesOf(client, names));
  for (const name of there) {
    await withClient(server.url(name), removeSubscriptions);
    await withClient(server.url(), async (client) => {
      await removeSlots(client, name);
      await client.query(`drop database if exists ${pg.escapeIdentifier(name)} with (force)`);
    });
  }
}

async function databasesOf(client: pg.Client, names: readonly string[]): Promise<string[]> {
  const { rows } = await client.query<{ datname: string }>(
    "select datname from pg_database where datname = any($1)",
    [names],
  );
  return rows.map(({ datname }) => datname);
}

async function removeSubscriptions(client: pg.Client): Promise<void> {
  const { rows } = await client.query<{ name: string }>(
    `select quote_ident(subname) as name from pg_subscription
      where subdbid = (select oid from pg_database where datname = current_database())`,
  );
  for (const { name } of rows) {
    await client.query(`alter subscription ${name} disable`);
    // Its slot lies in another server, which may be gone.
    await client.query(`alter subscription ${name} set (slot_name = none)`);
    await client.query(`drop subscription ${name}`);
  }
}

async function removeSlots(client: pg.Client, database: string): Promise<void> {
  const slots = "from pg_replication_slots where database = $1";
  // A timeout: the call returns when the sender is gone, and its slot free.
  await client.query(
    `select pg_terminate_backend(active_pid, 5000) ${slots} and active_pid is not null`,
    [database],
  );
  await client.query(`select pg_drop_replication_slot(slot_name) ${slots}`, [database]);
}
