/** The manifest's grammar, and that a fault is told with its place. */
import { expect, test } from "vitest";
import { parseManifest } from "./manifest.ts";

test("short and long forms, defaults and schemas", () => {
  const manifest = parseManifest(`
version: 1
tables:
  orders: tenant
  billing.invoices: {class: tenant, keyColumn: account_id, keyspace: users}
  countries: reference
  jobs: {class: cell-local}
  schema_migrations: ignore
`);
  expect(manifest).toEqual({
    store: "default",
    keyColumn: "tenant_id",
    keyspace: "default",
    tables: [
      {
        schema: "public",
        table: "orders",
        class: "tenant",
        keyColumn: "tenant_id",
        keyspace: "default",
      },
      {
        schema: "billing",
        table: "invoices",
        class: "tenant",
        keyColumn: "account_id",
        keyspace: "users",
      },
      { schema: "public", table: "countries", class: "reference" },
      { schema: "public", table: "jobs", class: "cell-local" },
      { schema: "public", table: "schema_migrations", class: "ignore" },
    ],
  });
});

test("a store may have another key column and keyspace for all its tables", () => {
  const { store, tables } = parseManifest(
    "{store: main, keyColumn: org, keyspace: orgs, tables: {a: tenant}}",
  );
  expect(store).toBe("main");
  expect(tables).toEqual([
    { schema: "public", table: "a", class: "tenant", keyColumn: "org", keyspace: "orgs" },
  ]);
});

test.each([
  ["", /manifest is not valid/],
  ["{version: 2, tables: {}}", /version/],
  ["{version: 1}", /tables/],
  ["{version: 1, tables: {a: tenants}}", /tables\.a/],
  ["{version: 1, tables: {a: {class: reference, keyColumn: x}}}", /tables\.a/],
  ["{version: 1, tables: {a.b.c: tenant}}", /SCHEMA\.TABLE/],
  ["{version: 1, keyspace: Not-A-Name, tables: {}}", /keyspace/],
  ["{version: 1, tables: {a: tenant, public.a: ignore}}", /public\.a is classed twice/],
  ["{version: 1, tables: {a: tenant, a: ignore}}", /unique/i],
  ["{version: 1, table: {}}", /table/],
  ["version: 1\n tables: [", /manifest is not valid/],
])("%s is refused", (text, message) => {
  expect(() => parseManifest(text)).toThrow(message);
});
