/** Which keys leave a cell next, and to where. */
import { expect, test } from "vitest";
import { type Emptying, emptyingLimits, type LeavingKey, planEmptying } from "./emptying.ts";
import { aCell } from "./fleet.fixture.ts";

const leaving = (name: string, change: Partial<LeavingKey> = {}): LeavingKey => ({
  ...{ key: `default/tenant/${name}`, keyspace: "default", tier: "standard" },
  loads: [
    {
      ...{ name, tier: "standard", region: null, tenants: 1, bytes: 10, rps: 1 },
      ...{ bytesLargest: 10, rpsLargest: 1 },
    },
  ],
  ...{ failures: 0, failedMs: 0 },
  ...change,
});
const many = (count: number) => Array.from({ length: count }, (_, n) => leaving(`t${n}`));
const limits = { ...emptyingLimits, inFlight: 2, keysPerMove: 3 };
const asked = (change: Partial<Emptying>): Emptying => ({
  ...{ from: "from", keys: [], prefer: [], exclude: [], underWay: 0 },
  cells: [aCell("from"), aCell("a"), aCell("b")],
  ...change,
});

test("preferred cells first, few keys a move, few moves at a time", () => {
  const plan = planEmptying(asked({ keys: many(10), prefer: ["b"] }), limits);
  expect(plan.departures.map(({ target, keys }) => [target, keys.length])).toEqual([
    ["b", 3],
    ["b", 3],
  ]);
  expect(plan.blocked).toEqual([]);
  expect(planEmptying(asked({ keys: many(10), underWay: 2 }), limits).departures).toEqual([]);
});

test("never to itself, to whom is excluded, to an annex, a dedicated cell, or one that does not enforce", () => {
  const cells = [
    aCell("from"),
    aCell("a", { dedicated: true }),
    aCell("sb-x-b", { annex: { origin: "x", host: "b" } }),
    aCell("gone"),
    aCell("observing", { stage: { ...aCell("x").stage, now: "observe" } }),
    aCell("sick", { health: "down" }),
  ];
  const plan = planEmptying(asked({ keys: many(2), cells, exclude: ["gone"] }), limits);
  expect(plan.departures).toEqual([]);
  expect(plan.blocked).toHaveLength(2);
  expect(plan.blocked[0]?.text).toMatch(/a: dedicated/);
});

test("what is full takes no more within one plan; gold goes first; the next cell takes the rest", () => {
  const room = (tenants: number) => ({ ...aCell("x").capacity, tenants });
  const cells = [
    aCell("from"),
    aCell("a", { capacity: room(1), usage: { tenants: 0, bytes: 0, rps: 0 } }),
    aCell("b", { capacity: room(100), usage: { tenants: 0, bytes: 0, rps: 0 } }),
  ];
  const keys = [leaving("t1"), leaving("t2", { tier: "gold" }), leaving("t3")];
  const plan = planEmptying(asked({ keys, cells, prefer: ["a"] }), limits);
  expect(plan.departures.map(({ target, keys: own }) => [target, ...own])).toEqual([
    ["a", "default/tenant/t2"],
    ["b", "default/tenant/t1", "default/tenant/t3"],
  ]);
});

test("what failed rests for longer each time, and then goes alone", () => {
  const failed = (failures: number, failedMs: number) => leaving("t1", { failures, failedMs });
  const resting = (one: LeavingKey) => planEmptying(asked({ keys: [one] }), limits).resting;
  expect([resting(failed(1, 4999)), resting(failed(1, 5000))]).toEqual([1, 0]);
  expect([resting(failed(3, 19_999)), resting(failed(3, 20_000))]).toEqual([1, 0]);
  const keys = [failed(1, 6000), leaving("t2"), leaving("t3")];
  const plan = planEmptying(asked({ keys, prefer: ["a"] }), limits);
  expect(plan.departures.map(({ keys: own }) => own.length).toSorted()).toEqual([1, 2]);
});
