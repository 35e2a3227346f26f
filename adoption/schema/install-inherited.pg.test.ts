/**
 * `schema install` beside what it could take for its own: tables that inherit, tables whose names begin
 * alike, and other installations.
 */
import { afterAll, beforeAll, expect, test } from "vitest";
import { parseManifest } from "../../cell/store/manifest.ts";
import { formerName } from "../../cell/store/own-name.ts";
import { openClient } from "../../tests/cell-store.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import { readAppCatalog } from "./app-catalog.ts";
import { batchSql } from "./backfill.ts";
import { checkSchema } from "./check.ts";
import { planInstallation, runInstallation } from "./install.ts";
import { withInstallationLock } from "./installation-lock.ts";
import { createShop, installRun, shopManifest } from "./shop.fixture.ts";
import { runRemoval } from "./uninstall.ts";

let server: TestPostgres;
beforeAll(async () => {
  server = await startTestPostgres();
});
afterAll(() => server.stop());

const size = { accounts: 5, orders: 50, items: 100 };

test("the rows of a table that inherits are never filled from the parent's", async () => {
  const shop = await createShop(server, "heirs", size);
  // The first rows of both stand at the same places, and belong to different orders.
  await shop.admin.query(`set role shop_owner;
    create table old_items (primary key (id)) inherits (order_items);
    insert into old_items (id, order_id, product) select 1000 + n, 1 + (n + 1) % 50, 'old' from generate_series(1, 20) n;
    reset role`);
  const { run, database } = await installRun(shop.url);
  await expect(runInstallation(run)).rejects.toMatchObject({
    code: "SCHEMA_UNFIT",
    message: expect.stringContaining("public.order_items (public.old_items)"),
  });
  expect((await readAppCatalog(shop.admin)).pack.schema).toBe(false);
  const { items } = await checkSchema(database.client, shopManifest, undefined);
  expect(items.map(({ id }) => id)).toContain("public.old_items/INHERITED_TABLE");
  // Also what a batch says by itself keeps to its table.
  await shop.admin.query("alter table order_items add column account_id bigint");
  const fill = {
    ...{ schema: "public", table: "order_items", keyColumn: "account_id", keyspace: "default" },
    parent: { schema: "public", table: "orders", column: "account_id" },
    on: [["order_id", "id"]] as const,
    ...{ rowsEstimate: 100, mayBeNull: false },
  };
  await shop.admin.query(batchSql(fill, "public.order_items"), ["(0,0)", "(9999,0)"]);
  const { rows } = await shop.admin.query(
    `select i.tableoid::regclass::text as t, count(i.account_id)::int as filled,
            count(*) filter (where i.account_id <> o.account_id)::int as wrong
       from order_items i join orders o on o.id = i.order_id group by 1 order by 1`,
  );
  expect(rows).toEqual([
    { t: "old_items", filled: 0, wrong: 0 },
    { t: "order_items", filled: 100, wrong: 0 },
  ]);
  await database.close();
  await shop.close();
});

const stem = `line_${"x".repeat(55)}`;

test("two tables whose names begin alike get an identity and a filling function each", async () => {
  const shop = await createShop(server, "alike", size);
  const names = [`${stem}1`, `${stem}2`];
  await shop.admin.query("set role shop_owner");
  // Each leads to its tenant by a column of its own name.
  for (const [at, name] of names.entries()) {
    await shop.admin.query(`create table ${name} (id bigint primary key, order_${at} bigint not null references orders (id));
      insert into ${name} select n, n from generate_series(1, 10) n`);
  }
  await shop.admin.query("reset role");
  const manifest = parseManifest(
    `keyColumn: account_id\ntables:\n  accounts: { class: tenant, keyColumn: id }\n  orders: tenant\n  users: ignore\n  order_items: ignore\n  item_notes: ignore\n${names.map((name) => `  ${name}: tenant\n`).join("")}`,
  );
  const { run, database } = await installRun(shop.url, { manifest });
  await runInstallation(run);
  expect((await planInstallation(run)).steps).toEqual([]);
  const tables = (await readAppCatalog(shop.admin)).tables.filter(({ table }) =>
    names.includes(table),
  );
  expect(tables.map(({ replicaIdentity }) => replicaIdentity)).toEqual(["i", "i"]);
  const made = tables.flatMap(({ indexes, triggers }) => [
    ...indexes.filter(({ isIdentity }) => isIdentity).map(({ name }) => name),
    ...triggers.filter(({ name }) => name.startsWith("yy_")).map(({ calls }) => calls),
  ]);
  expect(new Set(made).size).toBe(4);
  for (const [at, name] of names.entries()) {
    await shop.admin.query(`insert into ${name} (id, order_${at}) values (99, 7)`);
  }
  await runRemoval({ ...run, dropAdded: true, force: true });
  await runInstallation(run);
  // An identity that an earlier release named is known by what it is, and taken off by uninstall.
  const [first] = tables;
  const identity = first?.indexes.find(({ isIdentity }) => isIdentity)?.name;
  const former = formerName(first?.table ?? "", "cellfleet_identity");
  await shop.admin.query(`alter index ${identity} rename to ${former}`);
  expect((await planInstallation(run)).steps).toEqual([]);
  await runRemoval({ ...run, dropAdded: true, force: true });
  const left = (await readAppCatalog(shop.admin)).tables.flatMap(({ indexes }) => indexes);
  expect(left.filter(({ name }) => name.includes("cellfleet"))).toEqual([]);
  await database.close();
  await shop.close();
});

test("of three installations at once one runs; the others say whose turn it is", async () => {
  const shop = await createShop(server, "thrice", { ...size, items: 5000 });
  const runs = await Promise.all([1, 2, 3].map(() => installRun(shop.url)));
  const holder = await openClient(shop.url);
  const { rows } = await holder.query<{ pid: number }>("select pg_backend_pid() as pid");
  const [one] = runs;
  await withInstallationLock(holder, () =>
    expect(one && runInstallation(one.run)).rejects.toMatchObject({
      code: "STATE_CONFLICT",
      message: `Another installation runs (pid ${rows[0]?.pid}); nothing was changed`,
    }),
  );
  expect((await readAppCatalog(shop.admin)).pack.schema).toBe(false);
  await holder.end();
  const ends = await Promise.allSettled(runs.map(({ run }) => runInstallation(run)));
  const refused = ends.flatMap((end) => (end.status === "rejected" ? [end.reason] : []));
  expect(refused.length).toBeLessThan(3);
  for (const error of refused) expect(error).toMatchObject({ code: "STATE_CONFLICT" });
  // Done by whoever it was, and free again.
  if (one !== undefined) {
    await runInstallation(one.run);
    expect((await planInstallation(one.run)).steps).toEqual([]);
  }
  for (const { database } of runs) await database.close();
  await shop.close();
});
