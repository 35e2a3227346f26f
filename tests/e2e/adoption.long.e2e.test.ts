/**
 * A company's shop becomes cell-01 while its customers go on ordering, and a second cell opens beside
 * it: every stage forth and back, under load, with 0 failed requests and 0 wrong rows. The shop runs
 * as it ran before; only its front door moves.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startFleet, type TestFleet, until } from "../fleet.ts";
import { freePort, type PlainShop, startPlainShop, withClient } from "../plain-shop.ts";
import { type ShopLoad, startShopLoad } from "../shop-load.ts";

const root = resolve(import.meta.dirname, "..", "..");
const app = join(root, "examples", "shop", "cellfleet.yaml");
const manifest = join(root, "examples", "shop", "cellfleet.schema.yaml");
const newcomers = Array.from({ length: 6 }, (_, index) => `newcomer-${index + 1}`);

let shop: PlainShop;
let fleet: TestFleet;
let load: ShopLoad;
let secrets: string;
type Row = { readonly account_id: string; readonly item: string };
const orders = "select account_id, item from order_lines where item like '%|%'";
let inSecondCell: readonly Row[] = [];
const agents: ChildProcess[] = [];

beforeAll(async () => {
  secrets = await mkdtemp(join(tmpdir(), "cellfleet-adoption-"));
  shop = await startPlainShop({ accounts: 400 });
  fleet = await startFleet({ cells: 0, flags: ["--no-demo"], app });
});
afterAll(async () => {
  await load?.stop();
  await Promise.allSettled([...agents.map(end), fleet?.stop()]);
  await shop?.stop();
  await rm(secrets, { recursive: true, force: true });
});

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = once(child, "exit");
  child.kill("SIGTERM");
  const late = setTimeout(() => child.kill("SIGKILL"), 10_000);
  await gone;
  clearTimeout(late);
}

/** A secret in a file of its own: what commands are given is the reference. */
async function secret(name: string, value: string): Promise<string> {
  const file = join(secrets, name);
  await writeFile(file, `${value}\n`, { mode: 0o600 });
  return `file:${file}`;
}

/** So many requests were answered since, so that the stage is seen by customers and not only by us. */
async function flows(stage: string, requests = 150): Promise<void> {
  load.say(stage);
  const before = load.counts().done;
  const enough = () => load.counts().done >= before + requests || load.failures().length > 0;
  await until(`customers are served: ${stage}`, enough, 60_000);
  expect(load.failures()).toEqual([]);
}

async function startAgent(databaseUrl: string, token: string): Promise<void> {
  const [gate, admin] = [await freePort(), await freePort()];
  const upstreams = [
    ...shop.web.map((url) => `web=${url}`),
    ...shop.api.map((url) => `api=${url}`),
  ].flatMap((upstream) => ["--upstream", upstream]);
  const { controlPlane } = await fleet.endpoints();
  const child = spawn(
    process.execPath,
    [
      join(root, "bin", "cellctl.js"),
      ...["agent", "--cell", "cell-01", "--control-plane", controlPlane],
      ...["--listen", `127.0.0.1:${gate}`, "--admin", `127.0.0.1:${admin}`],
      ...["--database-url", databaseUrl, "--token", token, ...upstreams],
    ],
    { stdio: ["ignore", "ignore", "inherit"] },
  );
  agents.push(child);
  const ready = () =>
    fetch(`http://127.0.0.1:${admin}/readyz`).then(
      (response) => response.ok,
      () => false,
    );
  await until("the agent is ready", ready, 60_000);
}

/** Does what `schema check` says, word for word, until it finds nothing. */
async function mend(database: readonly string[]): Promise<void> {
  const found = await fleet.cli("schema", "check", ...database, "-o", "json");
  const { items } = JSON.parse(found.stdout) as { items: { mend: string; mendedBy: string }[] };
  await withClient(shop.ownerUrl, async (client) => {
    for (const finding of items) await client.query(finding.mend);
  });
  const again = await fleet.cli("schema", "check", ...database);
  expect(again.code, again.stdout).toBe(0);
}

const stageOf = async (): Promise<unknown> =>
  (await fleet.cliJson("cell", "get", "cell-01"))["stage"];

async function toStage(stage: string, ...more: string[]): Promise<void> {
  load.say(`on the way to ${stage}`);
  await fleet.cliJson("cell", "stage", "cell-01", stage, ...more, "--reason", "adoption", "--yes");
  await flows(stage);
}

