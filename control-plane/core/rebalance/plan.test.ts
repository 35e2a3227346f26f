/** Plans of rebalances: lawful, deterministic, better with every move, and never back and forth. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { rebalanceAskSchema } from "../../../contract/rebalance-api.ts";
import { add, type Bin, type Load, noLoad, type Unit, weightBy } from "./load.ts";
import { mayTake } from "./may-take.ts";
import { planRebalance, type Rebalance } from "./plan.ts";

const ask = (change: Record<string, unknown> = {}) => rebalanceAskSchema.parse(change);
const nowMs = 1_000_000;

const aBin = (cell: string, change: Partial<Bin> = {}): Bin => ({
  cell,
  region: "eu",
  failureDomain: cell,
  tiers: [],
  open: true,
  closedBecause: "",
  leaving: false,
  capacity: { tenants: 1000, bytes: 1_000_000, rps: 1000 },
  reserve: noLoad,
  load: noLoad,
  maxTenantShare: 0.5,
  ...change,
});
const aUnit = (key: string, cell: string, change: Partial<Unit> = {}): Unit => ({
  key,
  cell,
  epoch: 1,
  tier: "standard",
  region: null,
  load: { tenants: 1, bytes: 1000, rps: 1 },
  fixedBecause: null,
  cooldownUntilMs: 0,
  apart: null,
  ...change,
});
/** Bins carry what their units say. */
const loaded = (bins: readonly Bin[], units: readonly Unit[]): Bin[] =>
  bins.map((bin) => ({
    ...bin,
    load: units
      .filter(({ cell }) => cell === bin.cell)
      .reduce<Load>((sum, unit) => add(sum, unit.load), noLoad),
  }));
const plan = (bins: readonly Bin[], units: readonly Unit[], change: Record<string, unknown> = {}) =>
  planRebalance(loaded(bins, units), units, ask(change), nowMs);

const many = (cell: string, count: number, change: Partial<Unit> = {}): Unit[] =>
  Array.from({ length: count }, (_one, index) => aUnit(`${cell}-t${index}`, cell, change));

describe("a fleet that is uneven", () => {
  test("is levelled from the fullest cell to the emptiest", () => {
    const { moves, peakBefore, peakAfter, peakBound } = plan(
      [aBin("a"), aBin("b"), aBin("c")],
      many("a", 90),
    );
    expect(moves.length).toBeGreaterThan(40);
    expect(moves.every(({ from }) => from === "a")).toBe(true);
    expect(peakBefore).toBeCloseTo(0.09);
    expect(peakAfter).toBeLessThan(0.0345);
    expect(peakAfter).toBeGreaterThanOrEqual(peakBound - 1e-9);
  });

  test("is left as it is while the difference is small", () => {
    const units = [...many("a", 52), ...many("b", 50), ...many("c", 48)];
    const found = plan([aBin("a"), aBin("b"), aBin("c")], units);
    expect(found.moves).toEqual([]);
    expect(found.text).toContain("Nothing to move");
  });

  test("moves what relieves most per byte", () => {
    const light = aUnit("light", "a", { load: { tenants: 1, bytes: 10, rps: 100 } });
    const heavy = aUnit("heavy", "a", { load: { tenants: 1, bytes: 300_000_000, rps: 100 } });
    const big = { tenants: 1000, bytes: 1_000_000_000_000, rps: 1000 };
    const bins = [aBin("a", { capacity: big }), aBin("b", { capacity: big })];
    expect(plan(bins, [heavy, light]).moves.map(({ key }) => key)).toEqual(["light"]);
  });

  test("is not touched by tenants that moved a while ago, are pinned, or are in motion", () => {
    const units = [
      ...many("a", 30, { cooldownUntilMs: nowMs + 1 }),
      aUnit("pinned", "a", { fixedBecause: "pinned" }),
    ];
    expect(plan([aBin("a"), aBin("b")], units).moves).toEqual([]);
    expect(plan([aBin("a"), aBin("b")], units, { ignoreCooldown: true }).moves.length).toBe(15);
  });

  test("stays within the budgets", () => {
    const bins = [aBin("a"), aBin("b")];
    expect(plan(bins, many("a", 60), { movesMax: 7 }).moves).toHaveLength(7);
    expect(plan(bins, many("a", 60), { bytesMax: 5000 }).bytes).toBeLessThanOrEqual(5000);
  });
});

