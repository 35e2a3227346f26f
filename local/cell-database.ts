/**
 * A cell's databases: what every cell's template holds (the application's tables, those of tenants
 * under the guard), and what one cell has of its own (its name, its passwords).
 *
 * Superuser only while they are made. After that the application, the agent and whoever asks
 * questions log in as roles of their own; the tables belong to a role that only migrations use.
 */
import { createHash } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import pg from "pg";
import { readStoreCatalog } from "../cell/store/catalog.ts";
import { type Finding, type FindingCode, findGaps } from "../cell/store/coverage.ts";
import { installPack, type PackRoles, packContent } from "../cell/store/install.ts";
import { letMove } from "../cell/store/let-move.ts";
import { protectTable } from "../cell/store/protect.ts";
import { recordManifest } from "../cell/store/table-classes.ts";
import { CellError } from "../contract/errors.ts";
import type { CellId } from "../contract/ids.ts";
import type { Random } from "../runtime/random.ts";
import { guardedStores, type LocalApplication, type LocalStore } from "./application.ts";
import { keepSecret } from "./data-folder.ts";
import { type PostgresServer, urlFor } from "./postgres/server.ts";
import type { Template } from "./postgres/template.ts";

/** PostgreSQL URLs of one cell. */
export type CellLogins = {
  /** As the application, in the first store. */
  readonly app: string;
  /** As the application, by store. */
  readonly stores: ReadonlyMap<string, { readonly url: string; readonly file: string }>;
  /** Files that hold the URL: what others are given is the reference. */
  readonly agentFile: string;
  /** The same of the other stores that the agent looks after. */
  readonly agentStores: readonly { readonly store: string; readonly file: string }[];
  readonly readerFile: string;
  /** File with the agent's URL of the server that follows the origin's; of an annex that waits beside one. */
  readonly standbyServerFile?: string;
};

/** File in a cell's folder for secrets: the URL of the role that moves tenants, by store. */
export const moverFile = (store: string): string => `mover-${store}-database-url`;

const roles = {
  appRole: "app",
  appOwnerRole: "app_owner",
  agentRole: "cellfleet_agent",
  readerRole: "cellfleet_reader",
  moverRole: "cellfleet_mover",
} as const satisfies PackRoles & { readonly readerRole: string; readonly moverRole: string };

/** Grows when `fill` below changes. */
const fillVersion = 6;

export type CellTemplate = Template & {
  /** Differs when the databases that it makes would. */
  readonly mark: string;
  /** Brings the databases of a cell that older code made up to date; the application must not run. */
  readonly bringUpToDate: (server: PostgresServer, cell: CellId, secrets: string) => Promise<void>;
};

type Context = { readonly application: LocalApplication; readonly random: Random };
/** Told, a line each, what somebody has to decide before there are several cells. */
type Say = (line: string) => void;

export function cellTemplate(context: Context & { readonly say: Say }): CellTemplate {
  const { application, random } = context;
  const { stores } = application;
  const content = JSON.stringify([
    fillVersion,
    packContent(),
    roles,
    ...stores.map((store) => [store.name, store.database, store.content, store.manifest]),
  ]);
  const mark = createHash("sha256").update(content).digest("hex");
  const fillAll = async (url: (database: string) => string, owner: Owner) => {
    for (const store of stores) {
      await withClient(url(store.database), async (client) => {
        await fill({ ...context, client, store, ...owner });
        // In the database itself, so that one that was set back says what it is.
        await client.query(
          `comment on database ${pg.escapeIdentifier(store.database)} is '${mark}'`,
        );
      });
    }
  };
  return {
    content,
    mark,
    build: async (url) => {
      await withClient(url(), async (client) => {
        for (const { database } of stores) {
          await client.query(`create database ${pg.escapeIdentifier(database)}`);
        }
      });
      await fillAll(url, { ownerPassword: random.hex(24), label: "template" });
    },
    bringUpToDate: async (server, cell, secrets) => {
      const current = await withClient(server.url(stores[0].database), (client) =>
        marksOf(client, stores),
      );
      const older = stores.some(({ database }) => current.get(database) !== mark);
      if (!older && stores.every(({ everyStart }) => !everyStart)) return;
      const ownerPassword = await passwordOf(secrets, roles.appOwnerRole, random);
      await fillAll(server.url, { ownerPassword, label: cell, cellId: cell });
    },
  };
}

async function marksOf(
  client: pg.Client,
  stores: readonly LocalStore[],
): Promise<ReadonlyMap<string, string | null>> {
  const { rows } = await client.query<{ datname: string; mark: string | null }>(
    "select datname, shobj_description(oid, 'pg_database') as mark from pg_database where datname = any($1)",
    [stores.map(({ database }) => database)],
  );
  return new Map(rows.map(({ datname, mark }) => [datname, mark]));
}

