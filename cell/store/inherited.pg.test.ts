/**
 * Tables that inherit from others without being partitions, and rules: the guard does not reach what
 * stands there, so nothing of ours may reach it by mistake either.
 */
import { afterAll, beforeAll, expect, test } from "vitest";
import { type CellStore, createCellStore, refusalOf, storeRoles } from "../../tests/cell-store.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import { readStoreCatalog } from "./catalog.ts";
import { findGaps } from "./coverage.ts";
import { parseManifest } from "./manifest.ts";
import { purgeRows } from "./purge.ts";

let server: TestPostgres;
let store: CellStore;
beforeAll(async () => {
  server = await startTestPostgres();
  store = await createCellStore(server, "inherited");
  await store.grantLease();
  await store.own("default/tenant/acme", "active");
  await store.own("default/tenant/globex", "active");
});
afterAll(async () => {
  await store.close();
  await server.stop();
});

const protect = (table: string, key = "tenant_id") =>
  store.admin.query("select cellfleet.protect_table('public', $1, $2, 'default')", [table, key]);
const rowsOf = async (table: string): Promise<readonly string[]> => {
  const { rows } = await store.admin.query<{ row: string }>(
    `select tableoid::regclass || ' ' || tenant_id || ' ' || count(*) as row from ${table} group by tableoid, tenant_id order by 1`,
  );
  return rows.map(({ row }) => row);
};

// The rows of both tables stand at the same places of their own files.
test.each([
  ["in batches", 1],
  ["all at once", 1000],
])("a purge %s takes no row of a table that inherits from a guarded one", async (_, limit) => {
  await store.own("default/tenant/acme", "active", limit + 1);
  await store.owner("create table docs (id int primary key, tenant_id text not null)");
  await protect("docs");
  await store.owner("create table old_docs (extra text, primary key (id)) inherits (docs)");
  await store.owner("insert into docs select i, 'acme' from generate_series(1, 5) i");
  await store.owner("insert into old_docs select 100 + i, 'globex' from generate_series(1, 5) i");
  await store.own("default/tenant/acme", "dropped", limit + 1);
  for (let batch = 0; batch < 6; batch += 1) {
    await purgeRows(store.agent, "default/tenant/acme", limit);
  }
  expect(await rowsOf("docs")).toEqual(["old_docs globex 5"]);
  await store.owner("drop table docs cascade");
});

test("a purge of rows that refer to each other in a circle does not either", async () => {
  await store.own("default/tenant/acme", "active", 2000);
  await store.owner(
    "create table rings (id int primary key, tenant_id text not null, next int references rings deferrable)",
  );
  await protect("rings");
  await store.owner("create table old_rings (primary key (id)) inherits (rings)");
  await store.owner("insert into rings values (1, 'acme', null), (2, 'acme', 1), (3, 'acme', 2)");
  await store.owner("update rings set next = 3 where id = 1");
  await store.owner("insert into old_rings values (1, 'acme', null), (2, 'globex', null)");
  await store.own("default/tenant/acme", "dropped", 2000);
  for (let batch = 0; batch < 4; batch += 1) {
    await purgeRows(store.agent, "default/tenant/acme", 1);
  }
  expect(await rowsOf("rings")).toEqual(["old_rings acme 1", "old_rings globex 1"]);
  await store.owner("drop table rings cascade");
});

test("a table that others inherit from is not guarded, and coverage names the pair", async () => {
  await store.owner(`create table notes (id int primary key, tenant_id text not null);
    create table "Old notes" (primary key (id)) inherits (notes)`);
  expect(await refusalOf(protect("notes"))).toBe("42809");
  const manifest = parseManifest("{version: 1, tables: {orders: tenant, notes: tenant}}");
  const found = async () => {
    const catalog = await readStoreCatalog(store.agent, storeRoles.appRole);
    const all = findGaps(manifest, catalog, storeRoles.appRole);
    return all.filter(({ code }) => code === "INHERITED_TABLE");
  };
  const [gap, ...more] = await found();
  expect(more).toEqual([]);
  expect(gap).toMatchObject({ object: "public.Old notes", severity: "fault" });
  await store.owner(gap?.mend ?? "");
  expect(await found()).toEqual([]);
  await protect("notes");
  await store.owner('drop table notes, "Old notes"');
});

test("the statement that fills a child's key fills no row of what inherits from the child", async () => {
  await store.owner(`create table carts (id int primary key, tenant_id text not null);
    create table cart_lines (id int primary key, cart int not null references carts);
    create table old_lines (primary key (id)) inherits (cart_lines);
    insert into carts values (1, 'acme'), (2, 'globex');
    insert into cart_lines values (1, 1), (2, 1);
    insert into old_lines values (11, 2), (12, 2)`);
  const manifest = parseManifest("{version: 1, tables: {carts: tenant, cart_lines: tenant}}");
  const catalog = await readStoreCatalog(store.agent, storeRoles.appRole);
  const gap = findGaps(manifest, catalog, storeRoles.appRole).find(
    ({ code, object }) => code === "KEY_COLUMN_MISSING" && object === "public.cart_lines",
  );
  const [add = "", fill = ""] = (gap?.mend ?? "").split(/(?<=;) /);
  await store.owner(add);
  await store.owner(fill);
  await store.owner(fill.replace(/^\/\*.*\*\/ /, ""));
  expect(await rowsOf("cart_lines")).toEqual(["cart_lines acme 2", null]);
  await store.owner("drop table carts, cart_lines cascade");
});

test("a rule on a guarded table is a fault", async () => {
  await store.owner(`create table letters (id int primary key, tenant_id text not null);
    create table elsewhere (id int, tenant_id text);
    create rule "Send away" as on insert to letters do instead insert into elsewhere values (new.id, new.tenant_id)`);
  await protect("letters");
  const manifest = parseManifest(
    "{version: 1, tables: {orders: tenant, letters: tenant, elsewhere: ignore}}",
  );
  const found = async () => {
    const catalog = await readStoreCatalog(store.agent, storeRoles.appRole);
    const all = findGaps(manifest, catalog, storeRoles.appRole);
    return all.filter(({ code }) => code === "RULE_REWRITES");
  };
  const [gap] = await found();
  expect(gap).toMatchObject({ object: "public.letters", severity: "fault" });
  await store.owner(gap?.mend ?? "");
  expect(await found()).toEqual([]);
  await store.owner("drop table letters, elsewhere");
});

test("a key column's name is a name, whatever stands in it", async () => {
  const attack = "x$$; update cellfleet.stage set stage = 'observe'; select $$";
  await store.admin.query(`set role ${storeRoles.appOwnerRole}; set check_function_bodies = off`);
  await store.admin
    .query("select cellfleet.guard_for($1)", [attack])
    .finally(() => store.admin.query("reset role; reset check_function_bodies"));
  const { rows } = await store.admin.query("select stage from cellfleet.stage");
  expect(rows).toEqual([{ stage: "enforce" }]);
  await store.own("default/tenant/globex", "active", 3000);
  for (const name of ["a$$b", 'c"d', "e'\\f", "COLUMN"]) {
    const key = `"${name.replaceAll('"', '""')}"`;
    await store.owner(`create table odd (id int, ${key} text not null)`);
    await protect("odd", name);
    await store.owner(`grant select, insert, update on odd to ${storeRoles.appRole}`);
    await store.app.query("insert into odd values (1, 'globex')");
    expect(await refusalOf(store.app.query("insert into odd values (1, 'nobody')"))).toBe("CF001");
    await store.owner("drop table odd");
  }
});
