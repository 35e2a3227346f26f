/**
 * A cell of somebody's application, from its `cellfleet.yaml`: the shop of examples/ as real processes
 * beside a real PostgreSQL, made by its own migrations.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { cp, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import pg from "pg";
import { request } from "undici";
import { afterEach, beforeAll, beforeEach, describe, test, vi } from "vitest";
import { readAppFile } from "../adoption/app-file.ts";
import { type CellId, parseCellId } from "../contract/ids.ts";
import { must } from "../runtime/assert.ts";
import { systemClock } from "../runtime/clock.ts";
import { systemRandom } from "../runtime/random.ts";
import { type LocalCells, openCells } from "./cell-processes.ts";
import { type DataFolder, openDataFolder } from "./data-folder.ts";
import { fileApplication, wishesOf } from "./file-application.ts";
import { keepSigningKey } from "./fleet-units.ts";
import { endLeftovers } from "./node-process.ts";
import { findPostgres, type Installation } from "./postgres/binaries.ts";
import { identify, processesIn } from "./process-identity.ts";

const shop = resolve(import.meta.dirname, "..", "examples", "shop");
const id: CellId = must(parseCellId("cell-01"), "a cell id");
const annex: CellId = must(parseCellId("sb-cell-02-cell-01"), "a cell id");
let installation: Installation;
/** A checkout of the shop that a test may change. */
let app: string;
let root: string;
let folder: DataFolder;
let cells: LocalCells | undefined;
let said: string[];

beforeAll(async () => {
  installation = await findPostgres({ env: process.env, random: systemRandom });
});
beforeEach(async () => {
  said = [];
  app = await mkdtemp(join(tmpdir(), "cellfleet-shop-"));
  await cp(shop, app, { recursive: true });
  // Its dependency, as npm would put it.
  await symlink(resolve(shop, "../../node_modules"), join(app, "node_modules"));
  root = await mkdtemp(join(tmpdir(), "cellfleet-cell-"));
  folder = await openDataFolder(root, installation.runAs, systemRandom);
  await keepSigningKey(folder);
});
afterEach(async () => {
  await cells?.stopAll();
  cells = undefined;
  await rm(root, { recursive: true, force: true });
  await rm(app, { recursive: true, force: true });
});

async function open(): Promise<LocalCells> {
  const env = { PATH: process.env["PATH"] ?? "", LEVEL: "from-outside" };
  const source = await readAppFile(app);
  cells = await openCells({
    folder,
    tools: { installation, clock: systemClock, random: systemRandom },
    application: await fileApplication({ source, env, logs: folder.logs, clock: systemClock }),
    // Nobody there: a cell starts and lives without a control plane.
    controlPlaneUrl: "http://127.0.0.1:9",
    env: { PATH: process.env["PATH"] ?? "" },
    onChange: () => {},
    say: (line) => said.push(line),
  });
  return cells;
}

const edit = async (file: string, change: (text: string) => string): Promise<void> =>
  writeFile(join(app, file), change(await readFile(join(app, file), "utf8")));

async function asRole(file: string, text: string): Promise<Array<Record<string, unknown>>> {
  const url = await readFile(join(root, "cells", id, "secrets", file), "utf8");
  const client = new pg.Client(url.trim());
  client.on("error", () => {});
  await client.connect();
  try {
    return (await client.query<Record<string, unknown>>(text)).rows;
  } finally {
    await client.end();
  }
}

const forgotten = "select table_name from cellfleet.unclassed_tables()";

