/** Rule R2, verdict by verdict. */
import { expect, test } from "vitest";
import type { CellId, Epoch } from "../../contract/ids.ts";
import type { PlacementKey } from "../../contract/placement-key.ts";
import { confirmAnswer, isNotAdmitted } from "./confirm.ts";

const sent = {
  key: "default/tenant/acme" as PlacementKey,
  via: "tenant",
  cell: "cell-01" as CellId,
  epoch: 3 as Epoch,
  state: "active",
} as const;
const good = ["x-cellfleet-confirm", "cell=cell-01;epoch=3;lease=1000"];
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
  expect(confirmAnswer(headers, status, sent, now)).toBe(verdict);
});

test("a refusal counts only with this attempt's nonce, said once", () => {
  expect(isNotAdmitted(["x-cellfleet-not-admitted", "n1"], "n1")).toBe(true);
  expect(isNotAdmitted(["x-cellfleet-not-admitted", "n2"], "n1")).toBe(false);
  expect(
    isNotAdmitted(["x-cellfleet-not-admitted", "n1", "x-cellfleet-not-admitted", "n1"], "n1"),
  ).toBe(false);
  expect(isNotAdmitted([], "n1")).toBe(false);
});
