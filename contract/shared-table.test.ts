/** A table handed over as a worker thread gets it: the same table, which moves on by itself. */
import { expect, test } from "vitest";
import { deltaOf, tableOf } from "../table/table.fixture.ts";
import { hashAlias } from "./alias.ts";
import { type CellId, defaultKeyspace, type TenantId } from "./ids.ts";
import { type AliasGroup, deltaBodySchema } from "./routing-table.ts";
import type { SharedTable } from "./shared-table.ts";
import { TableState } from "./table-state.ts";

const acme = "acme" as TenantId;

test("what another thread makes of it is the same table, and both take the next delta", () => {
  const table = tableOf(3, { acme: "a 2", globex: "b 7 hold" }, { a: ["http://a"] });
  const other = TableState.fromShared(structuredClone(table.share()));
  expect(other.checksum).toBe(table.checksum);
  expect([other.revision, other.size, other.epochMax]).toEqual([3, 2, 7]);
  expect(other.cell("a" as CellId)).toEqual(table.cell("a" as CellId));
  const delta = deltaBodySchema.parse(JSON.parse(deltaOf(table, { acme: "b 3" }, ["globex"]).body));
  expect(other.apply(delta)).toBeUndefined();
  expect(other.lookup(defaultKeyspace, acme)).toMatchObject({ cell: "b", epoch: 3 });
  expect(table.lookup(defaultKeyspace, acme)).toMatchObject({ cell: "a", epoch: 2 });
  expect(table.apply(delta)).toBeUndefined();
  expect(table.checksum).toBe(other.checksum);
});

test("names are shared, too, and a change of one table is not seen in the other", () => {
  const salt = "00".repeat(16);
  const aliasing = { salt, namespaces: [{ name: "email", fold: true }] };
  const table = tableOf(3, { acme: "a 2" }, {}, "fleet-1", { aliasing });
  const group = (name: string, tenants: readonly string[]): AliasGroup => ({
    alias: "email",
    keyspace: defaultKeyspace,
    names: tenants.map((tenant) => [hashAlias(salt, "email", name), tenant as TenantId]),
  });
  const many = Array.from({ length: 12 }, (_, nth) => `t${nth}`);
  for (const one of [
    group("ann", ["acme"]),
    group("bob", ["acme", "globex"]),
    group("all", many),
  ]) {
    expect(table.load(one)).toBeUndefined();
  }
  const shared = structuredClone(table.share());
  const [other, third] = [TableState.fromShared(shared), TableState.fromShared(shared)];
  const found = (from: TableState) =>
    ["ann", "bob", "all", "new"].map((name) => from.resolve("email", name).length);
  expect([found(other), found(third)]).toEqual([found(table), [1, 2, 12, 0]]);
  const change = {
    aliasDeletes: [group("bob", ["acme"]), group("all", many.slice(0, 11))],
    aliasUpserts: [group("new", ["acme"])],
  };
  const delta = deltaOf(other, {}, [], undefined, change);
  expect(other.apply(deltaBodySchema.parse(JSON.parse(delta.body)))).toBeUndefined();
  expect([found(table), found(other), found(third)]).toEqual([
    [1, 2, 12, 0],
    [1, 1, 1, 1],
    [1, 2, 12, 0],
  ]);
  expect(third.checksum).toBe(table.checksum);
  expect(TableState.fromShared(other.share()).checksum).toBe(other.checksum);
});

test("a large table is handed over without a copy of its tenants", () => {
  const placements = Object.fromEntries(
    Array.from({ length: 5000 }, (_, nth) => [`t${nth}`, "a 1"]),
  );
  const table = tableOf(3, placements);
  const [shared, again] = [table.share(), TableState.fromShared(table.share()).share()];
  const memory = ({ placements: { keyspaces } }: SharedTable) => keyspaces[0]?.tenants.image.memory;
  expect(memory(shared)?.byteLength).toBeGreaterThan(5000 * 8);
  expect(memory(again)).toBe(memory(shared));
});
