import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type Candidate, decideAll, firstNo } from "./filters.ts";
import { aCell } from "./fleet.fixture.ts";
import type { CellView } from "./fleet.ts";
import { dominantUtilisation, placeTenant, rendezvous, spreadContainers } from "./place.ts";

const wanted = (change: Partial<Candidate> = {}): Candidate => ({
  tenant: "acme",
  tier: "standard",
  region: null,
  bytes: 0,
  rps: 0,
  cell: null,
  ...change,
});

describe("a cell says no with a reason", () => {
  const table: ReadonlyArray<
    readonly [string, Partial<CellView>, Partial<Candidate>, string | undefined]
  > = [
    ["an open healthy cell", {}, {}, undefined],
    ["another cell is named", {}, { cell: "cell-02" }, "named-other"],
    ["cordoned", { state: "cordoned" }, {}, "state"],
    ["draining", { state: "draining" }, {}, "state"],
    ["provisioning", { state: "provisioning" }, {}, "state"],
    ["down", { health: "down" }, {}, "health"],
    ["suspect", { health: "suspect" }, {}, "health"],
    ["never seen", { health: "unknown" }, {}, "health"],
    ["down, even when named", { health: "down" }, { cell: "cell-01" }, "health"],
    ["another region", { region: "eu" }, { region: "us" }, "region"],
    ["the region asked for", { region: "us" }, { region: "us" }, undefined],
    ["another tier", { tiers: ["gold"] }, {}, "tier"],
    ["the tier it takes", { tiers: ["gold"] }, { tier: "gold" }, undefined],
    ["dedicated", { dedicated: true }, {}, "dedicated"],
    ["dedicated and named", { dedicated: true }, { cell: "cell-01" }, undefined],
    ["full of tenants", { usage: { tenants: 100, bytes: 0, rps: 0 } }, {}, "capacity-tenants"],
    ["one place left", { usage: { tenants: 99, bytes: 0, rps: 0 } }, {}, undefined],
    [
      "too few bytes",
      { usage: { tenants: 0, bytes: 999_991, rps: 0 } },
      { bytes: 10 },
      "capacity-bytes",
    ],
    ["too few requests", { usage: { tenants: 0, bytes: 0, rps: 995 } }, { rps: 6 }, "capacity-rps"],
    ["larger than its share", {}, { bytes: 500_001 }, "tenant-share"],
    ["as large as its share", {}, { bytes: 500_000 }, undefined],
  ];
  test.each(table)("%s", (_name, cell, tenant, reason) => {
    const no = firstNo(decideAll(aCell("cell-01", cell), wanted(tenant)));
    expect(no?.reason).toBe(reason);
    if (no !== undefined) expect(no.text).toMatch(/\S/);
  });
});

const cellArbitrary = fc
  .record({
    tenants: fc.integer({ min: 0, max: 20 }),
    used: fc.integer({ min: 0, max: 20 }),
    bytes: fc.integer({ min: 0, max: 1000 }),
    usedBytes: fc.integer({ min: 0, max: 1000 }),
    state: fc.constantFrom("active" as const, "cordoned" as const, "provisioning" as const),
    health: fc.constantFrom("healthy" as const, "down" as const),
  })
  .map(
    (one): Partial<CellView> => ({
      state: one.state,
      health: one.health,
      capacity: { tenants: one.tenants, bytes: one.bytes, rps: 100, maxTenantShare: 1 },
      usage: { tenants: one.used, bytes: one.usedBytes, rps: 0 },
    }),
  );
const fleetArbitrary = fc
  .array(cellArbitrary, { minLength: 0, maxLength: 6 })
  .map((cells) => cells.map((cell, index) => aCell(`cell-0${index + 1}`, cell)));

