/** The table in memory against a dumb model: a plain list of placements, searched from the start. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { CellId, Epoch, KeyspaceName, Revision, TenantId } from "./ids.ts";
import { type KeyKind, parsePlacementKey, slotOf } from "./placement-key.ts";
import type { DeltaBody, PlacementGroup, RouteState, SnapshotHead } from "./routing-table.ts";
import { buildTable, isTableRefusal, type TableChange, type TableState } from "./table-state.ts";

type Row = {
  readonly keyspace: string;
  readonly kind: KeyKind;
  readonly value: string;
  readonly cell: string;
  readonly epoch: number;
  readonly state: RouteState;
};
const slotCount = 8;
const head: Omit<SnapshotHead, "kind" | "version" | "placements"> = {
  fleet: "fleet-1",
  revision: 0 as Revision,
  tenantSources: [{ header: "x-tenant-id" }],
  serviceRoutes: [],
  keyspaces: [
    { name: "default" as KeyspaceName, strategy: "directory", guardMode: "strict" },
    { name: "users" as KeyspaceName, strategy: "slots", slotCount, guardMode: "row" },
    { name: "logs" as KeyspaceName, strategy: "range", guardMode: "row" },
  ],
  cells: [
    { id: "a" as CellId, services: { default: { endpoints: ["http://127.0.0.1:1"] } } },
    { id: "b" as CellId, services: { default: { endpoints: ["http://127.0.0.1:2"] } } },
  ],
};

const tenants = ["a", "b", "bb", "c", "m", "z", "Z", "~x".slice(1), "t0", "t1", "t2", "t3"];
const text = (row: Pick<Row, "keyspace" | "kind" | "value">) =>
  `${row.keyspace}/${row.kind}/${row.value}`;

/** Slow and obvious. */
function modelLookup(rows: ReadonlyMap<string, Row>, keyspace: string, tenant: string) {
  const own = rows.get(`${keyspace}/tenant/${tenant}`);
  if (own !== undefined) return own;
  if (keyspace === "users") return rows.get(`users/slot/${slotOf(tenant, slotCount)}`);
  const below = [...rows.values()]
    .filter((row) => row.keyspace === keyspace && row.kind === "range" && row.value <= tenant)
    .sort((x, y) => (x.value < y.value ? 1 : -1));
  return keyspace === "logs" ? below[0] : undefined;
}

const place = fc.oneof(
  fc.record({
    keyspace: fc.constantFrom("default", "users", "logs"),
    kind: fc.constant<KeyKind>("tenant"),
    value: fc.constantFrom(...tenants),
  }),
  fc.record({
    keyspace: fc.constant("users"),
    kind: fc.constant<KeyKind>("slot"),
    value: fc.integer({ min: 0, max: slotCount - 1 }).map(String),
  }),
  fc.record({
    keyspace: fc.constant("logs"),
    kind: fc.constant<KeyKind>("range"),
    value: fc.constantFrom("", "a", "b", "c", "n", "z", "Z"),
  }),
);
const row: fc.Arbitrary<Row> = fc
  .tuple(
    place,
    fc.record({
      cell: fc.constantFrom("a", "b", "gone"),
      epoch: fc.integer({ min: 1, max: 9 }),
      state: fc.constantFrom<RouteState>("active", "hold", "unavailable"),
    }),
  )
  .map(([at, route]) => ({ ...at, ...route }));
const rows = (max: number) => fc.uniqueArray(row, { selector: text, maxLength: max });
/** One step: what is upserted and what is deleted (never the same key twice in one delta). */
const step = rows(6).chain((upserts) =>
  fc.record({
    upserts: fc.constant(upserts),
    deletes: fc
      .uniqueArray(place.map(text), { maxLength: 4 })
      .map((keys) => keys.filter((key) => !upserts.some((one) => text(one) === key))),
  }),
);

const group = (one: Row): PlacementGroup => ({
  keyspace: one.keyspace as KeyspaceName,
  kind: one.kind,
  cell: one.cell as CellId,
  epoch: one.epoch as Epoch,
  state: one.state,
  values: [one.value],
});
const build = (all: Iterable<Row>, revision = 0): TableState => {
  const table = buildTable({ ...head, revision: revision as Revision }, [...all].map(group));
  if (isTableRefusal(table)) throw new Error(table.text);
  return table;
};
const change = (
  from: number,
  upserts: readonly Row[],
  deletes: readonly string[],
): TableChange => ({
  fleet: "fleet-1",
  from: from as Revision,
  to: (from + 1) as Revision,
  upserts: upserts.map(group),
  deletes: [...deletes],
});
const sign = (table: TableState, unsigned: TableChange): DeltaBody => {
  const checksum = table.checksumAfter(unsigned);
  if (typeof checksum !== "string") throw new Error(checksum.text);
  return { ...unsigned, checksum };
};

function expectSame(table: TableState, model: ReadonlyMap<string, Row>): void {
  for (const keyspace of ["default", "users", "logs"]) {
    for (const tenant of tenants) {
      const wanted = modelLookup(model, keyspace, tenant);
      const got = table.lookup(keyspace as KeyspaceName, tenant as TenantId);
      // Its key is read, not held.
      expect(got && { ...got, key: got.key }).toEqual(
        wanted && {
          key: text(wanted),
          via: wanted.kind,
          cell: wanted.cell,
          epoch: wanted.epoch,
          state: wanted.state,
        },
      );
    }
  }
  expect(table.size).toBe(model.size);
}

