/** `cellctl assess` against a real PostgreSQL with a shop's tables, load and bad habits. */
import pg from "pg";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { cellctl } from "../../cli/cli.fixture.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";

let server: TestPostgres;
let shop: pg.Client;
const closing: (() => Promise<unknown>)[] = [];

beforeAll(async () => {
  server = await startTestPostgres();
  const url = await server.createDatabase("shop");
  const postgres = new pg.Client(server.adminUrl);
  await postgres.connect();
  await postgres.query("alter system set shared_preload_libraries = 'pg_stat_statements'");
  await postgres.end();
  await server.restart("fast");
  shop = new pg.Client(url);
  await shop.connect();
  await shop.query(`
    create extension pg_stat_statements;
    create role onlooker login password '${server.password}';
    create table customers (id bigserial primary key, account_id bigint not null, name text);
    create table orders (id bigserial primary key, account_id bigint not null, item text) partition by range (id);
    create table orders_1 partition of orders for values from (0) to (60000);
    create table orders_2 partition of orders for values from (60000) to (1000000);
    create table "weird ""name" (account_id bigint, note text);
    create table countries (code text primary key);
    insert into customers (account_id, name) select n % 100, 'c' || n from generate_series(1, 1000) n;
    insert into orders (account_id, item)
      select case when n % 10 < 6 then 7 else n % 50 end, 'item' from generate_series(1, 100000) n;
    insert into "weird ""name" select 7, 'x' from generate_series(1, 1000);
    analyze;
    update customers set name = name || '!' where account_id = 3;`);
  // A session tells the statistics what it did in its own time, unless it is asked to.
  await shop.query("select pg_stat_force_next_flush()");
});
afterEach(async () => {
  for (const close of closing.splice(0).toReversed()) await close();
});
afterAll(async () => {
  await shop?.end();
  await server?.stop();
});

const assessmentSchema = z.object({
  id: z.string(),
  phase: z.string(),
  cellsNeeded: z.boolean(),
  symptoms: z.array(z.object({ id: z.string(), text: z.string() })),
  unseen: z.array(z.string()),
  hotTables: z.array(z.object({ table: z.string(), share: z.number() })),
  withoutKey: z.array(z.string()),
  withoutPrimaryKey: z.array(z.string()),
  facts: z.object({
    now: z
      .object({ rowsWritten: z.number(), walBytes: z.number(), seconds: z.number() })
      .nullable(),
    activity: z.object({ looks: z.number() }),
    tables: z.array(z.object({ name: z.string(), rows: z.number(), hasPrimaryKey: z.boolean() })),
    statements: z.array(z.object({ text: z.string(), calls: z.number() })).nullable(),
    replicas: z.array(z.object({ name: z.string(), state: z.string() })),
    idleSlots: z.array(z.object({ name: z.string() })),
    tenants: z
      .object({
        column: z.string(),
        how: z.string(),
        tenants: z.number().nullable(),
        rows: z.number(),
        top: z.array(z.object({ tenant: z.string(), rows: z.number(), share: z.number() })),
      })
      .nullable(),
  }),
});

const run = (...args: readonly string[]) =>
  cellctl(["assess", "env:SHOP", ...args], { env: { SHOP: server.url("shop") } });

async function look(...args: readonly string[]) {
  const { code, stdout, stderr } = await run("--sample", "0", ...args, "-o", "json");
  expect({ code, stderr: code === 0 ? "" : stderr }).toEqual({ code: 0, stderr: "" });
  return assessmentSchema.parse(JSON.parse(stdout));
}

async function connect(user?: string): Promise<pg.Client> {
  const client = new pg.Client(server.url("shop", user));
  client.on("error", () => {});
  await client.connect();
  closing.push(() => client.end());
  return client;
}

test("a small shop needs no cells, and is told so", async () => {
  const { id, phase, cellsNeeded } = await look("--cores", "4");
  expect({ id, phase, cellsNeeded }).toEqual({
    id: "shop",
    phase: "one-database",
    cellsNeeded: false,
  });
});

test("the key is guessed, and the largest tenant found without reading a row", async () => {
  const { facts } = await look();
  expect(facts.tenants).toMatchObject({ column: "account_id", how: "statistics", tenants: 100 });
  // 60,000 + 800 orders, 10 customers, 1,000 notes, by a sample of ANALYZE.
  expect(facts.tenants?.top[0]).toMatchObject({ tenant: "7" });
  expect(facts.tenants?.top[0]?.share).toBeGreaterThan(0.55);
  expect(facts.tenants?.top[0]?.share).toBeLessThan(0.65);
});

test("counted, every row is in the count, partitions once", async () => {
  const { facts } = await look("--exact");
  expect(facts.tenants).toMatchObject({ how: "exact", rows: 102_000, tenants: 100 });
  const { rows } = await shop.query(`select (select count(*) from orders where account_id = 7)
    + (select count(*) from customers where account_id = 7) + 1000 as rows`);
  expect(facts.tenants?.top[0]).toMatchObject({ tenant: "7", rows: Number(rows[0]?.rows) });
});

test("another column may be named; one that is not there is refused", async () => {
  expect((await look("--key-column", "code")).facts.tenants?.column).toBe("code");
  const { code, stdout, stderr } = await run("--key-column", "x'; drop table orders");
  expect({ code, stdout }).toEqual({ code: 78, stdout: "" });
  expect(stderr).toContain("no table of this database has a column");
});

test("tables: partitions count as their table, what has no primary key is seen", async () => {
  const { facts } = await look();
  expect(facts.tables.map(({ name }) => name).toSorted()).toEqual([
    "public.countries",
    "public.customers",
    "public.orders",
    'public.weird "name',
  ]);
  expect(facts.tables.find(({ name }) => name === "public.orders")?.rows).toBe(100_000);
  const keyless = facts.tables.filter(({ hasPrimaryKey }) => !hasPrimaryKey);
  expect(keyless.map(({ name }) => name)).toEqual(['public.weird "name']);
});