describe("placement", () => {
  test("takes the cell with the lowest dominant utilisation", () => {
    const cells = [
      aCell("cell-01", { usage: { tenants: 10, bytes: 0, rps: 0 } }),
      aCell("cell-02", { usage: { tenants: 0, bytes: 400_000, rps: 0 } }),
      aCell("cell-03", { usage: { tenants: 5, bytes: 0, rps: 0 } }),
    ];
    expect(placeTenant(cells, wanted())).toMatchObject({ kind: "place", cell: "cell-03" });
  });

  test("spreads equal cells evenly, whatever the names", () => {
    let cells: readonly CellView[] = ["cell-01", "cell-02", "cell-03"].map((id) => aCell(id));
    for (let index = 0; index < 60; index += 1) {
      const placed = placeTenant(cells, wanted({ tenant: `tenant-${index}` }));
      if (placed.kind === "blocked") throw new Error(placed.text);
      cells = cells.map((cell) =>
        cell.id === placed.cell
          ? { ...cell, usage: { ...cell.usage, tenants: cell.usage.tenants + 1 } }
          : cell,
      );
    }
    expect(cells.map(({ usage }) => usage.tenants)).toEqual([20, 20, 20]);
  });

  test("never overfills, never takes a closed or sick cell, and blocks only when nobody may", () => {
    fc.assert(
      fc.property(fleetArbitrary, fc.integer({ min: 0, max: 500 }), (cells, bytes) => {
        const result = placeTenant(cells, wanted({ bytes }));
        const may = cells.filter(
          ({ state, health, usage, capacity }) =>
            state === "active" &&
            health === "healthy" &&
            usage.tenants + 1 <= capacity.tenants &&
            usage.bytes + bytes <= capacity.bytes,
        );
        if (result.kind === "blocked") {
          expect(may).toEqual([]);
          return;
        }
        expect(may.map(({ id }) => id)).toContain(result.cell);
        const score = (id: string) =>
          dominantUtilisation(cells.find((one) => one.id === id) ?? aCell(id), wanted({ bytes }));
        for (const other of may) {
          expect(score(result.cell)).toBeLessThanOrEqual(score(other.id));
        }
      }),
    );
  });

  test("does not depend on the order in which cells are listed", () => {
    fc.assert(
      fc.property(fleetArbitrary, fc.string({ minLength: 1 }), (cells, tenant) => {
        const forward = placeTenant(cells, wanted({ tenant }));
        const backward = placeTenant(cells.toReversed(), wanted({ tenant }));
        expect(backward).toEqual(forward);
      }),
    );
  });

  test("a block names every cell's first obstacle", () => {
    const cells = [aCell("cell-01", { state: "cordoned" }), aCell("cell-02", { health: "down" })];
    expect(placeTenant(cells, wanted()).text).toMatchInlineSnapshot(
      `"No cell may take the tenant. cell-01: the cell is cordoned; only active cells take new tenants; cell-02: the cell is down: agent, application and database answer."`,
    );
    expect(placeTenant([], wanted()).text).toBe("There is no cell yet.");
  });

  test("rendezvous hashing moves only the tenants of a cell that goes", () => {
    const best = (cells: readonly string[], tenant: string) =>
      cells.reduce((a, b) => (rendezvous(b, tenant) > rendezvous(a, tenant) ? b : a));
    for (let index = 0; index < 1000; index += 1) {
      const before = best(["a", "b", "c"], `t${index}`);
      const after = best(["a", "b"], `t${index}`);
      if (before !== "c") expect(after).toBe(before);
    }
  });
});

describe("containers", () => {
  test("are spread in proportion to what cells are made for, over open cells only", () => {
    const cells = [
      aCell("cell-01"),
      aCell("cell-02", { capacity: { tenants: 300, bytes: 1, rps: 1, maxTenantShare: 1 } }),
      aCell("cell-03", { state: "cordoned" }),
      aCell("cell-04", { health: "down" }),
      aCell("cell-05", { dedicated: true }),
    ];
    const keys = Array.from({ length: 64 }, (_, slot) => `users/slot/${slot}`);
    const spread = spreadContainers(cells, keys);
    const counts = new Map<string, number>();
    for (const cell of spread?.values() ?? []) counts.set(cell, (counts.get(cell) ?? 0) + 1);
    expect(Object.fromEntries(counts)).toEqual({ "cell-01": 16, "cell-02": 48 });
    expect(spreadContainers([aCell("cell-01", { state: "cordoned" })], keys)).toBeUndefined();
  });
});
