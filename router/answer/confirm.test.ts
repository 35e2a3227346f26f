/** Rule R2, verdict by verdict. */
import { expect, test } from "vitest";
import type { CellId, Epoch } from "../../contract/ids.ts";
import type { PlacementKey } from "../../contract/placement-key.ts";
import { cellConfirmedUntilMs, confirmAnswer, isNotAdmitted } from "./confirm.ts";

const sent = {
  key: "default/tenant/acme" as PlacementKey,
  via: "tenant",
  cell: "cell-01" as CellId,
  epoch: 3 as Epoch,
  state: "active",
} as const;
const good = ["x-cellfleet-confirm", "cell=cell-01;epoch=3;lease=1000"];
const inTime = { sentMs: 0, nowMs: 0 };
const says = (text: string) => ["X-Cellfleet-Confirm", text];

test.each([
  ["confirmed", good, 200, sent],
  ["confirmed", good, 200, { ...sent, state: "hold" as const }],
  ["missing", [], 200, sent],
  ["missing", ["x-cellfleet-error", "NONSENSE"], 503, sent],
  ["missing", ["x-cellfleet-error", "LEASE_MISSING"], 200, sent],
  ["gate-answer", ["x-cellfleet-error", "LEASE_MISSING"], 503, sent],
  ["malformed", says("cell=cell-01"), 200, sent],
  ["malformed", [...good, ...good], 200, sent],
  ["other-cell", says("cell=cell-02;epoch=3;lease=1000"), 200, sent],
  ["other-epoch", says("cell=cell-01;epoch=2;lease=1000"), 200, sent],
  ["other-epoch", says("cell=cell-01;epoch=4;lease=1000"), 200, sent],
  ["lease-over", says("cell=cell-01;epoch=3;lease=0"), 200, sent],
  ["lease-over", says("cell=cell-01;epoch=3;lease=-5"), 200, sent],
  ["table-moved", good, 200, undefined],
  ["table-moved", good, 200, { ...sent, cell: "cell-02" as CellId }],
  ["table-moved", good, 200, { ...sent, epoch: 4 as Epoch }],
] as const)("%s: %j", (verdict, headers, status, now) => {
  const table = { route: now, halted: false };
  expect(confirmAnswer(headers, status, sent, table, inTime)).toBe(verdict);
});

test.each([
  // One percent less for clocks of different rates, and 50 ms until the answer has left.
  ["confirmed", 1000, 100, 100],
  ["confirmed", 1000, 100, 1039.9],
  ["lease-spent", 1000, 100, 1040],
  ["lease-spent", 1000, 100, 5000],
  ["lease-spent", 50, 0, 0],
  ["confirmed", 60, 0, 9],
  ["confirmed", 1_200_000, 0, 1_187_949],
  ["lease-spent", 1_200_000, 0, 1_187_950],
] as const)(
  "%s: a lease of %i ms, sent at %i, passed on at %i",
  (verdict, lease, sentMs, nowMs) => {
    const raw = says(`cell=cell-01;epoch=3;lease=${lease}`);
    const table = { route: sent, halted: false };
    expect(confirmAnswer(raw, 200, sent, table, { sentMs, nowMs })).toBe(verdict);
  },
);

test("a cell that is being taken over confirms nothing, and its gate's refusals are still refusals", () => {
  const table = { route: sent, halted: true };
  expect(confirmAnswer(good, 200, sent, table, inTime)).toBe("cell-halted");
  const refusal = ["x-cellfleet-error", "LEASE_MISSING"];
  expect(confirmAnswer(refusal, 503, sent, table, inTime)).toBe("gate-answer");
});

test.each([
  [940, "cell=a;epoch=0;lease=1000"],
  [undefined, "cell=b;epoch=0;lease=1000"],
  [undefined, "cell=a;epoch=0;lease=0"],
  [undefined, "cell=a"],
  [undefined, undefined],
] as const)("a part of a fan-out is good until %s: %s", (untilMs, said) => {
  const headers = { "x-cellfleet-confirm": said };
  expect(cellConfirmedUntilMs(headers, "a" as CellId, 0)).toBe(untilMs);
});

test("a refusal counts only with this attempt's nonce, said once", () => {
  expect(isNotAdmitted(["x-cellfleet-not-admitted", "n1"], "n1")).toBe(true);
  expect(isNotAdmitted(["x-cellfleet-not-admitted", "n2"], "n1")).toBe(false);
  expect(
    isNotAdmitted(["x-cellfleet-not-admitted", "n1", "x-cellfleet-not-admitted", "n1"], "n1"),
  ).toBe(false);
  expect(isNotAdmitted([], "n1")).toBe(false);
});