describe("table state", () => {
  test("after any deltas it answers as the model, and its checksum is that of a table built anew", () => {
    fc.assert(
      fc.property(rows(20), fc.array(step, { maxLength: 6 }), (first, steps) => {
        const model = new Map(first.map((one) => [text(one), one]));
        const table = build(first);
        expectSame(table, model);
        let epochMax = Math.max(0, ...first.map((one) => one.epoch));
        for (const { upserts, deletes } of steps) {
          expect(
            table.apply(sign(table, change(table.revision, upserts, deletes))),
          ).toBeUndefined();
          for (const key of deletes) model.delete(key);
          for (const one of upserts) model.set(text(one), one);
          epochMax = Math.max(epochMax, ...upserts.map((one) => one.epoch));
          expectSame(table, model);
          expect(table.checksum).toBe(build(model.values()).checksum);
          expect(table.epochMax).toBe(epochMax);
        }
        const again = buildTable({ ...head, ...table.lists, revision: table.revision }, [
          ...table.groups(3),
        ]);
        if (isTableRefusal(again)) throw new Error(again.text);
        expect(again.checksum).toBe(table.checksum);
        expectSame(again, model);
      }),
      { numRuns: 200 },
    );
  });

  test("one changed placement changes the checksum", () => {
    fc.assert(
      fc.property(rows(10), row, (first, other) => {
        const without = first.filter((one) => text(one) !== text(other));
        expect(build([...without, other]).checksum).not.toBe(build(without).checksum);
        const moved = { ...other, epoch: other.epoch + 1 };
        expect(build([...without, other]).checksum).not.toBe(build([...without, moved]).checksum);
      }),
    );
  });

  const one: Row = {
    keyspace: "default",
    kind: "tenant",
    value: "acme",
    cell: "a",
    epoch: 1,
    state: "active",
  };

  test.each([
    ["other-fleet", { fleet: "fleet-2" }],
    ["gap", { from: 4 }],
    ["gap", { to: 5 }],
    ["gap", { to: 3 }],
    ["drift", { checksum: "0000000000000000" }],
    ["invalid", { deletes: ["default/tenant/acme"] }],
    ["invalid", { deletes: ["nonsense"] }],
    ["invalid", { upserts: [group({ ...one, keyspace: "nowhere" })] }],
    ["invalid", { upserts: [group(one), group(one)] }],
    ["invalid", { upserts: [group({ ...one, keyspace: "users", kind: "slot", value: "8" })] }],
    ["invalid", { upserts: [group({ ...one, kind: "slot", value: "1" })] }],
    ["invalid", { upserts: [group({ ...one, value: "a/b" })] }],
    ["invalid", { keyspaces: head.keyspaces.slice(1) }],
    ["invalid", { cells: [...head.cells, ...head.cells] }],
  ])("a delta is refused as %s (%j) and leaves no trace", (reason, wrong) => {
    const table = build([one], 5);
    const good = sign(table, change(5, [{ ...one, cell: "b", epoch: 2 }], []));
    const before = { checksum: table.checksum, size: table.size, lists: table.lists };
    expect(table.apply({ ...good, ...wrong } as DeltaBody)).toMatchObject({ reason });
    expect({ checksum: table.checksum, size: table.size, lists: table.lists }).toEqual(before);
    expect(table.revision).toBe(5);
    expect(table.lookup("default" as KeyspaceName, "acme" as TenantId)?.cell).toBe("a");
    expect(table.apply(good)).toBeUndefined();
    expect(table.lookup("default" as KeyspaceName, "acme" as TenantId)?.cell).toBe("b");
  });

  test("a key placed twice in a snapshot is refused", () => {
    expect(buildTable(head, [group(one), group({ ...one, cell: "b" })])).toMatchObject({
      reason: "invalid",
    });
  });

  test("fields that do not travel, and the order of cells, do not change the checksum", () => {
    const [first, second] = head.cells;
    const cells = [second, { extra: 1, ...first }] as SnapshotHead["cells"];
    expect(buildTable({ ...head, cells }, [])).toMatchObject({ checksum: build([]).checksum });
  });

  test("a delta can bring cells and keyspaces with their first placements", () => {
    const table = build([one]);
    const fresh = { name: "new" as KeyspaceName, strategy: "directory", guardMode: "row" } as const;
    const unsigned = {
      ...change(0, [{ ...one, keyspace: "new", cell: "c" }], []),
      keyspaces: [...head.keyspaces, fresh],
      cells: [...head.cells, { id: "c" as CellId, services: {} }],
    };
    expect(table.apply(sign(table, unsigned))).toBeUndefined();
    expect(table.lookup("new" as KeyspaceName, "acme" as TenantId)).toMatchObject({ cell: "c" });
    expect(table.cell("c" as CellId)).toBeDefined();
    expect(table.keyspace("new" as KeyspaceName)).toEqual(fresh);
  });

  test("every key found is a placement key", () => {
    const table = build([{ ...one, keyspace: "logs", kind: "range", value: "" }]);
    const found = table.lookup("logs" as KeyspaceName, "acme" as TenantId);
    expect(parsePlacementKey(found?.key ?? "")).toEqual({
      keyspace: "logs",
      kind: "range",
      from: "",
    });
    expect(table.get(found?.key ?? ("x" as never))?.cell).toBe("a");
  });
});
