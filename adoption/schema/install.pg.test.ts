/** `schema install` on a real database: what stands there afterwards, resumed after every step, taken off again. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { readUnclassed } from "../../cell/store/table-classes.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import { readAppCatalog } from "./app-catalog.ts";
import { checkSchema } from "./check.ts";
import { packScript, planInstallation, runInstallation } from "./install.ts";
import { createShop, installRun, type Shop, shopManifest, shopRoles } from "./shop.fixture.ts";
import { runRemoval } from "./uninstall.ts";

let server: TestPostgres;
let shop: Shop;

beforeAll(async () => {
  server = await startTestPostgres();
  shop = await createShop(server, "shop", { accounts: 20, orders: 400, items: 2000 });
});
afterAll(async () => {
  await shop.close();
  await server.stop();
});

test("a shop that knows nothing of cells is installed, works on, and nothing is left to do", async () => {
  const { run, database } = await installRun(shop.url);
  const { steps } = await planInstallation(run, { dry: true });
  expect(steps.slice(0, 2).map(({ id }) => id)).toEqual([
    "install-pack cellfleet",
    "record-manifest cellfleet",
  ]);
  expect(steps[1]?.sql.join()).toContain('"countries","class":"reference"');
  const advice = await runInstallation(run);
  expect((await planInstallation(run)).steps).toEqual([]);
  expect(advice.map(({ object }) => object)).toEqual(["public.users.users_email_key"]);

  const app = await shop.app();
  await app.query("insert into order_items (order_id, product) values (3, 'new')");
  const { rows } = await app.query(
    "select i.account_id, o.account_id as owner from order_items i join orders o on o.id = i.order_id where product = 'new'",
  );
  expect(rows).toEqual([{ account_id: "4", owner: "4" }]);
  const { rows: owners } = await shop.admin.query(
    "select distinct pg_get_userbyid(proowner) as owner from pg_proc where proname like '%cellfleet_fill_key'",
  );
  expect(owners).toEqual([{ owner: "shop_owner" }]);
  const { rows: wrong } = await shop.admin.query(
    `select count(*)::integer as n from order_items i join orders o on o.id = i.order_id
      where i.account_id is distinct from o.account_id`,
  );
  expect(wrong).toEqual([{ n: 0 }]);

  const verdict = await checkSchema(database.client, shopManifest, undefined);
  expect(verdict.items.filter(({ mendedBy }) => mendedBy === "install")).toEqual([]);
  await database.close();
});

test("the manifest is recorded with it: a table that comes later is missed, until the manifest knows it", async () => {
  expect(await readUnclassed(shop.admin)).toEqual({ count: 0, names: [] });
  await shop.admin.query("set role shop_owner");
  await shop.admin.query("create table coupons (code text primary key)");
  await shop.admin.query("reset role");
  expect(await readUnclassed(shop.admin)).toEqual({ count: 1, names: ["public.coupons"] });
  const { run, database } = await installRun(shop.url);
  // The same manifest again is nothing to do, and mends nothing.
  expect((await planInstallation(run)).steps).toEqual([]);
  const coupons = { schema: "public", table: "coupons", class: "cell-local" } as const;
  const manifest = { ...shopManifest, tables: [...shopManifest.tables, coupons] };
  // As `schema apply` does it: the pack stays as it is.
  const again = { ...run, manifest, pack: "keep" } as const;
  expect((await planInstallation(again)).steps.map(({ kind }) => kind)).toEqual([
    "record-manifest",
  ]);
  await runInstallation(again);
  expect(await readUnclassed(shop.admin)).toEqual({ count: 0, names: [] });
  // Another class of a table that is known is told, too.
  const changed = shopManifest.tables.map((table) =>
    table.table === "countries" ? ({ ...table, class: "ignore" } as const) : table,
  );
  const other = { ...again, manifest: { ...manifest, tables: [...changed, coupons] } };
  expect((await planInstallation(other)).steps).toHaveLength(1);
  // A pack of a time before the list is left alone by those who may not change it.
  await shop.admin.query("alter table cellfleet.classed_table rename to older");
  expect((await planInstallation(again)).steps).toEqual([]);
  await shop.admin.query("alter table cellfleet.older rename to classed_table");
  await shop.admin.query("drop table coupons");
  await database.close();
});

test("a role that moves tenants is named later: it is made, and may act as both owners", async () => {
  const roles = { ...shopRoles, moverRole: "shop_mover" };
  const { run, database } = await installRun(shop.url, { pack: { roles } });
  expect((await planInstallation(run)).steps[0]?.kind).toBe("install-pack");
  expect(packScript(roles, "cell-01", "observe")).toContain("-- shop_mover, which may act as");
  await runInstallation(run);
  expect((await planInstallation(run)).steps).toEqual([]);
  // Who does not name it again takes nothing back.
  const { run: unnamed, database: other } = await installRun(shop.url);
  expect((await planInstallation(unnamed)).steps).toEqual([]);
  const { rows } = await shop.admin.query(
    `select pg_has_role('shop_mover', 'shop_owner', 'SET') as tables,
            pg_has_role('shop_mover', 'cellfleet_owner', 'SET') as pack`,
  );
  expect(rows).toEqual([{ tables: true, pack: true }]);
  await database.close();
  await other.close();
});

test("and taken off again: the application works as before, what was added stays and is named", async () => {
  const { run, database } = await installRun(shop.url);
  const stays = await runRemoval({ ...run, dropAdded: false, force: true });
  expect(stays.join("\n")).toContain("public.order_items: the column account_id");
  const ids = stays.find((one) => one.startsWith("public.orders: id takes its ids")) ?? "";
  const again = /begin; .*commit;$/.exec(ids)?.[0] ?? "";
  const catalog = await readAppCatalog(shop.admin);
  expect(catalog.pack.schema).toBe(false);
  expect(
    catalog.tables.flatMap(({ triggers }) => triggers.map(({ name }) => name)).toSorted(),
  ).toEqual(["yy_cellfleet_fill_key", "yy_cellfleet_fill_key"]);
  expect(catalog.tables.flatMap(({ policies }) => policies)).toEqual([]);
  const app = await shop.app();
  await app.query("insert into orders (account_id) values (7)");
  await shop.admin.query(again);
  const { rows } = await app.query(
    "insert into orders (account_id) values (7) returning id > 401 as fresh",
  );
  expect(rows).toEqual([{ fresh: true }]);
  const orders = (await readAppCatalog(shop.admin)).tables.find(
    ({ name }) => name === "public.orders",
  );
  expect(orders?.columns[0]).toMatchObject({ name: "id", identity: true });
  await app.query("insert into order_items (order_id, product) values (3, 'after')");

  await runRemoval({ ...run, dropAdded: true, force: true });
  const bare = await readAppCatalog(shop.admin);
  const items = bare.tables.find(({ name }) => name === "public.order_items");
  expect(items?.columns.map(({ name }) => name)).toEqual(["id", "order_id", "product"]);
  await app.query("insert into order_items (order_id, product) values (3, 'bare')");
  await database.close();
});
