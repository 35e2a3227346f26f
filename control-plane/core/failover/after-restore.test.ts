/** What becomes of an open failover after the control plane's database was set back. */
import { expect, test } from "vitest";
import type { FailoverStep } from "../../../contract/failover-api.ts";
import type { CellId, OpId } from "../../../contract/ids.ts";
import { type AfterRestore, afterRestore, type RestoredFacts } from "./after-restore.ts";

const run = (step: FailoverStep) => ({
  ...{ id: "op_f" as OpId, cell: "cell-01" as CellId, step },
  evidence: {
    annexes: {
      "sb-1": { status: "severed" as const, reason: "" },
      "sb-2": { status: "left-out" as const, reason: "it was broken" },
    },
  },
});
const facts = (change: Partial<RestoredFacts> = {}): RestoredFacts => ({
  ...{ servedSince: false, frozen: ["cell-01", "sb-9"], hosted: new Set(["sb-9"]) },
  annexes: new Map([["sb-1", { failover: "op_f" }]]),
  ...change,
});

test.each<[string, FailoverStep, Partial<RestoredFacts>, AfterRestore]>([
  ["nothing was taken yet", "confirmed", {}, "undo"],
  ["who its partners were then says nothing now", "revoking", {}, "undo"],
  ["it was being given back", "restoring", {}, "undo"],
  ["it is healthy, and serves", "evacuating", {}, "undo"],
  ["streams were being cut", "severing", {}, "resume"],
  ["keys were being given away", "adopting", {}, "resume"],
  ["it had stopped for poison", "halted", {}, "resume"],
  ["keys were on their way into whole cells", "reprotecting", {}, "resume"],
  ["the cell was let back since", "adopting", { servedSince: true }, "undo"],
  ["a cell that may be an heir is missing", "adopting", { frozen: ["cell-03"] }, "leave-apart"],
  ["the annex is gone since", "adopting", { annexes: new Map() }, "leave-apart"],
  [
    "a later failover has the annex",
    "adopting",
    { annexes: new Map([["sb-1", { failover: "op_g" }]]) },
    "leave-apart",
  ],
])("%s", (_name, step, change, expected) => {
  expect(afterRestore(run(step), facts(change))).toBe(expected);
});