test("what has no key is named, and the busiest table first", async () => {
  const found = await look();
  expect(found.withoutKey).toEqual(["public.countries"]);
  expect(found.withoutPrimaryKey).toEqual(['public.weird "name']);
  expect(found.hotTables[0]).toMatchObject({ table: "public.orders" });
  expect(found.hotTables[0]?.share).toBeGreaterThan(0.9);
});

test("a name with a terminal's commands in it stays text", async () => {
  await shop.query(`create table U&"evil\\001b[31m" (account_id bigint)`);
  closing.push(() => shop.query(`drop table U&"evil\\001b[31m"`));
  const { stdout } = await run("--sample", "0");
  expect(stdout).toContain("evil\\x1b[31m");
  expect(stdout).not.toContain("\u001b");
});

test("two samples tell what is written meanwhile", async () => {
  const writer = await connect();
  let goes = true;
  const writing = (async () => {
    while (goes)
      await writer.query(
        "insert into countries select gen_random_uuid() from generate_series(1, 50)",
      );
  })();
  // Counters of a session reach the statistics about once a second.
  const { stdout } = await run("--sample", "2500ms", "--cores", "2", "-o", "json");
  goes = false;
  await writing;
  const { facts } = assessmentSchema.parse(JSON.parse(stdout));
  expect(facts.now?.rowsWritten).toBeGreaterThan(0);
  expect(facts.now?.walBytes).toBeGreaterThan(0);
  expect(facts.activity.looks).toBeGreaterThan(2);
});

test("statements are told where they are counted", async () => {
  for (let n = 0; n < 20; n += 1)
    await shop.query("select count(*) from orders where item = 'none'");
  const { facts } = await look();
  expect(facts.statements?.some(({ text }) => text.includes("from orders where item ="))).toBe(
    true,
  );
});

test("a subscriber counts as a replica; a slot that nobody reads is found", async () => {
  await server.createDatabase("copy");
  const copy = new pg.Client(server.url("copy"));
  await copy.connect();
  await copy.query("create table countries (code text primary key)");
  await shop.query("create publication p for table countries");
  await shop.query("select pg_create_logical_replication_slot('reader', 'pgoutput')");
  await shop.query("select pg_create_logical_replication_slot('forgotten', 'pgoutput')");
  await copy.query(`create subscription reader connection '${server.url("shop")}' publication p
                    with (create_slot = false, copy_data = false, slot_name = 'reader')`);
  closing.push(async () => {
    await copy.query("drop subscription reader");
    await copy.end();
    await shop.query("select pg_drop_replication_slot('forgotten'); drop publication p");
  });
  await expect
    .poll(async () => (await look()).facts.replicas)
    .toMatchObject([{ name: "reader", state: "streaming" }]);
  expect((await look()).facts.idleSlots).toMatchObject([{ name: "forgotten" }]);
});

test("a login that may only connect gets an answer, and is told what it could not see", async () => {
  const { code, stdout } = await cellctl(["assess", "env:U", "--sample", "0", "-o", "json"], {
    env: { U: server.url("shop", "onlooker") },
  });
  expect(code).toBe(0);
  const { unseen, facts } = assessmentSchema.parse(JSON.parse(stdout));
  expect(unseen.join("\n")).toContain("pg_monitor");
  expect(facts.tables).toHaveLength(4);
  // Statistics of columns that it may not read are hidden from it.
  expect(facts.tenants?.top).toEqual([]);
});

test("nothing is changed, and the page says where it stands", async () => {
  const before = await shop.query("select count(*) from pg_class");
  const { code, stdout } = await run("--sample", "0", "--cores", "8");
  expect(code).toBe(0);
  for (const words of [
    "No cells needed",
    "phase: one-database",
    "connections      ░",
    "account_id: guessed: 3 of 4 tables have the column account_id",
    'public.weird "name',
    "Not seen",
  ]) {
    expect(stdout).toContain(words);
  }
  expect(stdout.split("\n").every((line) => line.trimEnd() === line)).toBe(true);
  expect((await shop.query("select count(*) from pg_class")).rows).toEqual(before.rows);
});

describe("what hurts is found in the act", () => {
  test("a session that waits for a lock, and the one that sleeps on it", async () => {
    const holder = await connect();
    await holder.query("begin; lock table customers in access exclusive mode");
    const waiter = await connect();
    const waiting = waiter.query("select count(*) from customers").catch(() => undefined);
    closing.push(async () => {
      await holder.query("rollback");
      await waiting;
    });
    const seen = z.object({
      facts: z.object({
        activity: z.object({ waitingForLocks: z.number(), idleInTransaction: z.number() }),
      }),
    });
    // The sizes of a table that is locked are not waited for, either.
    await expect
      .poll(async () => {
        const { stdout } = await run("--sample", "0", "-o", "json");
        return seen.parse(JSON.parse(stdout)).facts.activity;
      })
      .toMatchObject({ waitingForLocks: 1, idleInTransaction: 1 });
  });
});

test.each([
  [[], "name the database"],
  [["env:A", "--database-url", "env:A"], "once"],
  [["env:A", "--cores", "many"], "must be a number of processors"],
  [["env:A", "--sample", "2 days"], "must be a time"],
])("%j is no command", async (args, words) => {
  const { code, stdout, stderr } = await cellctl(["assess", ...args]);
  expect({ code, stdout }).toEqual({ code: 64, stdout: "" });
  expect(stderr).toContain(words);
});
