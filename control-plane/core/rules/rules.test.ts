/** Each rule by a fleet that keeps it and one that breaks it. */
import { describe, expect, test } from "vitest";
import { type SafetyRule, safetyLimitsSchema } from "../../../contract/safety-api.ts";
import { aCell } from "../fleet.fixture.ts";
import { namesSwitchable, type OperationKind, operations } from "./operations.ts";
import { refusalOf } from "./refusal.ts";
import { judgeOperation, type Operation, type RulesView, weigh } from "./rules.ts";

const fleet = (change: Partial<RulesView> = {}): RulesView => ({
  nowMs: 1_000_000,
  lever: { id: "fleet", engaged: false, by: "", reason: "", since: null },
  switches: [],
  limits: safetyLimitsSchema.parse({}),
  cells: [
    aCell("a"),
    aCell("b"),
    aCell("c"),
    aCell("sb-a-b", { annex: { origin: "a", host: "b" } }),
  ],
  pairs: [{ origin: "a", host: "b" }],
  open: [],
  tenants: { all: 1000, inMotion: 0 },
  failedOverAtMs: 0,
  burnt: [],
  ...change,
});
const blocked = (view: RulesView, operation: Operation): SafetyRule[] =>
  weigh(judgeOperation(view, operation), []).blocking.map(({ rule }) => rule);

const engaged = {
  id: "fleet",
  engaged: true,
  by: "ada",
  reason: "month end",
  since: "12:00",
} as const;
const closed = {
  id: "deploys",
  open: false,
  kinds: ["cell.*"],
  by: "ada",
  reason: "release",
  since: "",
};
const limits = (change: object) => safetyLimitsSchema.parse(change);
const drain: Operation = { kind: "cell.drain", cell: "a", tenants: 10 };
const stop: Operation = { kind: "cell.stop", cell: "a" };

test("a fleet at rest may do anything", () => {
  for (const kind of Object.keys(operations) as OperationKind[]) {
    expect(blocked(fleet(), { kind, cell: "a", tenants: 5 })).toEqual([]);
  }
});

test.each<[SafetyRule, Partial<RulesView>, Operation]>([
  ["lever", { lever: engaged }, { kind: "move.start", tenants: 1 }],
  ["switch", { switches: [closed] }, stop],
  ["switch", { switches: [{ ...closed, kinds: [] }] }, { kind: "rebalance.apply" }],
  ["healthy-cells", { cells: [aCell("a"), aCell("b", { health: "down" })] }, stop],
  [
    "healthy-cells",
    {
      open: [
        { id: "op_1", kind: "cell.stop", cells: ["b"] },
        { id: "op_2", kind: "cell.kill", cells: ["c"] },
      ],
    },
    { ...stop, kind: "failover.planned" },
  ],
  [
    "open-cells",
    { cells: [aCell("a"), aCell("b", { state: "cordoned" })] },
    { kind: "cell.cordon", cell: "a" },
  ],
  [
    "headroom",
    {
      limits: limits({ headroom: "require" }),
      cells: [
        aCell("a", { usage: { tenants: 9, bytes: 0, rps: 0 } }),
        aCell("b", { usage: { tenants: 95, bytes: 0, rps: 0 } }),
      ],
    },
    drain,
  ],
  ["one-operation", { open: [{ id: "op_1", kind: "cell.drain", cells: ["a"] }] }, stop],
  ["one-operation", { open: [{ id: "op_1", kind: "cell.failover", cells: ["b"] }] }, stop],
  ["motion", { tenants: { all: 1000, inMotion: 195 } }, drain],
  [
    "wait",
    { limits: limits({ waitAfterFailoverMs: 60_000 }), failedOverAtMs: 990_000 },
    { kind: "rebalance.apply" },
  ],
  ["budget", { burnt: ["a / default: 140 % used"] }, { kind: "rebalance.apply" }],
])("%s blocks", (rule, change, operation) => {
  expect(blocked(fleet(change), operation)).toContain(rule);
});

