/** Names of tenants in the table, against a plain set of triples. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { hashAlias } from "./alias.ts";
import { AliasSlots } from "./alias-slots.ts";
import type { CellId, KeyspaceName, Revision, TenantId } from "./ids.ts";
import type { AliasGroup, DeltaBody, RoutedCell } from "./routing-table.ts";
import { mixLists, sumText } from "./table-checksum.ts";
import { buildTable, isTableRefusal, type TableHead, type TableState } from "./table-state.ts";

const salt = "00112233445566778899aabbccddeeff";
const head: TableHead = {
  fleet: "fleet-1",
  revision: 0 as Revision,
  tenantSources: [{ header: "x-tenant-id" }],
  serviceRoutes: [],
  keyspaces: [{ name: "default" as KeyspaceName, strategy: "directory", guardMode: "row" }],
  cells: [],
  aliasing: {
    salt,
    namespaces: [
      { name: "email", fold: true },
      { name: "api-key", fold: false },
    ],
  },
};

/** `namespace name tenant`, as short as a test wants it. */
const names = ["ann@example.com", "bob@example.com", "c"];
const spaces = ["email", "api-key"];
const tenants = ["acme", "globex", ...Array.from({ length: 14 }, (_, at) => `t${at}`)];

function groupsOf(rows: Iterable<string>): AliasGroup[] {
  return [...rows].map((row) => {
    const [alias = "", name = "", tenant = ""] = row.split(" ");
    return {
      alias,
      keyspace: "default" as KeyspaceName,
      names: [[hashAlias(salt, alias, name), tenant as TenantId]],
    };
  });
}

function build(rows: Iterable<string>, from: TableHead = head): TableState {
  const table = buildTable(from, groupsOf(rows));
  if (isTableRefusal(table)) throw new Error(table.text);
  return table;
}

function deltaFor(table: TableState, upserts: Iterable<string>, deletes: Iterable<string>) {
  const change = {
    fleet: "fleet-1",
    from: table.revision,
    to: (table.revision + 1) as Revision,
    upserts: [],
    deletes: [],
    aliasUpserts: groupsOf(upserts),
    aliasDeletes: groupsOf(deletes),
  };
  const checksum = table.checksumAfter(change);
  if (typeof checksum !== "string") throw new Error(checksum.text);
  return { ...change, checksum } satisfies DeltaBody;
}

function expectSame(table: TableState, rows: ReadonlySet<string>): void {
  expect(table.aliasCount).toBe(rows.size);
  expect(table.checksum).toBe(build(rows).checksum);
  for (const space of spaces) {
    for (const name of names) {
      const expected = [...rows].filter((row) => row.startsWith(`${space} ${name} `));
      const found = table.resolve(space, name).map(({ tenant }) => `${space} ${name} ${tenant}`);
      expect(found).toHaveLength(expected.length);
      expect(new Set(found)).toEqual(new Set(expected));
    }
  }
  expect([...table.aliasGroups(3)].flatMap((group) => group.names)).toHaveLength(rows.size);
}

const row = fc
  .tuple(fc.constantFrom(...spaces), fc.constantFrom(...names), fc.constantFrom(...tenants))
  .map((parts) => parts.join(" "));
const rows = (maxLength: number) => fc.uniqueArray(row, { maxLength });

