/** An annex in a cell of this machine, from nothing to nothing: real PostgreSQL, agent and application. */
import { access, mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { afterAll, beforeAll, describe, type ExpectStatic, test } from "vitest";
import { headers } from "../contract/headers.ts";
import { type CellId, parseCellId } from "../contract/ids.ts";
import type { ProvidedCell } from "../contract/provider-api.ts";
import { must } from "../runtime/assert.ts";
import { systemClock } from "../runtime/clock.ts";
import { systemRandom } from "../runtime/random.ts";
import { type LocalCells, openCells } from "./cell-processes.ts";
import { type DataFolder, openDataFolder } from "./data-folder.ts";
import { keepSigningKey } from "./fleet-units.ts";
import { findPostgres, type Installation } from "./postgres/binaries.ts";
import { childrenOf, commandLine } from "./process-identity.ts";
import { sampleApplication } from "./sample-application.ts";

const id = (text: string): CellId => must(parseCellId(text), "a cell id");
const host = id("cell-02");
const annex = id("sb-cell-01-cell-02");
const successor = id("sb-cell-01-cell-02-2");
const database = "app__sb_cell_01_cell_02";
const given = {
  agentToken: "token-2",
  annex: { origin: id("cell-01"), host, provider: "logical" },
} as const;

let root: string;
let folder: DataFolder;
let installation: Installation;
let cells: LocalCells;

const open = async () =>
  openCells({
    folder,
    tools: { installation, clock: systemClock, random: systemRandom },
    // Nobody there: annexes start and live without a control plane.
    application: await sampleApplication(),
    controlPlaneUrl: "http://127.0.0.1:9",
    env: { PATH: process.env["PATH"] ?? "" },
    onChange: () => {},
  });

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "cellfleet-annex-"));
  installation = await findPostgres({ env: process.env, random: systemRandom });
  folder = await openDataFolder(root, installation.runAs, systemRandom);
  await keepSigningKey(folder);
  cells = await open();
  await cells.act(host, "create", { agentToken: "token-1" });
  await cells.wakeAnnexes();
});
afterAll(async () => {
  await cells?.stopAll();
  await rm(root, { recursive: true, force: true });
});

const asRole = async <T>(url: string, work: (client: pg.Client) => Promise<T>): Promise<T> => {
  const client = new pg.Client(url);
  client.on("error", () => {});
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
};
async function asSuperuser<T>(name: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const password = await readFile(join(folder.databases, "cells", host, "password"), "utf8");
  const { port } = new URL(must(cells.logins(host), "logins").app);
  return asRole(`postgres://postgres:${password.trim()}@127.0.0.1:${port}/${name}`, work);
}
const databases = () =>
  asSuperuser("postgres", async (client) => {
    const { rows } = await client.query<{ datname: string }>(
      "select datname from pg_database where datname like 'app%' order by 1",
    );
    return rows.map(({ datname }) => datname);
  });

async function until(condition: () => boolean): Promise<void> {
  const deadline = systemClock.monotonicMs() + 30_000;
  while (!condition()) {
    if (systemClock.monotonicMs() > deadline) throw new Error("did not happen");
    await systemClock.sleep(10);
  }
}
const titlesUnder = (pid: number) =>
  childrenOf(pid)
    .map(({ pid: child }) => commandLine(child))
    .join("\n");
const names = () => cells.units().map((unit) => unit.name);
const gateOf = (cell: ProvidedCell) => must(cell.services["default"]?.endpoints[0], "a gate");

/** The application runs; neither the gate nor the database lets anybody work: the annex owns nothing. */
async function expectServing(expect: ExpectStatic): Promise<void> {
  const described = cells.describe(annex);
  expect(described).toMatchObject({ state: "running", serving: true, provedDead: false });
  const answer = await fetch(`${gateOf(described)}/whoami`, {
    headers: { [headers.tenant]: "acme", [headers.cell]: annex },
  });
  expect([answer.status, answer.headers.get(headers.answeredBy)]).toEqual([403, "cell"]);
  const url = await urlAt(described.stores["default"]?.database);
  const write = asRole(url, (client) =>
    client.query("insert into idempotency (tenant_id, key, request_hash) values ('a', 'k', 'h')"),
  );
  await expect(write).rejects.toMatchObject({ code: expect.stringMatching(/^CF0/) });
}

const urlAt = async (reference: string | undefined): Promise<string> =>
  (await readFile(must(reference, "a reference").replace("file:", ""), "utf8")).trim();

