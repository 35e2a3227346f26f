/**
 * The shop of examples/ as its company runs it today: one database, three instances of each service, a
 * cron job and a queue's worker, and nothing of Cellfleet anywhere. It is what gets adopted.
 *
 * Roles as a careful company has them: `shop_owner` owns the database and its tables and may create
 * roles, `shop` is what the application logs in as. Nobody needs a superuser after the first minute.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import { join, resolve } from "node:path";
import pg from "pg";
import { until } from "./fleet.ts";
import { startTestPostgres, type TestPostgres } from "./postgres.ts";

const folder = resolve(import.meta.dirname, "..", "examples", "shop");

export type PlainShop = {
  readonly postgres: TestPostgres;
  readonly ownerUrl: string;
  readonly appUrl: string;
  readonly web: readonly string[];
  readonly api: readonly string[];
  readonly accounts: readonly string[];
  /** As a superuser: what no policy hides. */
  readonly read: <Row extends pg.QueryResultRow>(sql: string) => Promise<Row[]>;
  readonly stop: () => Promise<void>;
};

export async function startPlainShop(options: {
  readonly accounts: number;
  readonly instances?: number;
}): Promise<PlainShop> {
  const postgres = await startTestPostgres();
  const children: ChildProcess[] = [];
  const stop = async () => {
    await Promise.all(children.map(end));
    await postgres.stop();
  };
  try {
    const { ownerUrl, appUrl } = await createDatabase(postgres);
    await runOnce("migrate.js", [], ownerUrl);
    await runOnce("seed.js", [String(options.accounts)], ownerUrl);
    const start = async (file: string): Promise<string> => {
      const port = await freePort();
      children.push(launch(file, [], { DATABASE_URL: appUrl, PORT: String(port) }));
      const url = `http://127.0.0.1:${port}`;
      await until(`${file} answers`, () => answers(`${url}/livez`));
      return url;
    };
    const instances = options.instances ?? 3;
    const all = (file: string) => Promise.all(Array.from({ length: instances }, () => start(file)));
    const web = await all("web.js");
    const api = await all("api.js");
    children.push(launch("cron.js", [], { DATABASE_URL: appUrl }));
    children.push(launch("worker.js", [], { DATABASE_URL: appUrl }));
    const accounts = Array.from(
      { length: options.accounts },
      (_, index) => `account-${String(index + 1).padStart(4, "0")}`,
    );
    const read = <Row extends pg.QueryResultRow>(sql: string) =>
      withClient(postgres.url("shop"), async (client) => (await client.query<Row>(sql)).rows);
    return { postgres, ownerUrl, appUrl, web, api, accounts, read, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function createDatabase(
  postgres: TestPostgres,
): Promise<{ readonly ownerUrl: string; readonly appUrl: string }> {
  const password = pg.escapeLiteral(postgres.password);
  await withClient(postgres.adminUrl, async (client) => {
    await client.query(`create role shop_owner login createrole password ${password}`);
    await client.query(`create role shop login password ${password}`);
    await client.query("create database shop owner shop_owner");
  });
  const ownerUrl = postgres.url("shop", "shop_owner");
  await withClient(ownerUrl, async (client) => {
    const rights = "select, insert, update, delete on tables";
    await client.query(`alter default privileges grant ${rights} to shop`);
    await client.query("alter default privileges grant usage, select on sequences to shop");
  });
  return { ownerUrl, appUrl: postgres.url("shop", "shop") };
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

function launch(
  file: string,
  args: readonly string[],
  env: Readonly<Record<string, string>>,
): ChildProcess {
  return spawn(process.execPath, [join(folder, file), ...args], {
    cwd: folder,
    env: { PATH: process.env["PATH"], ...env },
    stdio: "ignore",
  });
}

async function runOnce(file: string, args: readonly string[], databaseUrl: string): Promise<void> {
  const child = launch(file, args, { DATABASE_URL: databaseUrl });
  const [code] = (await once(child, "exit")) as [number | null];
  if (code !== 0) throw new Error(`${file} ended with ${code}`);
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = once(child, "exit");
  child.kill("SIGTERM");
  const late = setTimeout(() => child.kill("SIGKILL"), 5000);
  await gone;
  clearTimeout(late);
}

/** Chosen by the system; taken again at once by the process that is started on it. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}

const answers = (url: string): Promise<boolean> =>
  fetch(url).then(
    (response) => response.ok,
    () => false,
  );