describe("a repair", () => {
  test("is stopped by no lever, switch, budget or wait", () => {
    const worst = fleet({
      ...{ lever: engaged, switches: [{ ...closed, kinds: [] }], burnt: ["a"] },
      ...{ failedOverAtMs: 999_999, limits: limits({ waitAfterFailoverMs: 3_600_000 }) },
      tenants: { all: 10, inMotion: 10 },
    });
    for (const kind of [
      "failover.unplanned",
      "cell.uncordon",
      "cell.start",
      "cell.wipe",
    ] as const) {
      expect(blocked(worst, { kind, cell: "a" })).toEqual([]);
    }
  });
});

test("a rebalance that only mends is stopped by no budget and no wait, but by the lever", () => {
  const burnt = fleet({
    ...{ burnt: ["a"], failedOverAtMs: 999_999 },
    limits: limits({ waitAfterFailoverMs: 3_600_000 }),
  });
  const rebalance: Operation = { kind: "rebalance.apply", tenants: 1 };
  expect(blocked(burnt, rebalance)).toEqual(["wait", "budget"]);
  expect(blocked(burnt, { ...rebalance, mends: true })).toEqual([]);
  expect(blocked({ ...burnt, lever: engaged }, { ...rebalance, mends: true })).toEqual(["lever"]);
});

test("what does not concern the cell does not stop it", () => {
  const elsewhere = fleet({ open: [{ id: "op_1", kind: "cell.drain", cells: ["c"] }] });
  expect(blocked(elsewhere, stop)).toEqual([]);
});

test("of two that were recorded together the first goes on, and the second does not", () => {
  const view = fleet({
    open: [
      { id: "op_1", kind: "cell.stop", cells: ["a"] },
      { id: "op_2", kind: "cell.stop", cells: ["b"] },
    ],
  });
  expect(blocked(view, { ...stop, id: "op_1" })).toEqual([]);
  expect(blocked(view, { kind: "cell.stop", cell: "b", id: "op_2" })).toEqual(["one-operation"]);
});

test("a person goes past a rule by its name, and never past those that nobody may", () => {
  const view = fleet({ lever: engaged, cells: [aCell("a"), aCell("b", { health: "down" })] });
  const { blocking, overridden } = weigh(judgeOperation(view, stop), ["lever", "healthy-cells"]);
  expect(blocking.map(({ rule }) => rule)).toEqual(["healthy-cells"]);
  expect(overridden.map(({ rule }) => rule)).toEqual(["lever"]);
});

test("a closed switch for others is not called none", () => {
  const text = (switches: RulesView["switches"]) =>
    judgeOperation(fleet({ switches }), { kind: "rebalance.apply" }).find(
      ({ rule }) => rule === "switch",
    )?.text;
  expect(text([])).toBe("no switch is closed");
  expect(text([{ ...closed, open: true }])).toBe("no switch is closed");
  expect(text([closed])).toBe("no closed switch names it; 1 is closed for others");
});

test("a refusal names its rule, and says whether anybody may go past it", () => {
  const said = (view: RulesView) => {
    const verdicts = judgeOperation(view, stop);
    const first = weigh(verdicts, []).blocking[0];
    return first === undefined ? undefined : refusalOf(first, stop, verdicts);
  };
  const alone = said(fleet({ cells: [aCell("a")] }));
  expect(alone?.message).toBe(
    "cell.stop of a is refused by the rule healthy-cells, which nobody may go past: 0 other cells are healthy, 1 must stay.",
  );
  expect(alone?.nextSteps).toContain("cellctl lever limits --help");
  const gated = said(fleet({ switches: [closed] }));
  expect(gated?.message).toContain("by the rule switch: deploys is closed by ada");
  expect(gated?.nextSteps.join()).toContain("--override switch");
});

test.each([
  ["cell.*", true],
  ["move.start", true],
  ["cell.start", false],
  ["cells.*", false],
  ["*", false],
  ["move", false],
])("a switch can stop what %s names: %s", (pattern, can) => {
  expect(namesSwitchable(pattern)).toBe(can);
});

test("annexes are nobody's spare cells", () => {
  const view = fleet({
    cells: [aCell("a"), aCell("sb-a-b", { annex: { origin: "a", host: "b" } })],
  });
  expect(blocked(view, stop)).toEqual(["healthy-cells"]);
});
