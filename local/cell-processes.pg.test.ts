/** One cell on this machine, from nothing to nothing: real PostgreSQL, application and agent. */
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { afterEach, beforeEach, describe, test } from "vitest";
import { readStoreCatalog } from "../cell/store/catalog.ts";
import { type Finding, findGaps } from "../cell/store/coverage.ts";
import { parseManifest } from "../cell/store/manifest.ts";
import { readUnclassed } from "../cell/store/table-classes.ts";
import { type CellId, parseCellId } from "../contract/ids.ts";
import { must } from "../runtime/assert.ts";
import { systemClock } from "../runtime/clock.ts";
import { systemRandom } from "../runtime/random.ts";
import { type LocalCells, openCells } from "./cell-processes.ts";
import { type DataFolder, openDataFolder } from "./data-folder.ts";
import { keepSigningKey } from "./fleet-units.ts";
import { findPostgres, type Installation } from "./postgres/binaries.ts";
import { sampleApplication } from "./sample-application.ts";

const id: CellId = must(parseCellId("cell-01"), "a cell id");
let root: string;
let folder: DataFolder;
let installation: Installation;
let cells: LocalCells;

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "cellfleet-cell-"));
  installation = await findPostgres({ env: process.env, random: systemRandom });
  folder = await openDataFolder(root, installation.runAs, systemRandom);
  await keepSigningKey(folder); // Agents of a fleet know whom to trust.
  cells = await open();
});
afterEach(async () => {
  await cells?.stopAll();
  await rm(root, { recursive: true, force: true });
});

const open = async () =>
  openCells({
    folder,
    tools: { installation, clock: systemClock, random: systemRandom },
    // Nobody there: a cell starts and lives without a control plane.
    application: await sampleApplication(),
    controlPlaneUrl: "http://127.0.0.1:9",
    env: { PATH: process.env["PATH"] ?? "" },
    onChange: () => {},
  });

async function asApp(text: string): Promise<Array<Record<string, unknown>>> {
  const client = new pg.Client(must(cells.logins(id), "logins").app);
  client.on("error", () => {});
  await client.connect();
  try {
    return (await client.query<Record<string, unknown>>(text)).rows;
  } finally {
    await client.end();
  }
}