test("a running shop becomes a cell, forth and back, and no customer notices", {
  timeout: 300_000,
}, async () => {
  const reference = await secret("owner", shop.ownerUrl);
  const adopt = [
    ...shop.web.flatMap((url) => ["--service", `web=${url}`]),
    ...shop.api.flatMap((url) => ["--service", `api=${url}`]),
    ...["--database-url-ref", reference, "--key-column", "account_id"],
  ];
  await fleet.cliJson("cell", "adopt", "cell-01", ...adopt, "--reason", "day one", "--wait");

  load = startShopLoad({
    router: (await fleet.endpoints()).router,
    accounts: shop.accounts,
    customers: 12,
    requestsPerSecond: 120,
  });
  await flows("pass-through");
  const lobby = await fetch((await fleet.endpoints()).router);
  expect(lobby.status, "a page for nobody in particular, as before").toBe(200);

  load.say("installing the guard");
  const database = ["--database-url", reference, "--manifest", manifest];
  const roles = ["--app-role", "shop", "--app-owner-role", "shop_owner"];
  const installed = await fleet.cli(
    "schema",
    "install",
    ...database,
    ...roles,
    "--cell",
    "cell-01",
  );
  expect(installed.code, installed.stderr).toBe(0);
  await mend([...database, "--app-role", "shop"]);
  await flows("guard installed");

  load.say("starting agents");
  const { password } = shop.postgres;
  await withClient(shop.ownerUrl, (client) =>
    client.query(`alter role cellfleet_agent password '${password}'`),
  );
  const created = await fleet.cliJson(
    ...["token", "create", "cell-01-agent", "--role", "agent", "--subject", "cell-01"],
  );
  const token = await secret("token", String(created["secret"]));
  const agentUrl = await secret("agent", shop.postgres.url("shop", "cellfleet_agent"));
  await startAgent(agentUrl, token);
  await startAgent(agentUrl, token);

  const health = async () => (await fleet.cliJson("cell", "get", "cell-01"))["health"];
  await until(
    "the control plane has heard of the agents",
    async () => (await health()) === "healthy",
  );

  load.say("importing tenants");
  const query = ["--from-query", "select id from accounts", "--cell", "cell-01"];
  const imported = await fleet.cliJson("tenant", "import", ...query);
  expect(imported["accepted"]).toBe(shop.accounts.length);

  await toStage("observe");
  expect(await stageOf()).toBe("observe");
  await toStage("pass-through");
  await toStage("observe");
  await toStage("enforce", "--accept-refusals");
  await toStage("observe");
  await toStage("enforce", "--accept-refusals");

  load.say("opening a second cell");
  await fleet.cliJson("cell", "create", "cell-02", "--wait");
  const file = join(secrets, "newcomers.ndjson");
  const lines = newcomers.map((id) => JSON.stringify({ id, cell: "cell-02" })).join("\n");
  await writeFile(file, `${lines}\n`);
  await fleet.cliJson("tenant", "import", file);
  load.add(newcomers);
  await flows("two cells", 600);
  const back = await fleet.cli("cell", "stage", "cell-01", "observe");
  expect(back.code, "with two owners nothing may pass unchecked").not.toBe(0);

  load.remove(newcomers);
  await flows("the newcomers have gone");
  inSecondCell = await rowsOfSecondCell();
  for (const id of newcomers) await fleet.cliJson("tenant", "delete", id, "--yes");
  await fleet.cliJson("cell", "destroy", "cell-02", "--yes");
  await toStage("observe");
  await toStage("pass-through");
});

async function rowsOfSecondCell(): Promise<readonly Row[]> {
  const { database } = (await fleet.endpoints()).cells["cell-02"] ?? { database: "" };
  const url = new URL(database);
  url.username = "postgres";
  const passwordFile = join(fleet.dataDir, "cells", "cell-02", "password");
  url.password = (await readFile(passwordFile, "utf8")).trim();
  return withClient(url.href, async (client) => (await client.query<Row>(orders)).rows);
}

test("what customers were told is what stands there, once, and nowhere else", async () => {
  await load.stop();
  expect(load.failures()).toEqual([]);
  const rows = new Map<string, string[]>();
  const note = (cell: string, found: readonly Row[]) => {
    for (const { account_id, item } of found) {
      rows.set(item, [...(rows.get(item) ?? []), `${cell}/${account_id}`]);
    }
  };
  note("cell-01", await shop.read<Row>(orders));
  note("cell-02", inSecondCell);

  const wrong: string[] = [];
  for (const [account, items] of load.acknowledged()) {
    const cell = newcomers.includes(account) ? "cell-02" : "cell-01";
    for (const item of items) {
      const found = rows.get(item) ?? [];
      if (found.join() !== `${cell}/${account}`) wrong.push(`${item}: ${found.join()}`);
    }
  }
  expect(wrong).toEqual([]);
  expect(load.counts().acknowledged).toBeGreaterThan(400);
});
