/** `schema install` where it is harder: partitions, no superuser, keys that may be null, strange names. */
import type { Client } from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { readFacts } from "../../cell/store/facts.ts";
import { addIdRange } from "../../cell/store/id-ranges.ts";
import { expireLease, setLease } from "../../cell/store/lease.ts";
import type { Manifest } from "../../cell/store/manifest.ts";
import { parseManifest } from "../../cell/store/manifest.ts";
import { openClient } from "../../tests/cell-store.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import { readAppCatalog } from "./app-catalog.ts";
import { checkSchema } from "./check.ts";
import { initManifest } from "./init.ts";
import { chooseRoles, planInstallation, runInstallation } from "./install.ts";
import { lockLimitsDefault } from "./lock-bounded.ts";
import { createShop, installRun, shopManifest } from "./shop.fixture.ts";
import { runRemoval } from "./uninstall.ts";

let server: TestPostgres;

beforeAll(async () => {
  server = await startTestPostgres();
});
afterAll(async () => {
  await server.stop();
});

const size = { accounts: 5, orders: 50, items: 100 };

async function lease(client: Client): Promise<void> {
  const { clock, boot } = await readFacts(client);
  await setLease(client, { grant: 1, clock, boot, ttlMs: 60_000, holder: "agent" });
}

async function install(url: string, manifest: Manifest = shopManifest) {
  const { run, database, events } = await installRun(url, { manifest });
  const advice = await runInstallation(run);
  const left = (await planInstallation(run)).steps.map(({ id }) => id);
  await database.close();
  return { advice, left, events };
}

test("a deploy role that owns the tables and may create roles needs no superuser", async () => {
  const admin = await openClient(server.adminUrl);
  await admin.query(`create role deploy login createrole password '${server.password}'`);
  await admin.query("create database managed owner deploy");
  await admin.end();
  const url = server.url("managed", "deploy");
  const deploy = await openClient(url);
  await deploy.query(
    `create table accounts (id bigserial primary key, name text);
     create table users (id bigserial primary key, account_id bigint not null references accounts (id));
     create table notes (id bigserial primary key, user_id bigint not null references users (id), body text);
     insert into accounts (name) values ('one'), ('two'); insert into users (account_id) values (1), (2);
     insert into notes (user_id, body) values (1, 'a'), (2, 'b'), (2, 'c')`,
  );
  const manifest = parseManifest(
    "keyColumn: account_id\ntables: {accounts: {class: tenant, keyColumn: id}, users: tenant, notes: tenant}",
  );
  await deploy.query("create role managed_app login");
  const none = { appOwnerRole: undefined, agentRole: undefined, readerRole: undefined };
  const roles = await chooseRoles(deploy, manifest, { ...none, appRole: "managed_app" });
  expect(roles.appOwnerRole).toBe("deploy");
  const { run, database } = await installRun(url, { manifest, pack: { roles } });
  await runInstallation(run);
  expect((await planInstallation(run)).steps).toEqual([]);
  const { rows } = await deploy.query("select account_id::integer as a from notes order by id");
  expect(rows.map(({ a }) => a)).toEqual([1, 2, 2]);
  await runRemoval({ ...run, dropAdded: true, force: true });
  expect((await readAppCatalog(deploy)).pack.schema).toBe(false);
  await database.close();
  await deploy.end();
});

test("partitions get identity and visibility one by one, also through two levels", async () => {
  const shop = await createShop(server, "parted", size);
  await shop.admin.query(
    `set role shop_owner;
     create table visits (account_id bigint not null, day date not null, page text, id bigserial,
       primary key (id, day)) partition by range (day);
     create table visits_2025 partition of visits for values from ('2025-01-01') to ('2026-01-01');
     create table visits_2026 partition of visits for values from ('2026-01-01') to ('2027-01-01') partition by hash (id);
     create table visits_2026_a partition of visits_2026 for values with (modulus 2, remainder 0);
     create table visits_2026_b partition of visits_2026 for values with (modulus 2, remainder 1);
     create table clicks (id bigserial, visit_id bigint not null, day date not null, primary key (id, day),
       foreign key (visit_id, day) references visits (id, day)) partition by range (day);
     create table clicks_2026 partition of clicks for values from ('2026-01-01') to ('2027-01-01');
     insert into visits (account_id, day) select 1 + n % 5, date '2025-12-01' + n from generate_series(1, 90) n;
     insert into clicks (visit_id, day) select id, day from visits where day >= '2026-01-01';
     reset role`,
  );
  const tables = [...shopManifest.tables];
  for (const table of ["visits", "clicks"]) {
    tables.push({
      ...{ schema: "public", table, class: "tenant" },
      keyColumn: "account_id",
      keyspace: "default",
    });
  }
  const { left } = await install(shop.url, { ...shopManifest, tables });
  expect(left).toEqual([]);
  const catalog = await readAppCatalog(shop.admin);
  const leaves = catalog.tables.filter(
    ({ table, partitioned }) => /^(visits|clicks)/.test(table) && !partitioned,
  );
  expect(leaves.map(({ table, replicaIdentity }) => `${table} ${replicaIdentity}`)).toEqual([
    "clicks_2026 i",
    "visits_2025 i",
    "visits_2026_a i",
    "visits_2026_b i",
  ]);
  expect(leaves.every(({ policies }) => policies.includes("cellfleet_visible"))).toBe(true);
  const { rows } = await shop.admin.query(
    "select count(*)::integer as n from clicks where account_id is null",
  );
  expect(rows).toEqual([{ n: 0 }]);
  await shop.close();
});

