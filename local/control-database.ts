/**
 * The control plane's PostgreSQL: the one that `DATABASE_URL` names, if it can serve, else one of
 * our own. An unfit one is refused by name; the fleet then starts all the same.
 */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import pg from "pg";
import { type DataFolder, keepSecret, secretFile } from "./data-folder.ts";
import { createDatabaseUnit, type DatabaseUnit, ensureDatabase } from "./database-unit.ts";
import { oldestMajor } from "./postgres/binaries.ts";
import { urlFor } from "./postgres/server.ts";
import type { Template, TemplateTools } from "./postgres/template.ts";
import type { UnitStatus } from "./unit.ts";

const role = "cellfleet_control";
const database = "cellfleet_control";

export type ControlDatabase = {
  /** Holds the URL; the control plane is given the reference. */
  readonly urlFile: string;
  /** Undefined when somebody else runs the server. */
  readonly unit: DatabaseUnit | undefined;
};

export type ControlDatabaseOptions = {
  readonly folder: DataFolder;
  readonly tools: TemplateTools;
  readonly databaseUrl: string | undefined;
  readonly say: (line: string) => void;
  readonly onChange: (status: UnitStatus) => void;
};

/** The control plane owns its database, and is no superuser. */
const template: Template = {
  content: `${role}/${database}/1`,
  build: async (url) => {
    await run(url(), `create role ${role} login`);
    await run(url(), `create database ${database} owner ${role}`);
  },
};

export async function openControlDatabase(
  options: ControlDatabaseOptions,
): Promise<ControlDatabase> {
  const { folder, tools, databaseUrl, say, onChange } = options;
  const urlFile = secretFile(folder, "control-plane-database-url");
  if (databaseUrl !== undefined) {
    const refusal = await whyUnfit(databaseUrl);
    if (refusal === undefined) {
      await writeFile(urlFile, `${databaseUrl}\n`, { mode: 0o600 });
      say(`control plane's database: the one that DATABASE_URL names`);
      return { urlFile, unit: undefined };
    }
    say(`DATABASE_URL is not used: ${refusal}; the control plane gets a server of its own`);
  }
  const server = {
    name: "control-plane-db",
    folder: join(folder.databases, "control-plane"),
    logs: folder.logs,
    restart: true,
    tools,
    onChange,
  };
  const passwordFile = secretFile(folder, "control-plane-database-password");
  await ensureDatabase(server, template, async ({ url }) => {
    const fresh = await keepSecret(passwordFile, () => tools.random.hex(24));
    await run(url(), `alter role ${role} password '${fresh}'`);
  });
  const unit = createDatabaseUnit(server);
  await unit.start();
  const port = unit.server()?.port ?? 0;
  const password = await keepSecret(passwordFile, () => "");
  await writeFile(urlFile, `${urlFor({ port, user: role, password, database })}\n`, {
    mode: 0o600,
  });
  return { urlFile, unit };
}

/** One sentence, without the URL: it holds a password. */
async function whyUnfit(url: string): Promise<string | undefined> {
  try {
    const rows = await run(
      url,
      `select current_setting('server_version') as version,
              current_setting('server_version_num')::int / 10000 as major,
              current_setting('wal_level') as wal_level,
              pg_is_in_recovery() as standby,
              has_database_privilege(current_database(), 'create') as may_create`,
    );
    const facts = rows[0] ?? {};
    if (Number(facts["major"]) < oldestMajor) {
      return `its server is PostgreSQL ${facts["version"]}, and ${oldestMajor} is the oldest that will do`;
    }
    if (facts["wal_level"] !== "logical") {
      return `its server (PostgreSQL ${facts["version"]}) runs with wal_level=${facts["wal_level"]} instead of logical`;
    }
    if (facts["standby"] === true) return "its server is a standby, where nothing can be written";
    if (facts["may_create"] !== true) return "its user may not create a schema there";
    return undefined;
  } catch (error) {
    return `it cannot be reached (${error instanceof Error ? error.message : String(error)})`;
  }
}

async function run(url: string, text: string): Promise<Array<Record<string, unknown>>> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 5000 });
  client.on("error", () => {}); // Reported by the query that fails.
  try {
    await client.connect();
    return (await client.query<Record<string, unknown>>(text)).rows;
  } finally {
    await client.end().catch(() => {}); // Never connected: nothing to end.
  }
}