test("a swap helps where no single move could", () => {
  const at = (bytes: number): Load => ({ tenants: 1, bytes, rps: 0 });
  const units = [
    ...[400_000, 300_000].map((bytes, n) => aUnit(`a${n}`, "a", { load: at(bytes) })),
    ...[250_000, 200_000].map((bytes, n) => aUnit(`b${n}`, "b", { load: at(bytes) })),
  ];
  const found = plan([aBin("a"), aBin("b")], units, {
    goal: "bytes",
    startAbove: 0.05,
    stopBelow: 0.02,
  });
  expect(found.moves.map(({ why }) => why)).toEqual(["swap", "swap"]);
  expect(found.peakAfter).toBeLessThan(found.peakBefore);
});

describe("a cell that is to be empty", () => {
  test("gives everything away, the largest first", () => {
    const units = [
      ...many("a", 3),
      aUnit("large", "a", { load: { tenants: 1, bytes: 9000, rps: 5 } }),
    ];
    const found = plan([aBin("a", { leaving: true }), aBin("b"), aBin("c")], units);
    expect(found.moves.map(({ key }) => key)[0]).toBe("large");
    expect(found.moves).toHaveLength(4);
    expect(found.cells.find(({ cell }) => cell === "a")?.after).toBe(0);
  });

  test("says that nobody is left where all are to be empty", () => {
    const all = [aBin("a", { leaving: true }), aBin("b", { leaving: true })];
    expect(plan(all, many("a", 3)).text).toContain("none is left to take tenants");
    const far = [aBin("a", { leaving: true, region: "us" }), aBin("b")];
    const stuck = plan(far, many("a", 3, { region: "us" }));
    expect(stuck.text).toBe(
      "Nothing can be moved. 3 that should leave cannot: no cell may take them, see what is left alone.",
    );
  });

  test("is told of with three digits, however little it is", () => {
    const bins = [aBin("a", { capacity: { tenants: 1e6, bytes: 1e9, rps: 1e6 } }), aBin("b")];
    expect(plan(bins, many("a", 40), { startAbove: 1 }).text).toContain("at 0.004 %");
  });

  test("says of what must stay why nobody takes it", () => {
    const units = [
      aUnit("here", "a", { region: "us" }),
      aUnit("fixed", "a", { fixedBecause: "in motion" }),
    ];
    const found = plan([aBin("a", { leaving: true, region: "us" }), aBin("b")], units);
    expect(found.moves).toEqual([]);
    expect(found.skipped).toEqual([
      { object: "fixed", reason: "fixed", text: "in motion" },
      {
        object: "here",
        reason: "nowhere",
        text: "no cell may take it: b is in eu, us is required",
      },
    ]);
  });
});

test("what stands where it may not is repaired first", () => {
  const units = [
    aUnit("gold", "a", { tier: "gold" }),
    aUnit("one", "b", { apart: "group" }),
    aUnit("two", "b", { apart: "group" }),
  ];
  const found = plan([aBin("a", { tiers: ["standard"] }), aBin("b"), aBin("c")], units);
  expect(found.moves.map(({ key, to, why }) => [key, to, why])).toEqual([
    ["gold", "c", "repair"],
    ["one", "a", "repair"],
  ]);
});

const bins = fc.array(
  fc.record({
    region: fc.constantFrom("eu", "us"),
    tenants: fc.integer({ min: 1, max: 200 }),
    open: fc.boolean(),
    leaving: fc.constantFrom(false, false, false, true),
    reserved: fc.integer({ min: 0, max: 50 }),
  }),
  { minLength: 1, maxLength: 6 },
);
const units = fc.array(
  fc.record({
    at: fc.nat(),
    bytes: fc.integer({ min: 0, max: 200_000 }),
    rps: fc.integer({ min: 0, max: 300 }),
    region: fc.constantFrom(null, null, "eu", "us"),
    tier: fc.constantFrom("standard" as const, "gold" as const),
    isFixed: fc.constantFrom(false, false, true),
    apart: fc.constantFrom(null, null, "x", "y"),
  }),
  { maxLength: 60 },
);
type Drawn = { readonly bins: Bin[]; readonly units: Unit[] };