test("rows that lead to no tenant stop it before a promise is made, and are named", async () => {
  const shop = await createShop(server, "orphans", size);
  await shop.admin.query(
    `alter table order_items drop constraint order_items_order_id_fkey;
     insert into order_items (order_id, product) values (999999, 'lost');
     alter table order_items add constraint lost foreign key (order_id) references orders (id) not valid`,
  );
  await expect(install(shop.url)).rejects.toThrow(
    /order_items: 1 rows? lead to no row of public\.orders/,
  );
  await shop.admin.query("delete from order_items where product = 'lost'");
  expect((await install(shop.url)).left).toEqual([]);
  await shop.close();
});

test("names with quotes, capitals and dots of other schemas are names", async () => {
  const url = await server.createDatabase("strange");
  const admin = await openClient(url);
  await admin.query(
    "do $$ begin create role shop_owner; exception when duplicate_object then null; end $$",
  );
  await admin.query(
    `create schema "Big Shop" authorization shop_owner; set role shop_owner;
     create table "Big Shop"."Order's" ("Account Id" text not null, "Id" uuid primary key default gen_random_uuid());
     create table "Big Shop"."Li""ne" ("Id" uuid primary key default gen_random_uuid(), "Order" uuid not null references "Big Shop"."Order's" ("Id"));
     insert into "Big Shop"."Order's" ("Account Id") values ('a'), ('b');
     insert into "Big Shop"."Li""ne" ("Order") select "Id" from "Big Shop"."Order's";
     reset role`,
  );
  const entry = {
    schema: "Big Shop",
    class: "tenant",
    keyColumn: "Account Id",
    keyspace: "default",
  } as const;
  const { left } = await install(url, {
    ...{ store: "default", keyColumn: "Account Id", keyspace: "default" },
    tables: [
      { ...entry, table: "Order's" },
      { ...entry, table: 'Li"ne' },
    ],
  });
  expect(left).toEqual([]);
  const { rows } = await admin.query(
    'select "Account Id" as a from "Big Shop"."Li""ne" order by 1',
  );
  expect(rows).toEqual([{ a: "a" }, { a: "b" }]);
  await admin.end();
});

test("a unique address is replaced only by name, and is then unique per tenant", async () => {
  const shop = await createShop(server, "unique", size);
  const { run, database } = await installRun(shop.url);
  expect((await runInstallation(run)).map(({ object }) => object)).toEqual([
    "public.users.users_email_key",
  ]);
  const advice = await runInstallation({ ...run, replaceUnique: ["public.users.users_email_key"] });
  expect(advice).toEqual([]);
  await shop.admin.query("insert into users (account_id, email) values (2, 'u1@example.com')");
  await expect(
    shop.admin.query("insert into users (account_id, email) values (2, 'u1@example.com')"),
  ).rejects.toThrow(/users_email_key_cellfleet_unique/);
  await database.close();
  await shop.close();
});

test("without an agent, enforce gives up waiting for ids, names the sequence, and goes on when they are there", async () => {
  const shop = await createShop(server, "unleased", size);
  const limits = { ...lockLimitsDefault, rangeWaitMs: 0 };
  const { run, database, events } = await installRun(shop.url, { stage: "enforce", limits });
  const refused = runInstallation(run);
  await expect(refused).rejects.toMatchObject({ code: "STATE_CONFLICT" });
  await expect(refused).rejects.toThrow("no agent has leased ids for public.accounts_id_seq");
  const waits = events.flatMap((event) => (event.kind === "step.waiting" ? [event.text] : []));
  expect(waits[0]).toContain("ids for public.accounts_id_seq, at most");
  const range = { sequence: "public.accounts_id_seq", lo: 1000, hi: 2000 };
  expect(await addIdRange(shop.admin, range)).toBe("added");
  // Goes on behind it, to the next that nobody has leased.
  await expect(runInstallation(run)).rejects.toThrow(/ids for public\.(?!accounts_id_seq)/);
  await database.close();
  await shop.close();
});

test("what init writes check reads, whatever the tables are called; what no manifest can name stands apart", async () => {
  const url = await server.createDatabase("odd_names");
  const admin = await openClient(url);
  await admin.query(
    `create table "Weird Things" (id bigserial primary key, tenant_id text not null);
     create table "a.b" (id bigserial primary key, tenant_id text not null);
     create schema "my schema"; create table "my schema"."its table" (id bigserial primary key, tenant_id text not null)`,
  );
  const { text } = await initManifest(admin, {
    keyColumn: undefined,
    store: "default",
    keyspace: "default",
  });
  const manifest = parseManifest(text);
  expect(manifest.tables.map(({ schema, table }) => [schema, table]).toSorted()).toEqual([
    ["my schema", "its table"],
    ["public", "Weird Things"],
  ]);
  expect(text).toContain('# "public.a.b"');
  const { items } = await checkSchema(admin, manifest, undefined);
  expect(items.filter(({ code }) => code === "TABLE_MISSING")).toEqual([]);
  await admin.end();
});

test("uninstall in observe: refused while an agent holds its lease, allowed when none does", async () => {
  const shop = await createShop(server, "observed", size);
  const { run, database } = await installRun(shop.url);
  await runInstallation(run);
  await lease(shop.admin);
  const removal = { ...run, dropAdded: false, force: false };
  const refused = runRemoval(removal);
  await expect(refused).rejects.toMatchObject({
    code: "SAFETY_RULE",
    nextSteps: [
      "first: cellctl cell stage cell-01 pass-through",
      expect.stringContaining("stop its agents"),
      expect.any(String),
    ],
  });
  expect((await readAppCatalog(shop.admin)).pack.schema).toBe(true);
  await expireLease(shop.admin, 1);
  await runRemoval(removal);
  expect((await readAppCatalog(shop.admin)).pack.schema).toBe(false);
  await database.close();
  await shop.close();
});
