/** `cellctl schema …` as people type it, on a real database that knows nothing of cells. */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createShop, type Shop } from "../adoption/schema/shop.fixture.ts";
import { readFacts } from "../cell/store/facts.ts";
import { setLease } from "../cell/store/lease.ts";
import { startTestPostgres, type TestPostgres } from "../tests/postgres.ts";
import { cellctl, startStub } from "./cli.fixture.ts";
import { sampleCell } from "./samples.fixture.ts";

let server: TestPostgres;
let shop: Shop;
let folder: string;

beforeAll(async () => {
  server = await startTestPostgres();
  shop = await createShop(server, "shop", { accounts: 20, orders: 400, items: 2000 });
  folder = await mkdtemp(join(tmpdir(), "cellctl-schema-"));
});
afterAll(async () => {
  await shop.close();
  await server.stop();
  await rm(folder, { recursive: true, force: true });
});

const run = (...words: readonly string[]) =>
  cellctl(["schema", ...words], {
    cwd: folder,
    env: { SHOP: shop.url, PATH: process.env["PATH"] ?? "" },
  });
const database = ["--database-url", "env:SHOP"];

test("an address written out works, with a word about who can read its password", async () => {
  const spoken = await run("init", "--database-url", shop.url);
  expect(spoken.code).toBe(0);
  expect(spoken.stderr).toContain("list of processes");
  expect(spoken.stderr + spoken.stdout).not.toContain(server.password);
  expect((await run("init", "--database-url", "nonsense")).code).toBe(64);
});

test("init proposes a manifest with its reasons, and does not write over one", async () => {
  const first = await run("init", ...database, "--out", "cellfleet.schema.yaml");
  expect(first).toMatchObject({ code: 0, stdout: "" });
  expect(await readFile(join(folder, "cellfleet.schema.yaml"), "utf8")).toMatchSnapshot();
  const again = await run("init", ...database, "--out", "cellfleet.schema.yaml");
  expect(again.code).toBe(64);
  expect(again.stderr).toContain("--overwrite");
});

test("check before anything is installed: what install will do is no fault, the rest is", async () => {
  const people = await run("check", ...database);
  expect(people.stdout).toMatchSnapshot();
  const { code, stdout, stderr } = await run("check", ...database, "-o", "json");
  const items = JSON.parse(stdout).items;
  expect(Object.keys(items[0])).toEqual([
    "id",
    "code",
    "severity",
    "object",
    "text",
    "mend",
    "mendedBy",
  ]);
  expect({ code, people: people.code }).toEqual({ code: 0, people: 0 });
  expect(stderr).not.toContain("SCHEMA_UNFIT");
  const strict = await run("check", ...database, "--strict");
  expect(strict.code).toBe(4);
  expect(strict.stderr).toContain("SCHEMA_UNFIT");
});

test("the application's role is asked for and must be there; who else reads is told, none is made", async () => {
  const words = ["install", ...database, "--cell", "cell-01"];
  await shop.admin.query(
    "create role bi login; grant select on orders to bi; grant usage on schema public to bi",
  );
  const missing = await run(...words);
  expect(missing.code).toBe(64);
  expect(missing.stderr).toContain("--app-role is missing");
  expect(missing.stderr).toContain("--app-role shop_web");
  const typo = await run(...words, "--app-role", "shop_wbe");
  expect(typo.code).toBe(64);
  expect(typo.stderr).toContain("--app-role shop_wbe: this database server has no such role");
  expect(typo.stderr).toContain("--app-role bi   (has rights on public.orders)");
  const checked = await run("check", ...database, "--app-role", "shop_wbe");
  expect(checked.code).toBe(64);
  expect(checked.stderr).toContain("--app-role shop_web ");
  const found = await shop.admin.query(
    "select to_regclass('cellfleet.pack') as pack, (select count(*)::integer from pg_roles where rolname ~ '^(shop_wbe|cellfleet)') as made",
  );
  expect(found.rows).toEqual([{ pack: null, made: 0 }]);

  const dry = await run(...words, "--app-role", "shop_web", "--dry-run");
  expect(dry.code).toBe(0);
  expect(dry.stderr).toContain("bi also has rights on public.orders: it is filtered");
  expect(dry.stderr).not.toContain("shop_web also");
  expect(dry.stderr).not.toContain("shop_owner also");
});

test("install --dry-run prints the SQL and changes nothing; install does it; check finds nothing more", async () => {
  const words = [
    "install",
    ...database,
    "--cell",
    "cell-01",
    "--app-role",
    "shop_web",
    "--agent-role",
    "shop_agent",
  ];
  const dry = await run(...words, "--dry-run");
  expect(dry.code).toBe(0);
  expect(dry.stdout).toContain("set local lock_timeout = '50ms'");
  // The pack is asked although it is not there, and is not there afterwards.
  expect(dry.stdout).toContain("create or replace trigger zz_cellfleet_guard");
  expect(dry.stdout).toContain('add column if not exists "account_id" bigint');
  const before = await shop.admin.query("select where to_regclass('cellfleet.pack') is not null");
  expect(before.rows).toEqual([]);

  const real = await run(...words);
  expect(real).toMatchObject({ code: 0, stdout: "" });
  expect(real.stderr).toContain("users_email_key");
  const after = await run("check", ...database, "-o", "json");
  const found = JSON.parse(after.stdout).items.map((item: { code: string }) => item.code);
  expect(found).not.toContain("GUARD_MISSING");
  expect(found).not.toContain("KEY_COLUMN_MISSING");

  const plan = await run(...words, "--dry-run", "-o", "json");
  expect(JSON.parse(plan.stdout).steps).toEqual([]);
  // What is told is where the cell has come to, not what was asked for.
  const again = await run(...words, "--stage", "enforce");
  expect(again.stderr).toContain("in stage observe");
});