describe("names in the table", () => {
  test("after any deltas they are those of a table built anew", () => {
    const steps = fc.array(fc.record({ upserts: rows(30), deletes: rows(30) }), { maxLength: 6 });
    fc.assert(
      fc.property(rows(40), steps, (first, changes) => {
        const table = build(first);
        const model = new Set(first);
        expectSame(table, model);
        for (const { upserts, deletes } of changes) {
          expect(table.apply(deltaFor(table, upserts, deletes))).toBeUndefined();
          for (const gone of deletes) model.delete(gone);
          for (const come of upserts) model.add(come);
          expectSame(table, model);
        }
      }),
      { numRuns: 60 },
    );
  });

  test("a name of a thousand tenants is found and forgotten tenant by tenant", () => {
    const many = Array.from({ length: 1000 }, (_, at) => `email ann@example.com t${at}`);
    const table = build(many);
    expect(table.resolve("email", "ann@example.com")).toHaveLength(1000);
    expect(table.resolve("api-key", "ann@example.com")).toEqual([]);
    expect(table.apply(deltaFor(table, [], many.slice(1)))).toBeUndefined();
    expect(table.resolve("email", "Ann@Example.com ")).toEqual([
      { keyspace: "default", tenant: "t0" },
    ]);
  });

  test("a namespace that folds knows a name in any case, another does not", () => {
    const table = build(["email ann@example.com acme", "api-key Key acme"]);
    expect(table.resolve("email", " ANN@example.com")).toHaveLength(1);
    expect(table.resolve("api-key", "Key")).toHaveLength(1);
    expect(table.resolve("api-key", "key")).toEqual([]);
    expect(table.resolve("phone", "Key")).toEqual([]);
    expect(table.resolve("email", "a\u0000b")).toEqual([]);
  });

  test("a refused delta leaves names and placements as they were", () => {
    const table = build(["email ann@example.com acme"]);
    const before = table.checksum;
    const good = deltaFor(table, ["email bob@example.com acme"], ["email ann@example.com acme"]);
    const twice = [...good.aliasUpserts, ...good.aliasUpserts];
    expect(table.apply({ ...good, aliasUpserts: twice })).toMatchObject({ reason: "invalid" });
    expect(table.apply({ ...good, aliasUpserts: [] })).toMatchObject({ reason: "drift" });
    expect(table.apply({ ...good, aliasDeletes: [] })).toMatchObject({ reason: "drift" });
    expect(table.checksum).toBe(before);
    expect(table.resolve("email", "ann@example.com")).toHaveLength(1);
    expect(table.apply(good)).toBeUndefined();
    expect(table.resolve("email", "ann@example.com")).toEqual([]);
  });

  test("the same name twice in a snapshot, or a hash in another spelling, is refused", () => {
    const twice = ["email ann@example.com acme", "email ann@example.com acme"];
    expect(buildTable(head, groupsOf(twice))).toMatchObject({ reason: "invalid" });
    const [group] = groupsOf(twice);
    const hash = `${"A".repeat(21)}B`;
    const odd = { ...group, names: [[hash, "acme" as TenantId]] } as AliasGroup;
    expect(buildTable(head, [odd])).toMatchObject({ reason: "invalid" });
  });

  test("a table without names has the sum that it had before there were any", () => {
    const { aliasing: _, ...plain } = head;
    const table = build([], plain);
    // Written down when there were none: routers of then and now must agree.
    expect(table.checksum).toBe("2dc8791c0f0ee9fd");
    expect(sumText(mixLists({ ...plain, globalServices: {} }))).toBe(table.checksum);
    // Whoever does not know that hint reads the same table without it.
    const halted = { id: "cell-01" as CellId, services: {}, halted: true } as const;
    const sumOf = (cell: RoutedCell) => sumText(mixLists({ ...plain, cells: [cell] }));
    expect(sumOf({ ...halted, handover: true })).toBe(sumOf(halted));
    expect(build([], head).checksum).not.toBe(table.checksum);
  });

  test("a delta can bring the salt, namespaces and global services", () => {
    const { aliasing, ...plain } = head;
    const table = build([], plain);
    const globalServices = { login: { endpoints: ["http://127.0.0.1:9"] } };
    const change = {
      ...deltaFor(table, ["email ann@example.com acme"], []),
      ...(aliasing === undefined ? {} : { aliasing }),
      globalServices,
    };
    const checksum = table.checksumAfter(change);
    expect(table.apply({ ...change, checksum: String(checksum) })).toBeUndefined();
    expect(table.lists).toMatchObject({ globalServices, aliasing });
    expect(table.resolve("email", "ann@example.com")).toHaveLength(1);
  });
});

test("entries whose hashes begin alike are kept apart, also across the end of the slots", () => {
  // All want the last slots: one long cluster that wraps around.
  const entries = Array.from({ length: 60 }, (_, at) => ({
    scope: at % 2,
    hash: `_____w${at.toString(36).padStart(15, "0")}A`,
    tenant: `t${at % 7}`,
  }));
  const step = fc.record({ at: fc.nat({ max: 59 }), add: fc.boolean() });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 300 }), (list) => {
      const slots = new AliasSlots();
      const model = new Map<number, (typeof entries)[number]>();
      for (const { at, add } of list) {
        const entry = entries[at] ?? { scope: 0, hash: "", tenant: "" };
        if (add) expect(slots.add(entry) > 0).toBe(!model.has(at));
        else expect(slots.remove(entry)).toBe(model.delete(at));
        if (add) model.set(at, entry);
        expect(slots.size).toBe(model.size);
      }
      const texts = (some: Iterable<object>) =>
        new Set([...some].map((one) => JSON.stringify(one)));
      expect(texts(slots.entries())).toEqual(texts(model.values()));
      for (const [at, entry] of entries.entries()) expect(slots.has(entry)).toBe(model.has(at));
    }),
    { numRuns: 200 },
  );
});

/** No two of them alike in their last letters, many in their first. */
const entryOf = (nth: number) => ({
  scope: nth % 3,
  hash: `${(nth % 5000).toString(36).padStart(6, "_")}${nth.toString(36).padStart(15, "0")}A`,
  tenant: `tenant-${nth}`,
});

test("ten thousand entries are all there while the table grows, and what is removed is gone", () => {
  const slots = new AliasSlots();
  const count = 10_000;
  for (let nth = 0; nth < count; nth += 1) slots.add(entryOf(nth));
  for (let nth = 0; nth < count; nth += 2) expect(slots.remove(entryOf(nth))).toBe(true);
  let wrong = 0;
  for (let nth = 0; nth < count; nth += 1) {
    const [found] = slots.find(entryOf(nth).hash);
    if (found?.tenant !== (nth % 2 === 0 ? undefined : `tenant-${nth}`)) wrong += 1;
  }
  expect([wrong, slots.size, [...slots.entries()].length]).toEqual([0, 5000, 5000]);
});

test("names that all come and go do not make the arrays grow without end", () => {
  const slots = new AliasSlots();
  const alive = 500;
  for (let nth = 0; nth < 40 * alive; nth += 1) {
    slots.add(entryOf(nth));
    if (nth >= alive) expect(slots.remove(entryOf(nth - alive))).toBe(true);
  }
  const living = Array.from({ length: alive }, (_, at) => entryOf(39 * alive + at));
  for (const { hash, scope, tenant } of living)
    expect(slots.find(hash)).toEqual([{ scope, tenant }]);
  expect(slots.size).toBe(alive);
  expect(slots.bytes).toBeLessThan(80_000);
});