async function asAgent<T>(work: (client: pg.Client) => Promise<T>): Promise<T> {
  const agent = await readFile(must(cells.logins(id), "logins").agentFile, "utf8");
  const client = new pg.Client(agent.trim());
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

async function gaps(): Promise<Finding[]> {
  const file = new URL("../cell/sample/cellfleet.schema.yaml", import.meta.url);
  const manifest = parseManifest(await readFile(file, "utf8"));
  return asAgent(async (client) =>
    findGaps(manifest, await readStoreCatalog(client, "app"), "app"),
  );
}

/** As its agent tells it: tables that are neither guarded nor in the manifest that was recorded. */
const forgotten = async () => (await asAgent(readUnclassed)).names;

const pids = () => cells.units().map((unit) => unit.status().pid);
const systemIdentifier = async () =>
  (await asApp("select system_identifier from pg_control_system()"))[0]?.["system_identifier"];

describe("a cell on this machine", () => {
  test("runs after create; created again it is left alone", async ({ expect }) => {
    const created = await cells.act(id, "create", { agentToken: "token-1" });
    expect(created).toMatchObject({ id, state: "running" });
    expect(created.services["default"]?.endpoints).toHaveLength(1);
    expect(created.stores["default"]?.database).toMatch(/^file:.*app-database-url$/);
    const before = pids();
    expect(await cells.act(id, "create", { agentToken: "token-1" })).toEqual(created);
    expect(pids()).toEqual(before);
  });

  test("serves its application as an ordinary role, behind the guard", async ({ expect }) => {
    await cells.act(id, "create", { agentToken: "token-1" });
    const [role] = await asApp(
      `select rolsuper, rolbypassrls, (select count(*)::int from pg_class where relowner = r.oid) as owns
         from pg_roles r where rolname = current_user`,
    );
    expect(role).toEqual({ rolsuper: false, rolbypassrls: false, owns: 0 });
    const write = asApp(
      "insert into idempotency (tenant_id, key, request_hash) values ('acme', 'k', 'h')",
    );
    await expect(write).rejects.toMatchObject({ code: expect.stringMatching(/^CF0/) });
  });

  test("has no table and no role that the guard does not hold", async ({ expect }) => {
    await cells.act(id, "create", { agentToken: "token-1" });
    expect(await gaps()).toEqual([]);
    expect(await forgotten()).toEqual([]);
  });

  test("that older code made is brought up to date when it starts", async ({ expect }) => {
    await cells.act(id, "create", { agentToken: "token-1" });
    const [{ port } = {}] = await asApp("select inet_server_port() as port");
    const password = (
      await readFile(join(folder.databases, "cells", id, "password"), "utf8")
    ).trim();
    const admin = new pg.Client(`postgres://postgres:${password}@127.0.0.1:${port}/app`);
    await admin.connect();
    await admin.query(
      "comment on database app is 'older'; drop trigger zz_cellfleet_guard on orders",
    );
    await admin.end();
    expect((await gaps()).length).toBeGreaterThan(0);
    expect(await forgotten()).toEqual(["public.orders (classed tenant, not guarded)"]);
    await cells.act(id, "stop");
    expect(await cells.act(id, "start")).toMatchObject({ state: "running" });
    expect(await gaps()).toEqual([]);
    expect(await forgotten()).toEqual([]);
  });

  test("stays dead after kill, and start brings it back on its own data", async ({ expect }) => {
    await cells.act(id, "create", { agentToken: "token-1" });
    const identifier = await systemIdentifier();
    expect(await cells.act(id, "kill")).toMatchObject({ state: "dead" });
    expect(pids()).toEqual([null, null, null]);
    expect(await cells.act(id, "start")).toMatchObject({ state: "running" });
    expect(await systemIdentifier()).toBe(identifier);
  });

  test("whose application dies from outside is reported dead, and not mended", async ({
    expect,
  }) => {
    await cells.act(id, "create", { agentToken: "token-1" });
    const app = must(
      cells.units().find((unit) => unit.name === "cell-01-app"),
      "the app",
    );
    process.kill(must(app.status().pid, "its pid"), "SIGKILL");
    while (cells.describe(id).state === "running") await systemClock.sleep(10);
    expect(cells.describe(id)).toMatchObject({
      state: "dead",
      text: "cell-01-app ended by itself: signal SIGKILL",
    });
    // Longer than the first pause of a unit that is started again.
    await systemClock.sleep(600);
    expect(cells.describe(id).state).toBe("dead");
    expect(await cells.act(id, "start")).toMatchObject({ state: "running" });
  });

  test("comes back from its folder, with another supervisor", async ({ expect }) => {
    const created = await cells.act(id, "create", { agentToken: "token-1" });
    const identifier = await systemIdentifier();
    await cells.stopAll();
    expect(cells.describe(id).state).toBe("stopped");
    cells = await open();
    expect(cells.ids()).toEqual([id]);
    const started = await cells.act(id, "start");
    // Routers and the control plane know these addresses.
    expect([started.services, started.stores]).toEqual([created.services, created.stores]);
    expect(await systemIdentifier()).toBe(identifier);
  });

  test("whose creation was cut short is created by the next attempt", async ({ expect }) => {
    await cells.act(id, "create", { agentToken: "token-1" });
    await cells.act(id, "kill");
    await rm(join(folder.databases, "cells", id, "made.json"));
    await rm(join(root, "cells", id, "cell.json"));
    cells = await open();
    expect(cells.describe(id).state).toBe("absent");
    expect(await cells.act(id, "create", { agentToken: "token-2" })).toMatchObject({
      state: "running",
    });
    expect(await asApp("select count(*)::int as orders from orders")).toEqual([{ orders: 0 }]);
  });

  test("leaves nothing behind when it is destroyed, twice", async ({ expect }) => {
    await cells.act(id, "create", { agentToken: "token-1" });
    expect(await cells.act(id, "destroy")).toMatchObject({ state: "absent" });
    expect(await cells.act(id, "destroy")).toMatchObject({ state: "absent" });
    expect(await readdir(join(root, "cells"))).toEqual([]);
    expect(cells.units()).toEqual([]);
  });
});