/** Once per cell, on its own copy of the template. */
export async function personalise(
  options: Context & {
    readonly cell: CellId;
    readonly server: PostgresServer;
    readonly secrets: string;
  },
): Promise<void> {
  const { application, cell, server, secrets, random } = options;
  await withClient(server.url(application.stores[0].database), async (client) => {
    for (const role of loginsOf(application)) {
      const password = await passwordOf(secrets, role, random);
      await client.query(`alter role ${role} password '${password}'`);
    }
  });
  for (const { database } of guardedStores(application)) {
    await withClient(server.url(database), (client) =>
      installPack(client, { ...roles, cellId: cell }),
    );
  }
}

/** At every start: the port may have changed. Older cells get what they have no password for. */
export async function writeLogins(
  options: Context & {
    readonly server: PostgresServer;
    readonly secrets: string;
    /** Where the roles' passwords lie, when it is elsewhere: roles are the server's. */
    readonly passwords?: string;
    /** By store, where the mover goes instead: rows are in another server than the agent. */
    readonly movers?: ReadonlyMap<string, string>;
  },
): Promise<CellLogins> {
  const { application, server, secrets, random } = options;
  const { passwords = secrets } = options;
  const [first, ...others] = application.stores;
  const write = async (role: string, store: LocalStore, fileName: string) => {
    const password = await passwordOf(passwords, role, random, async (fresh) => {
      await withClient(server.url(first.database), (client) =>
        client.query(`alter role ${role} login password '${fresh}'`),
      );
    });
    const url = urlFor({ port: server.port, user: role, password, database: store.database });
    const file = join(secrets, fileName);
    await writeFile(file, `${url}\n`, { mode: 0o600 });
    return { url, file };
  };
  const writeApp = (store: LocalStore) =>
    write(roles.appRole, store, loginFile(application, store.name));
  const app = await writeApp(first);
  const stores = new Map([[first.name, app]]);
  for (const store of others) stores.set(store.name, await writeApp(store));
  for (const store of application.ownerLogsIn ? application.stores : []) {
    await write(roles.appOwnerRole, store, referenceFile(application, store.name));
  }
  const agent = await write(roles.agentRole, first, "agent-database-url");
  const reader = await write(roles.readerRole, first, "reader-database-url");
  const agentStores: Array<CellLogins["agentStores"][number]> = [];
  for (const store of guardedStores(application)) {
    const elsewhere = options.movers?.get(store.name);
    if (elsewhere === undefined) await write(roles.moverRole, store, moverFile(store.name));
    else await writeFile(join(secrets, moverFile(store.name)), `${elsewhere}\n`, { mode: 0o600 });
    if (store === first) continue;
    const { file } = await write(roles.agentRole, store, `agent-${store.name}-database-url`);
    agentStores.push({ store: store.name, file });
  }
  return { app: app.url, stores, agentFile: agent.file, agentStores, readerFile: reader.file };
}

/** Into a server that is a copy of a cell's, by the passwords of that one; nothing is changed there. */
export async function loginsInto(
  passwords: string,
  { application, port }: { readonly application: LocalApplication; readonly port: number },
): Promise<{ readonly movers: ReadonlyMap<string, string>; readonly agent: string }> {
  const urlOf = async (role: string, { database }: LocalStore) => {
    const password = await readFile(join(passwords, `${role}-password`), "utf8").catch(() => "");
    return urlFor({ port, user: role, password: password.trim(), database });
  };
  const movers = guardedStores(application).map(
    async (store) => [store.name, await urlOf(roles.moverRole, store)] as const,
  );
  return {
    movers: new Map(await Promise.all(movers)),
    agent: await urlOf(roles.agentRole, application.stores[0]),
  };
}

/** Where the application's URL of a store stands, in the cell's folder for secrets. */
const loginFile = ({ stores }: LocalApplication, store: string): string =>
  stores[0].name === store ? "app-database-url" : `app-${store}-database-url`;

/**
 * Where the URL stands that others are given by reference: the owner's where it may log in, as
 * migrations and exports need all rows and the right to change tables; else the application's.
 */
export function referenceFile(application: LocalApplication, store: string): string {
  if (!application.ownerLogsIn) return loginFile(application, store);
  return application.stores[0].name === store
    ? "owner-database-url"
    : `owner-${store}-database-url`;
}

type Owner = {
  readonly ownerPassword: string;
  readonly label: string;
  /** Absent in a template. */
  readonly cellId?: CellId;
};

/** Tables first, as the team's own migrations make them; then what is ours, around them. */
async function fill(
  options: Context &
    Owner & { readonly client: pg.Client; readonly store: LocalStore; readonly say: Say },
): Promise<void> {
  const { application, client, store, ownerPassword, label, cellId, say } = options;
  const owner = roles.appOwnerRole;
  const database = pg.escapeIdentifier(store.database);
  for (const role of Object.values(roles)) await ensureRole(client, role);
  await client.query(`grant create on database ${database} to ${owner}`);
  await client.query(`grant create, usage on schema public to ${owner}`);
  if (application.ownerLogsIn) {
    await client.query(`alter role ${owner} login password '${ownerPassword}'`);
  }
  const { port, host } = client;
  const ownerUrl = `postgres://${owner}:${ownerPassword}@${host}:${port}/${encodeURIComponent(store.database)}`;
  await store.migrate({ client, ownerUrl, label });
  const guarded = guardedStores(application).includes(store);
  if (guarded) await guard(client, store, cellId);
  await grantAccess(client, guarded);
  if (guarded) {
    await letMove(client, roles.moverRole, store.database);
    const gaps = await gapsOf(client, store);
    refuse(
      store,
      gaps.filter(({ severity }) => severity === "fault"),
    );
    for (const { code, object, text } of gaps) say(`note: ${label}: ${code} ${object} ${text}`);
  }
  // An application that dies inside a transaction must not hold a tenant's lock for ever.
  await client.query(`alter role ${roles.appRole} set idle_in_transaction_session_timeout = '60s'`);
}

