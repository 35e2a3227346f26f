/** A rebalance goes on from where its keys are, and leaves alone what somebody else has moved. */
import { expect, test } from "vitest";
import type { CellId, Epoch } from "../../../contract/ids.ts";
import type { PlacementKey } from "../../../contract/placement-key.ts";
import type { RebalanceMove } from "../../../contract/rebalance-api.ts";
import { type KeyStanding, progressOf } from "./progress.ts";

const move = (name: string, change: Partial<RebalanceMove> = {}): RebalanceMove => ({
  key: `default/tenant/${name}` as PlacementKey,
  from: "a" as CellId,
  to: "b" as CellId,
  epoch: 1 as Epoch,
  load: { tenants: 1, bytes: 0, rps: 0 },
  gain: 0.1,
  why: "balance",
  text: "",
  ...change,
});
const at = (change: Partial<KeyStanding> = {}): KeyStanding => ({
  ...{ cell: "a", epoch: 1, isMoving: false, isActive: true, failures: 0, failedMs: 0 },
  ...change,
});
const found = (moves: readonly RebalanceMove[], standing: readonly KeyStanding[], room = 4) =>
  progressOf(moves, new Map(moves.map(({ key }, n) => [key, standing[n] ?? at()])), room);

test.each<[string, Partial<KeyStanding>, object]>([
  ["ready", {}, { waiting: 1, arrived: 0, underWay: 0 }],
  ["moving", { isMoving: true }, { waiting: 0, underWay: 1 }],
  ["arrived", { cell: "b", epoch: 2 }, { arrived: 1 }],
  [
    "moved elsewhere",
    { cell: "c", epoch: 2 },
    { skipped: [{ text: "it was moved to c by somebody else" }] },
  ],
  ["there and back", { epoch: 3 }, { skipped: [{ text: "it was moved to a by somebody else" }] }],
  ["gone", { cell: null }, { skipped: [{ text: "it is gone" }] }],
  ["suspended", { isActive: false }, { skipped: [{ text: "it is not active" }] }],
  ["failed a moment ago", { failures: 1, failedMs: 10 }, { waiting: 1, begin: [] }],
  ["failed a while ago", { failures: 1, failedMs: 60_000 }, { waiting: 1, begin: [{ to: "b" }] }],
  [
    "failed three times",
    { failures: 3, failedMs: 1e9 },
    { skipped: [{ text: "its move failed 3 times" }] },
  ],
])("a key that is %s", (_name, standing, expected) => {
  expect(found([move("acme")], [at(standing)])).toMatchObject(expected);
});

test("keys of one pair of cells share a move; pairs go side by side, so many at a time", () => {
  const moves = [
    move("one"),
    move("two"),
    move("three", { to: "c" as CellId }),
    move("four", { from: "d" as CellId }),
  ];
  const four = moves.map(({ from }) => at({ cell: from }));
  expect(
    found(moves, four).begin.map(({ from, to, moves: all }) => [from, to, all.length]),
  ).toEqual([
    ["a", "b", 2],
    ["a", "c", 1],
    ["d", "b", 1],
  ]);
  expect(found(moves, four, 2).begin).toHaveLength(2);
  const busy = [at({ isMoving: true }), ...four.slice(1)];
  expect(found(moves, busy, 2).begin.map(({ to }) => to)).toEqual(["c"]);
});