describe("an annex", () => {
  test("has databases like a cell's under a name of its own, and an agent", async ({ expect }) => {
    const created = await cells.act(annex, "create", given);
    expect(created).toMatchObject({ id: annex, state: "running", serving: false });
    expect(created.stores["default"]?.mover).toMatch(/^file:.*sb-cell-01-cell-02.*mover-default/);
    // Asked again, it is left alone.
    const units = cells.units().map((unit) => unit.status());
    expect(await cells.act(annex, "create", given)).toEqual(created);
    expect(cells.units().map((unit) => unit.status())).toEqual(units);

    expect(cells.ids()).toEqual([host]);
    expect(names()).toEqual(["cell-02-db", "cell-02-app", "cell-02-agent", `${annex}-agent`]);
    const url = await urlAt(created.stores["default"]?.mover);
    const text = "select current_database() as name, cell from cellfleet.progress";
    const whose = await asRole(url, async (client) => (await client.query(text)).rows);
    expect(whose).toEqual([{ name: database, cell: annex }]);
    const tables = (name: string) =>
      asSuperuser(name, async (client) => {
        const text = `select c.oid::regclass::text as name, count(t.oid)::int as triggers
          from pg_class c left join pg_trigger t on t.tgrelid = c.oid
          where c.relkind = 'r' and c.relnamespace = 'public'::regnamespace group by 1 order by 1`;
        return (await client.query(text)).rows;
      });
    expect(await tables(database)).toEqual(await tables("app"));
  });

  test("serves when it is told to, and is refused without ownership", async ({ expect }) => {
    await cells.act(annex, "serve");
    expect(names()).toContain(`${annex}-app`);
    await expectServing(expect);
  });

  test("dies with its host, proved, and comes back with it, also with another supervisor", async ({
    expect,
  }) => {
    const before = cells.describe(annex);
    await cells.act(host, "kill");
    expect(cells.units().map((unit) => unit.status().pid)).toEqual([null, null, null, null, null]);
    expect(cells.describe(host)).toMatchObject({ state: "dead", provedDead: true });
    expect(cells.describe(annex)).toMatchObject({ state: "dead", provedDead: true });
    await expect(cells.act(annex, "start")).rejects.toMatchObject({ code: "PROVIDER_FAILED" });
    cells = await open();
    await cells.act(host, "start");
    await until(() => cells.describe(annex).state === "running");
    await expectServing(expect);
    expect(cells.describe(annex)).toEqual(before);
    await cells.act(annex, "rest");
    expect(cells.describe(annex)).toMatchObject({ state: "running", serving: false });
    expect(names()).not.toContain(`${annex}-app`);
  });

  test("is not proved dead with a backend that outlived the postmaster", async ({ expect }) => {
    const server = must(
      cells.units().find(({ name }) => name === "cell-02-db"),
      "its server",
    );
    const busy = asSuperuser(database, (client) =>
      client.query("do $$ begin loop perform 1; end loop; end $$"),
    ).catch(() => "cut off");
    await until(() => / DO$/m.test(titlesUnder(must(server.status().pid, "a pid"))));
    process.kill(must(server.status().pid, "a pid"), "SIGKILL");
    for (const unit of cells.units().filter((one) => one !== server)) await unit.kill();
    await until(() => server.status().state === "dead");
    expect(cells.describe(host)).toMatchObject({ state: "dead", provedDead: false });
    expect(cells.describe(annex)).toMatchObject({ state: "dead", provedDead: false });
    await cells.act(host, "kill");
    expect(cells.describe(host).provedDead).toBe(true);
    expect(cells.describe(annex).provedDead).toBe(true);
    expect(await busy).toBe("cut off");
  });

  test("leaves nothing behind when it is destroyed, streams or not", async ({ expect }) => {
    // Its host is down: gone for everybody, and its databases go when that is back.
    expect(await cells.act(annex, "destroy")).toMatchObject({ state: "absent" });
    await cells.act(host, "start");
    expect(await databases()).toEqual(["app", database]);
    await cells.wakeAnnexes();
    expect(await databases()).toEqual(["app"]);

    await cells.act(successor, "create", given);
    await asSuperuser(`${database}_2`, async (client) => {
      await client.query("select pg_create_logical_replication_slot('mv_x', 'pgoutput')");
      await client.query(
        "create subscription sb_x connection 'dbname=nowhere' publication p with (connect = false)",
      );
    });
    expect(await cells.act(successor, "destroy")).toMatchObject({ state: "absent" });
    expect(await cells.act(successor, "destroy")).toMatchObject({ state: "absent" });
    expect(await databases()).toEqual(["app"]);
    expect(await readdir(join(root, "cells", host, "annexes"))).toEqual([]);
    expect(names()).toEqual(["cell-02-db", "cell-02-app", "cell-02-agent"]);
  });

  test("goes when its host is destroyed", async ({ expect }) => {
    await cells.act(annex, "create", given);
    await cells.act(host, "destroy");
    expect(cells.units()).toEqual([]);
    expect(cells.describe(annex).state).toBe("absent");
    await expect(access(join(root, "cells", host))).rejects.toThrow();
  });
});