const fleets = fc.record({ bins, units }).map(({ bins: rawBins, units: rawUnits }): Drawn => {
  const cells = rawBins.map(({ region, tenants, open, leaving, reserved }, index) =>
    aBin(`c${index}`, {
      ...{ region, open, leaving, capacity: { tenants, bytes: 1_000_000, rps: 1000 } },
      reserve: { tenants: 0, bytes: reserved * 1000, rps: reserved },
    }),
  );
  const placed = rawUnits.map(({ at, bytes, rps, region, tier, isFixed, apart }, index) =>
    aUnit(`t${index}`, `c${at % cells.length}`, {
      ...{ region, tier, apart, load: { tenants: 1, bytes, rps } },
      fixedBecause: isFixed ? "fixed" : null,
    }),
  );
  return { bins: loaded(cells, placed), units: placed };
});

test("every plan is lawful at each of its moves, and what is fixed stays", () => {
  fc.assert(
    fc.property(fleets, (fleet) => {
      const found = planRebalance(
        fleet.bins,
        fleet.units,
        ask({ startAbove: 0.05, stopBelow: 0.02 }),
        nowMs,
      );
      walk(fleet, found);
    }),
    { numRuns: 300 },
  );
});

function walk({ bins: cells, units: placed }: Drawn, { moves }: Rebalance): void {
  const at = new Map(placed.map((unit) => [unit.key, unit.cell]));
  const byKey = new Map(placed.map((unit) => [unit.key, unit]));
  const loadOf = (cell: string, except = "") =>
    placed
      .filter(({ key }) => at.get(key) === cell && key !== except)
      .reduce<Load>((sum, unit) => add(sum, unit.load), noLoad);
  const groupsOf = () => {
    const groups = new Map(cells.map(({ cell }) => [cell, new Map<string, number>()]));
    for (const { key, apart } of placed) {
      const group = groups.get(at.get(key) ?? "");
      if (apart !== null && group) group.set(apart, (group.get(apart) ?? 0) + 1);
    }
    return groups;
  };
  for (const [index, { key, from, to, why }] of moves.entries()) {
    const unit = byKey.get(key);
    const target = cells.find(({ cell }) => cell === to);
    if (unit === undefined || target === undefined) throw new Error("a move of nothing");
    expect(unit.fixedBecause).toBeNull();
    expect(at.get(key)).toBe(from);
    // The second of a swap goes where the first has been; both were judged beside the full cell.
    if (why !== "swap") expect(mayTake(target, unit, loadOf(to), groupsOf())).toBe(true);
    at.set(key, to);
    const isHalfOfSwap = why === "swap" && moves[index + 1]?.why === "swap";
    if (why === "swap" && !isHalfOfSwap) {
      expect(target.open && !target.leaving).toBe(true);
    }
  }
}

test("the same fleet gives the same plan, and no plan raises the peak of cells that take", () => {
  fc.assert(
    fc.property(fleets, (fleet) => {
      const wanted = ask({ startAbove: 0.05, stopBelow: 0.02 });
      const found = planRebalance(fleet.bins, fleet.units, wanted, nowMs);
      const again = planRebalance(fleet.bins, [...fleet.units].reverse(), wanted, nowMs);
      const isBalanceOnly = found.moves.every(({ why }) => why === "balance" || why === "swap");
      if (isBalanceOnly) expect(found.peakAfter).toBeLessThanOrEqual(found.peakBefore + 1e-9);
      expect(again.moves.map(({ key, to }) => [key, to]).sort()).toEqual(
        found.moves.map(({ key, to }) => [key, to]).sort(),
      );
    }),
    { numRuns: 200 },
  );
});

test("a second plan over the first finds nothing left to do", () => {
  const cells = [aBin("a"), aBin("b"), aBin("c"), aBin("d")];
  const start = [...many("a", 200), ...many("b", 20)];
  const first = plan(cells, start);
  const to = new Map(first.moves.map((move) => [move.key, move.to]));
  const then = start.map((unit) => ({ ...unit, cell: to.get(unit.key) ?? unit.cell }));
  expect(plan(cells, then).moves).toEqual([]);
  expect(
    weightBy("balance")(loaded(cells, then)[0]?.load ?? noLoad, aBin("a").capacity),
  ).toBeLessThan(0.06);
});