const unguardable: readonly FindingCode[] = ["TABLE_MISSING", "KEY_COLUMN_MISSING"];

async function guard(
  client: pg.Client,
  store: LocalStore,
  cellId: CellId | undefined,
): Promise<void> {
  await installPack(client, { ...roles, ...(cellId === undefined ? {} : { cellId }) });
  // The guard cannot be put on these at all; the team's migrations are where they are mended.
  const before = await gapsOf(client, store);
  refuse(
    store,
    before.filter(({ code }) => unguardable.includes(code)),
  );
  await client.query(`set role ${roles.appOwnerRole}`);
  for (const table of store.manifest.tables) {
    if (table.class === "tenant") await protectTable(client, table);
  }
  await recordManifest(client, store.manifest);
  // An index beside the primary key, so that one tenant can be replicated by itself.
  for (const { code, mend } of await gapsOf(client, store)) {
    if (code === "KEY_NOT_IN_IDENTITY") await client.query(mend.replace(" concurrently", ""));
  }
  await client.query("reset role");
}

const gapsOf = async (client: pg.Client, { manifest }: LocalStore): Promise<Finding[]> =>
  findGaps(manifest, await readStoreCatalog(client, roles.appRole), roles.appRole);

/** A table that nobody fences is silent loss later; a fleet with one is not started. */
function refuse(store: LocalStore, faults: readonly Finding[]): void {
  if (faults.length === 0) return;
  const lines = faults.map(
    ({ code, object, text, mend }) => `  ${code} ${object} ${text}\n    ${mend}`,
  );
  throw new CellError(
    "CONFIG_INVALID",
    `The store ${store.name} is not ready to be fenced:\n${lines.join("\n")}`,
    { nextSteps: ["mend the manifest or the application's migrations, and start again"] },
  );
}

/** Also to what later migrations make. Of leased sequences the application uses none by itself. */
async function grantAccess(client: pg.Client, guarded: boolean): Promise<void> {
  const { appRole, appOwnerRole, readerRole } = roles;
  const leased = guarded
    ? "and not exists (select from cellfleet.id_sequence s where s.sequence = c.oid)"
    : "";
  const { rows } = await client.query<{ schema: string; sequences: string[] }>(
    `select quote_ident(n.nspname) as schema,
            array(select format('%I.%I', n.nspname, c.relname) from pg_class c
                   where c.relnamespace = n.oid and c.relkind = 'S' ${leased}) as sequences
       from pg_namespace n
      where n.nspname not like 'pg\\_%' and n.nspname not in ('information_schema', 'cellfleet')`,
  );
  for (const { schema, sequences } of rows) {
    await client.query(`grant usage on schema ${schema} to ${appRole}, ${readerRole}`);
    await client.query(
      `grant select, insert, update, delete on all tables in schema ${schema} to ${appRole}`,
    );
    await client.query(`grant select on all tables in schema ${schema} to ${readerRole}`);
    for (const sequence of sequences) {
      await client.query(`grant usage, select on sequence ${sequence} to ${appRole}`);
    }
  }
  const later = `alter default privileges for role ${appOwnerRole} grant`;
  await client.query(`${later} select, insert, update, delete on tables to ${appRole}`);
  await client.query(`${later} select on tables to ${readerRole}`);
}

/** The two that the pack does not need, and those that it would make too late for the migrations. */
async function ensureRole(client: pg.Client, name: string): Promise<void> {
  const { rows } = await client.query("select from pg_roles where rolname = $1", [name]);
  if (rows.length > 0) return;
  const login = name === roles.appOwnerRole ? "nologin" : "login";
  await client.query(`create role ${pg.escapeIdentifier(name)} ${login}`);
}

const loginsOf = ({ ownerLogsIn }: LocalApplication): readonly string[] =>
  Object.values(roles).filter((role) => ownerLogsIn || role !== roles.appOwnerRole);

/** Made once and kept; `onFresh` gives it to the server before it is written down. */
async function passwordOf(
  secrets: string,
  role: string,
  random: Random,
  onFresh?: (password: string) => Promise<void>,
): Promise<string> {
  const file = join(secrets, `${role}-password`);
  const known = (await readFile(file, "utf8").catch(() => "")).trim();
  if (known !== "") return known;
  const fresh = random.hex(24);
  await onFresh?.(fresh);
  return keepSecret(file, () => fresh);
}

export async function withClient<T>(
  url: string,
  work: (client: pg.Client) => Promise<T>,
): Promise<T> {
  const client = new pg.Client(url);
  client.on("error", () => {}); // Reported by the query that fails.
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}