test("apply runs the team's tool, guards what is new, records the version, and skips it next time", async () => {
  const words = [
    ...[
      "apply",
      "--cells",
      "cell-01",
      "--database-url",
      "cell-01=env:SHOP",
      "--schema-version",
      "2",
    ],
    ...["--manifest", "cellfleet.schema.yaml"],
  ];
  await writeFile(join(folder, "migrate.mjs"), migration);
  const command = ["--command", `${process.execPath} migrate.mjs`];
  const forgotten = await run(...words, ...command);
  expect(forgotten.code).toBe(4);
  expect(forgotten.stderr).toContain("cell-01 | migrating cell-01");
  expect(forgotten.stderr).toContain("public.refunds");

  const manifest = await readFile(join(folder, "cellfleet.schema.yaml"), "utf8");
  await writeFile(
    join(folder, "cellfleet.schema.yaml"),
    manifest.replace("tables:", "tables:\n  refunds: tenant"),
  );
  expect(await run(...words, ...command)).toMatchObject({ code: 0, stdout: "" });
  const { rows } = await shop.admin.query(
    "select (select version from cellfleet.store_version) as version, count(*)::integer as guarded from cellfleet.guarded_table where table_name = 'refunds'",
  );
  expect(rows).toEqual([{ version: "2", guarded: 1 }]);

  const again = await run(...words, "--command", "echo must not run; false", "-o", "json");
  expect(again.code).toBe(0);
  expect(JSON.parse(again.stdout)).toMatchObject({ done: [], skipped: ["cell-01"] });
});

test("apply halts at the first failure and names what is done, what is not, and how to go on", async () => {
  const words = [
    ...[
      "apply",
      "--cells",
      "cell-01,cell-02",
      "--database-url",
      "cell-01=env:SHOP",
      "--database-url",
      "cell-02=env:SHOP",
    ],
    ...["--schema-version", "3", "--command", "echo half way; exit 3"],
  ];
  const { code, stderr } = await run(...words);
  expect(code).toBe(1);
  expect(stderr).toContain("cell-01 | half way");
  expect(stderr).toContain("exit code 3");
  expect(stderr).toContain("not begun: cell-02");
  expect(stderr).toContain("--cells cell-01,cell-02");
});

const standby = (id: string, origin: string, state: string) => ({
  ...{ id, origin, state, host: "cell-01", provider: "logical", buckets: { lo: 0, hi: 255 } },
  ...{ reason: "", lagBytes: null, lagSeconds: null, keys: 0, warm: false },
});

test("apply asks the fleet for its cells and their databases: canary, then rings, never a retired one", async () => {
  const stores = { default: { database: "env:SHOP", keyColumn: "account_id" } };
  const cells = ["cell-03", "cell-01", "cell-02"].map((id) => sampleCell(id, { stores }));
  let standbys = [standby("sb-02", "cell-02", "ready"), standby("sb-03", "cell-03", "dropping")];
  const fleet = await startStub({
    "GET /v1/cells": () => ({
      body: { items: [...cells, sampleCell("cell-00", { state: "retired" })], next: null },
    }),
    "GET /v1/standbys": () => ({
      body: { items: standbys, next: null },
    }),
    "GET /v1/cells/sb-02": () => ({ body: sampleCell("sb-02", { stores }) }),
  });
  const words = ["schema", "apply", "--canary", "cell-02", "--ring-size", "2", "--command", "true"];
  const env = { ...fleet.env, SHOP: shop.url, PATH: process.env["PATH"] ?? "" };
  const order = await cellctl([...words, "--dry-run"], { env });
  expect(order).toMatchObject({
    code: 0,
    stdout: "canary: sb-02, cell-02\nring 1: cell-01, cell-03\n",
  });

  // All three lead to cell-01's database: the canary is refused, and nobody after it is begun.
  standbys = [];
  const real = await cellctl([...words, "-o", "json"], { env });
  await fleet.close();
  expect(real.code).toBe(78);
  expect(JSON.parse(real.stdout)).toMatchObject({
    done: [],
    failed: [
      { cell: "cell-02", message: "The reference for cell-02 leads to the database of cell-01" },
    ],
    notBegun: ["cell-01", "cell-03"],
  });
});

test("uninstall waits for pass-through, then takes all off and says what stays", async () => {
  const { clock, boot } = await readFacts(shop.admin);
  await setLease(shop.admin, { grant: 1, clock, boot, ttlMs: 600_000, holder: "agent" });
  const refused = await run("uninstall", ...database);
  expect(refused.code).toBe(4);
  expect(refused.stderr).toContain("cellctl cell stage cell-01 pass-through");
  const done = await run("uninstall", ...database, "--force");
  expect(done).toMatchObject({ code: 0, stdout: "" });
  expect(done.stderr).toContain("What stays");
});

const migration = `import pg from ${JSON.stringify(import.meta.resolve("pg"))};
console.log("migrating " + process.env.CELL_ID);
const client = new pg.Client(process.env.DATABASE_URL);
await client.connect();
await client.query("create table if not exists refunds (id bigserial primary key, account_id bigint not null, total integer)");
await client.end();
`;
