/** Findings about the application's own tables, under names that need quoting; and without a pack. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { type CellStore, createCellStore, openClient, storeRoles } from "../../tests/cell-store.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import { readStoreCatalog } from "./catalog.ts";
import { type Finding, findGaps } from "./coverage.ts";
import { parseManifest } from "./manifest.ts";

let server: TestPostgres;
let store: CellStore;
beforeAll(async () => {
  server = await startTestPostgres();
  store = await createCellStore(server, "risky");
});
afterAll(async () => {
  await store.close();
  await server.stop();
});

const manifest = parseManifest("{version: 1, tables: {orders: tenant}}");

/** One statement at a time, as a person would: CREATE INDEX CONCURRENTLY allows no company. */
async function mendAll(found: readonly Finding[]): Promise<void> {
  for (const { mend } of found) {
    for (const statement of mend.split(/(?<=;) /)) await store.admin.query(statement);
  }
}

test("a child table's key is filled from its parent, batch by batch; a shared sequence is parted", async () => {
  await store.admin.query(`create schema "Shop 2"; create table "Shop 2"."Kon'to" (id bigserial primary key, "Mieter" text not null);
    create table "Shop 2".child ("Zeile" bigint references "Shop 2"."Kon'to", n bigint default nextval('"Shop 2"."Kon''to_id_seq"') primary key);
    insert into "Shop 2"."Kon'to" ("Mieter") values ('a'), ('b');
    insert into "Shop 2".child select 1 + i % 2 from generate_series(1, 10) i`);
  const child = parseManifest(
    JSON.stringify({
      version: 1,
      keyColumn: "Mieter",
      tables: { "public.x": "tenant" },
    }),
  );
  const wish = {
    ...child,
    tables: ["Kon'to", "child"].map((table) => ({
      schema: "Shop 2",
      table,
      class: "tenant" as const,
      keyColumn: "Mieter",
      keyspace: "default",
    })),
  };
  const found = async () =>
    findGaps(
      wish,
      await readStoreCatalog(store.admin, storeRoles.appRole),
      storeRoles.appRole,
    ).filter(({ object }) => object === "Shop 2.child");
  const codes = async () => (await found()).map(({ code }) => code);
  expect(await codes()).toEqual(["KEY_COLUMN_MISSING", "SEQUENCE_SHARED"]);
  await mendAll(await found());
  const { rows } = await store.admin.query(
    'select "Mieter", count(*)::int as n from "Shop 2".child group by 1 order by 1',
  );
  expect(rows).toEqual([
    { Mieter: "a", n: 5 },
    { Mieter: "b", n: 5 },
  ]);
  expect(await codes()).not.toContain("SEQUENCE_SHARED");
  await mendAll(await found());
  expect(await found()).toEqual([]);
  await store.admin.query('drop schema "Shop 2" cascade');
});

test("a database without the pack can be looked at", async () => {
  const client = await openClient(await server.createDatabase("untouched"));
  await client.query("create table orders (id bigserial primary key, tenant_id text not null)");
  const found = findGaps(manifest, await readStoreCatalog(client, storeRoles.appRole), "shop_app");
  expect(found.map(({ code }) => code)).toContain("GUARD_MISSING");
  await client.end();
});