describe("a cell of an application with a cellfleet.yaml", () => {
  test("runs its services and workers, told where they are", async ({ expect }) => {
    const { units, act, ports } = await open();
    expect(await act(id, "create", { agentToken: "token-1" })).toMatchObject({ state: "running" });
    expect(units().map(({ name }) => name.replace("cell-01-", ""))).toEqual([
      "db",
      "web-1",
      "web-2",
      "web-3",
      "api-1",
      "api-2",
      "api-3",
      "cron-1",
      "worker-1",
      "agent",
    ]);
    const port = must(ports(id), "ports").apps["web-2"];
    const answer = await request(`http://127.0.0.1:${port}/whoami`, {
      headers: { "x-tenant-id": "acme" },
    });
    expect(await answer.body.json()).toEqual({ cell: "cell-01", tenant: "acme", epoch: null });
    const { services, stores } = cells?.describe(id) ?? {};
    expect(Object.keys(services ?? {})).toEqual(["web", "api"]);
    expect(services?.["web"]).toEqual(services?.["api"]); // The agent, in front of both.
    // The owner's, for commands that change tables or read all rows; the application's is told to programs.
    const owner = join(root, "cells", id, "secrets", "owner-database-url");
    const mover = join(root, "cells", id, "secrets", "mover-main-database-url");
    expect(stores?.["default"]).toEqual({
      ...{ database: `file:${owner}`, keyColumn: "account_id" },
      mover: `file:${mover}`,
      // Where a report of a failover looks acknowledged writes up.
      idempotency: { table: "public.idempotency", tenantColumn: "account_id", keyColumn: "key" },
    });
    expect(cells?.logins(id)?.app).toContain("//app:");
  });

  test("holds its tables, made by its own migrations, under the guard", async ({ expect }) => {
    await (await open()).act(id, "create", { agentToken: "token-1" });
    expect(
      await asRole("app-database-url", "select name from schema_migrations order by 1"),
    ).toEqual([{ name: "001_shop.sql" }, { name: "002_background.sql" }]);
    const write = asRole("app-database-url", "insert into accounts (id) values ('acme')");
    await expect(write).rejects.toMatchObject({ code: "CF001" });
    const [role] = await asRole(
      "app-database-url",
      `select rolsuper, rolbypassrls, (select count(*)::int from pg_class where relowner = r.oid) as owns
         from pg_roles r where rolname = current_user`,
    );
    expect(role).toEqual({ rolsuper: false, rolbypassrls: false, owns: 0 });
    expect(await asRole("agent-database-url", forgotten)).toEqual([]);
    const read = asRole("reader-database-url", "insert into currencies values ('CHF', 2)");
    await expect(read).rejects.toMatchObject({ code: "42501" });
  });

  test("gets new migrations at its next start, with its data kept", async ({ expect }) => {
    const first = await open();
    await first.act(id, "create", { agentToken: "token-1" });
    await first.wakeAnnexes();
    await first.act(annex, "create", {
      agentToken: "token-2",
      annex: { origin: must(parseCellId("cell-02"), "a cell id"), host: id, provider: "logical" },
    });
    await asRole("owner-database-url", "insert into currencies values ('CHF', 2)");
    await first.stopAll();
    await writeFile(
      join(app, "migrations/003_notes.sql"),
      "create table notes (id bigserial primary key, account_id text not null, note text)",
    );
    await edit("cellfleet.schema.yaml", (text) =>
      text.replace("\ntables:\n", "\ntables:\n  notes: tenant\n"),
    );
    const second = await open();
    // Its standbys of other cells first.
    await second.migrateAnnexes();
    const notes = "select to_regclass('notes') is not null as known";
    const ofAnnex = join("..", "annexes", annex, "secrets", "app-database-url");
    expect(await asRole(ofAnnex, notes)).toEqual([{ known: true }]);
    expect(await asRole("app-database-url", notes)).toEqual([{ known: false }]);
    await second.act(id, "start");
    const write = asRole(
      "app-database-url",
      "insert into notes (id, account_id) values (1, 'acme')",
    );
    await expect(write).rejects.toMatchObject({ code: "CF001" });
    // The manifest is recorded anew, so that the agent misses nothing.
    expect(await asRole("agent-database-url", forgotten)).toEqual([]);
    expect(await asRole("app-database-url", "select count(*)::int as n from currencies")).toEqual([
      { n: 4 },
    ]);
  });

  test("is made from another template when a watched file changes, and from the same when none does", async ({
    expect,
  }) => {
    const content = async () => {
      const source = await readAppFile(app);
      const options = { source, env: {}, logs: folder.logs, clock: systemClock };
      return (await fileApplication(options)).stores[0].content;
    };
    const before = await content();
    await edit("lib/orders.js", (text) => `${text}\n`);
    expect(await content()).toBe(before);
    await edit("migrations/002_background.sql", (text) => `${text}\n`);
    expect(await content()).not.toBe(before);
  });

  test("calls its first store with tenants `default`, and no other one", async ({ expect }) => {
    await writeFile(join(app, "rates.schema.yaml"), "tables:\n  rates: reference\n");
    const before = await readFile(join(app, "cellfleet.yaml"), "utf8");
    const add = (name: string) =>
      writeFile(
        join(app, "cellfleet.yaml"),
        `${before}  ${name}:\n    manifest: rates.schema.yaml\n    env: RATES_URL\n`,
      );
    await add("default");
    await expect(open()).rejects.toMatchObject({
      code: "CONFIG_INVALID",
      nextSteps: ["give the store default another name in cellfleet.yaml"],
    });
    await add("rates");
    // Without tenants there is nothing in it to guard, and nothing that could move.
    await (await open()).act(id, "create", { agentToken: "token-1" });
    const { stores } = cells?.describe(id) ?? {};
    expect(stores?.["rates"]).toMatchObject({ ignore: true });
    expect(stores?.["rates"]).not.toHaveProperty("mover");
    expect(stores?.["default"]).not.toHaveProperty("ignore");
  });

  test("is not started with a table that nobody classed, and says how to mend it", async ({
    expect,
  }) => {
    await edit("cellfleet.schema.yaml", (text) => text.replace("  jobs: tenant\n", ""));
    const created = (await open()).act(id, "create", { agentToken: "token-1" });
    await expect(created).rejects.toThrow(/TABLE_UNCLASSED public\.jobs[\s\S]*jobs: tenant/);
  });

  test("is started with what is only a risk between cells, and says it", async ({ expect }) => {
    await writeFile(
      join(app, "migrations/003_coupons.sql"),
      "create table coupons (id bigserial primary key, account_id text not null, code text unique)",
    );
    await edit("cellfleet.schema.yaml", (text) =>
      text.replace("\ntables:\n", "\ntables:\n  coupons: tenant\n"),
    );
    expect(await (await open()).act(id, "create", { agentToken: "token-1" })).toMatchObject({
      state: "running",
    });
    expect(said).toEqual([
      expect.stringMatching(/UNIQUE_WITHOUT_KEY public\.coupons coupons_code_key makes \(code\)/),
    ]);
  });

  test("is not started with a table of tenants without the key column, and names the statement", async ({
    expect,
  }) => {
    await writeFile(
      join(app, "migrations/003_parcels.sql"),
      "create table parcels (id bigserial primary key, order_id bigint not null references orders (id))",
    );
    await edit("cellfleet.schema.yaml", (text) =>
      text.replace("\ntables:\n", "\ntables:\n  parcels: tenant\n"),
    );
    await expect((await open()).act(id, "create", { agentToken: "token-1" })).rejects.toMatchObject(
      {
        code: "CONFIG_INVALID",
        message: expect.stringMatching(
          /KEY_COLUMN_MISSING public\.parcels .*account_id[\s\S]*alter table "public"\."parcels" add column "account_id" text/,
        ),
      },
    );
  });

  test("is not started when its migrations fail, and shows why", async ({ expect }) => {
    await writeFile(join(app, "migrations/003_broken.sql"), "create table nonsense (");
    await expect((await open()).act(id, "create", { agentToken: "token-1" })).rejects.toThrow(
      /migrate of store main failed \(exit code 1\): node migrate\.js[\s\S]*syntax error/,
    );
  });

  test("is ended with all that its commands started", async ({ expect }) => {
    await edit("cellfleet.yaml", (text) =>
      text.replace("command: node worker.js", "command: node stubborn.cjs & wait"),
    );
    await writeFile(join(app, "stubborn.cjs"), stubborn);
    const { act, units } = await open();
    await act(id, "create", { agentToken: "token-1" });
    const worker = must(
      units().find(({ name }) => name === "cell-01-worker-1"),
      "the worker",
    );
    await stubbornIsUp();
    const running = processesIn(app).length;
    await worker.stop();
    expect(processesIn(app).length).toBe(running - 2);
    await worker.start();
    await stubbornIsUp();
    await worker.kill();
    // Nothing outlives SIGKILL, but only the command itself is our child and can be waited for.
    await vi.waitFor(() => expect(processesIn(app).length).toBe(running - 2), killedWithin);
    // As a supervisor would do that finds what a killed one left.
    await endLeftovers(folder.notes, 3000, systemClock);
    expect(processesIn(app)).toEqual([]);
  });

  test("is found after a killed supervisor even where only a child of a command is left", async ({
    expect,
  }) => {
    await writeFile(join(app, "stubborn.cjs"), stubborn);
    const mark = "CELLFLEET_NOTE=this one";
    const shell = spawn("/bin/sh", ["-c", "node stubborn.cjs & wait"], {
      cwd: app,
      detached: true,
      stdio: "ignore",
      env: { PATH: process.env["PATH"], CELLFLEET_NOTE: "this one" },
    });
    const identity = must(identify(must(shell.pid, "pid")), "the shell");
    await stubbornIsUp();
    const gone = once(shell, "exit");
    process.kill(identity.pid, "SIGKILL");
    await gone;
    expect(processesIn(app)).toHaveLength(1);
    const note = join(folder.notes, "cell-01-worker-1.json");
    // A stranger's group that was given the number meanwhile carries another mark.
    await writeFile(note, JSON.stringify({ ...identity, groupMark: "CELLFLEET_NOTE=another" }));
    expect(await endLeftovers(folder.notes, 100, systemClock)).toEqual([]);
    expect(processesIn(app)).toHaveLength(1);
    await writeFile(note, JSON.stringify({ ...identity, groupMark: mark }));
    expect(await endLeftovers(folder.notes, 3000, systemClock)).toEqual(["cell-01-worker-1"]);
    await vi.waitFor(() => expect(processesIn(app)).toEqual([]), killedWithin);
  });
});

const killedWithin = { timeout: 10_000, interval: 20 };
/** Does not end when its shell does. */
const stubborn =
  'process.on("SIGHUP", () => {}); require("fs").writeFileSync("up", ""); setInterval(() => {}, 1000);';
async function stubbornIsUp(): Promise<void> {
  const deadline = systemClock.monotonicMs() + 30_000;
  while (!existsSync(join(app, "up"))) {
    if (systemClock.monotonicMs() > deadline) throw new Error("it did not start");
    await systemClock.sleep(20);
  }
  await rm(join(app, "up"));
}

describe("what the file asks of the fleet", () => {
  test("is routing: services by path and host, the one without routes for all the rest", async ({
    expect,
  }) => {
    const wishes = wishesOf(await readAppFile(shop), true);
    expect(wishes.routing?.serviceRoutes).toEqual([
      { pathPrefix: "/api", service: "api" },
      { pathPrefix: "/", service: "web" },
    ]);
    expect(wishes).toMatchObject({ guardMode: "row", tenants: ["acme", "globex", "initech"] });
    expect(wishesOf(await readAppFile(shop), false).tenants).toEqual([]);
  });
});
