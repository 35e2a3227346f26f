/**
 * A cell's database: what every cell's template holds (the sample application's tables under the
 * guard), and what one cell has of its own (its name, its passwords).
 *
 * Superuser only while it is made. After that the application and the agent log in as roles of their
 * own; the tables belong to a role that nobody logs in as.
 */
import { createHash } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import pg from "pg";
import { installPack, type PackRoles, packContent } from "../cell/store/install.ts";
import { type Manifest, parseManifest } from "../cell/store/manifest.ts";
import { protectTable } from "../cell/store/protect.ts";
import type { CellId } from "../contract/ids.ts";
import type { Random } from "../runtime/random.ts";
import { keepSecret } from "./data-folder.ts";
import { type PostgresServer, urlFor } from "./postgres/server.ts";
import type { Template } from "./postgres/template.ts";

/** PostgreSQL URLs of one cell. */
export type CellLogins = {
  readonly app: string;
  /** Files that hold the URL: what others are given is the reference. */
  readonly appFile: string;
  readonly agentFile: string;
};

const database = "app";
const roles: PackRoles = {
  appRole: "app",
  appOwnerRole: "app_owner",
  agentRole: "cellfleet_agent",
};
const sample = join(import.meta.dirname, "..", "cell", "sample");
export const keyColumn = "tenant_id";

/** Grows when `fill` below changes. */
const fillVersion = 1;

export type CellTemplate = Template & {
  /** Brings the database of a cell that older code made up to date; the application must not run. */
  readonly bringUpToDate: (server: PostgresServer, appUrl: string) => Promise<void>;
};

export async function cellTemplate(): Promise<CellTemplate> {
  const schema = await readFile(join(sample, "schema.sql"), "utf8");
  const manifest = await readFile(join(sample, "cellfleet.schema.yaml"), "utf8");
  const content = JSON.stringify([fillVersion, packContent(), schema, manifest, roles]);
  const mark = createHash("sha256").update(content).digest("hex");
  const fillAndMark = async (client: pg.Client) => {
    await fill(client, schema, parseManifest(manifest));
    // In the database itself, so that one that was set back says what it is.
    await client.query(`comment on database ${database} is '${mark}'`);
  };
  return {
    content,
    build: async (url) => {
      await withClient(url(), (client) => client.query(`create database ${database}`));
      await withClient(url(database), fillAndMark);
    },
    bringUpToDate: async (server, appUrl) => {
      const { rows } = await withClient(appUrl, (client) =>
        client.query<{ mark: string | null }>(
          "select shobj_description(oid, 'pg_database') as mark from pg_database where datname = $1",
          [database],
        ),
      );
      if (rows[0]?.mark !== mark) await withClient(server.url(database), fillAndMark);
    },
  };
}

/** Once per cell, on its own copy of the template. */
export async function personalise(options: {
  readonly cell: CellId;
  readonly server: PostgresServer;
  readonly secrets: string;
  readonly random: Random;
}): Promise<void> {
  const { cell, server, secrets, random } = options;
  await withClient(server.url(database), async (client) => {
    for (const role of [roles.appRole, roles.agentRole]) {
      const password = await keepSecret(passwordFile(secrets, role), () => random.hex(24));
      await client.query(`alter role ${role} password '${password}'`);
    }
    await installPack(client, { ...roles, cellId: cell });
  });
}

/** At every start: the port may have changed. */
export async function writeLogins(port: number, secrets: string): Promise<CellLogins> {
  const login = async (user: string): Promise<string> => {
    const password = (await readFile(passwordFile(secrets, user), "utf8")).trim();
    return urlFor({ port, user, password, database });
  };
  const files = {
    appFile: join(secrets, "app-database-url"),
    agentFile: join(secrets, "agent-database-url"),
  };
  const app = await login(roles.appRole);
  await writeFile(files.appFile, `${app}\n`, { mode: 0o600 });
  await writeFile(files.agentFile, `${await login(roles.agentRole)}\n`, { mode: 0o600 });
  return { ...files, app };
}

async function fill(client: pg.Client, schema: string, manifest: Manifest): Promise<void> {
  const { appRole, appOwnerRole } = roles;
  await installPack(client, roles);
  await client.query(`grant create, usage on schema public to ${appOwnerRole}`);
  await client.query(`set role ${appOwnerRole}`);
  await client.query(schema);
  for (const table of manifest.tables) {
    if (table.class === "tenant") await protectTable(client, table);
  }
  await client.query(`grant usage on schema public to ${appRole}`);
  await client.query(
    `grant select, insert, update, delete on all tables in schema public to ${appRole}`,
  );
  await client.query("reset role");
  // An application that dies inside a transaction must not hold a tenant's lock for ever.
  await client.query(`alter role ${appRole} set idle_in_transaction_session_timeout = '60s'`);
}

const passwordFile = (secrets: string, role: string): string => join(secrets, `${role}-password`);

async function withClient<T>(url: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client(url);
  client.on("error", () => {}); // Reported by the query that fails.
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}
