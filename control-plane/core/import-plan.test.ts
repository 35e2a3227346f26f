/** A bulk is spread as one by one would be, and never over the edge of a cell. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { aStage } from "./fleet.fixture.ts";
import type { CellView } from "./fleet.ts";
import { type ImportClass, planImport } from "./import-plan.ts";
import { timedView } from "./lease-mode.ts";
import { placeTenant } from "./place.ts";

const cell = (id: string, change: Partial<CellView> = {}): CellView => ({
  id,
  state: "active",
  goal: "active",
  health: "healthy",
  healthReason: "",
  region: "local",
  failureDomain: id,
  tiers: [],
  dedicated: false,
  provider: "none",
  stage: aStage(),
  annex: null,
  revoking: false,
  reserve: null,
  adopting: null,
  capacity: { tenants: 1000, bytes: 1e9, rps: 1000, maxTenantShare: 0.5 },
  usage: { tenants: 0, bytes: 0, rps: 0 },
  leaseUntilMs: 0,
  leaseMode: timedView,
  appliedRevision: 0,
  agents: [],
  ...change,
});

const alike = (count: number, change: Partial<ImportClass> = {}): ImportClass => ({
  id: "a",
  tier: "standard",
  region: null,
  cell: null,
  count,
  bytes: 0,
  rps: 0,
  bytesMax: 0,
  rpsMax: 0,
  ...change,
});

const perCell = (cells: readonly CellView[], classes: readonly ImportClass[]) => {
  const plan = planImport(cells, classes, "mean");
  if (plan.kind === "blocked") throw new Error(plan.text);
  const counts: Record<string, number> = {};
  for (const share of plan.shares) counts[share.cell] = (counts[share.cell] ?? 0) + share.count;
  return counts;
};

test("a bulk of small tenants comes to what placing them one by one comes to", () => {
  const cells = [
    cell("cell-01"),
    cell("cell-02", { capacity: { tenants: 500, bytes: 1e9, rps: 1000, maxTenantShare: 0.5 } }),
    cell("cell-03", { usage: { tenants: 300, bytes: 0, rps: 0 } }),
  ];
  const used = new Map(cells.map(({ id, usage }) => [id, usage.tenants]));
  for (let at = 0; at < 600; at += 1) {
    const now = cells.map((one) => ({
      ...one,
      usage: { ...one.usage, tenants: used.get(one.id) ?? 0 },
    }));
    const placed = placeTenant(now, {
      tenant: `t${at}`,
      tier: "standard",
      region: null,
      bytes: 0,
      rps: 0,
      cell: null,
    });
    if (placed.kind === "blocked") throw new Error(placed.text);
    used.set(placed.cell, (used.get(placed.cell) ?? 0) + 1);
  }
  const bulk = perCell(cells, [alike(600)]);
  for (const { id, usage } of cells) {
    const oneByOne = (used.get(id) ?? 0) - usage.tenants;
    expect(Math.abs((bulk[id] ?? 0) - oneByOne)).toBeLessThanOrEqual(6);
  }
});

test("a named cell, a region and a tier are kept to", () => {
  const cells = [
    cell("cell-01"),
    cell("cell-02", { region: "north" }),
    cell("cell-03", { dedicated: true }),
    cell("cell-04", { state: "cordoned" }),
    cell("cell-05", { tiers: ["gold"] }),
  ];
  expect(perCell(cells, [alike(10, { region: "north" })])).toEqual({ "cell-02": 10 });
  expect(perCell(cells, [alike(10, { cell: "cell-03" })])).toEqual({ "cell-03": 10 });
  expect(Object.keys(perCell(cells, [alike(100)]))).toEqual(["cell-01", "cell-02"]);
  const refused = planImport(cells, [alike(1, { cell: "cell-04" })], "mean");
  expect(refused).toMatchObject({ kind: "blocked", unplaced: 1 });
  expect(refused.kind === "blocked" && refused.text).toContain("the cell is cordoned");
});

test("no cell is filled over its edge, and nobody is forgotten", () => {
  const room = fc.record({
    tenants: fc.integer({ min: 0, max: 400 }),
    bytes: fc.integer({ min: 0, max: 5000 }),
    rps: fc.integer({ min: 0, max: 500 }),
  });
  const classes = fc.array(
    fc.record({
      count: fc.integer({ min: 1, max: 300 }),
      each: fc.integer({ min: 0, max: 30 }),
      rps: fc.integer({ min: 0, max: 3 }),
    }),
    { minLength: 1, maxLength: 4 },
  );
  const run = fc.check(
    fc.property(fc.array(room, { minLength: 1, maxLength: 4 }), classes, (rooms, wanted) => {
      const cells = rooms.map((capacity, at) =>
        cell(`cell-${at}`, { capacity: { ...capacity, maxTenantShare: 1 } }),
      );
      const all = wanted.map(({ count, each, rps }, at) =>
        alike(count, {
          id: `c${at}`,
          bytes: each * count,
          bytesMax: each,
          rps: rps * count,
          rpsMax: rps,
        }),
      );
      const plan = planImport(cells, all, "max");
      if (plan.kind === "blocked") return plan.unplaced > 0;
      const byClass = new Map(all.map((one) => [one.id, one]));
      const fits = cells.every(({ id, capacity }) => {
        const mine = plan.shares.filter((share) => share.cell === id);
        const sum = (of: (one: ImportClass) => number) =>
          mine.reduce((total, share) => {
            const one = byClass.get(share.class);
            return total + (one === undefined ? 0 : share.count * of(one));
          }, 0);
        return (
          sum(() => 1) <= capacity.tenants &&
          sum(({ bytesMax }) => bytesMax) <= capacity.bytes &&
          sum(({ rpsMax }) => rpsMax) <= capacity.rps
        );
      });
      const placed = plan.shares.reduce((total, { count }) => total + count, 0);
      return fits && placed === all.reduce((total, { count }) => total + count, 0);
    }),
    { numRuns: 500 },
  );
  expect(run.counterexample).toBeNull();
});
