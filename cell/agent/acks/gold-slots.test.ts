/** Which slots speak for an annex, by the names that streams are given. */
import { expect, test } from "vitest";
import { serverSlot } from "../../../contract/annex.ts";
import { parseCellId } from "../../../contract/ids.ts";
import { must } from "../../../runtime/assert.ts";
import { streamName } from "../../../standby/names.ts";
import { replayedIn, type SlotRow } from "./gold-slots.ts";

const annex = must(parseCellId("sb-cell-01-cell-02"), "annex");
const later = must(parseCellId("sb-cell-01-cell-02-2"), "annex");
const long = must(parseCellId(`sb-${"x".repeat(36)}`), "annex");
const slot = (name: string, flushed: string | null, active = true): SlotRow => ({
  ...{ name, flushed, active },
});

test.each([
  ["yes", [slot(streamName(annex, "default"), "0/20")]],
  ["not-yet", [slot(streamName(annex, "default"), "0/1F")]],
  ["not-yet", [slot(streamName(annex, "default"), null)]],
  ["nobody-reads", [slot(streamName(annex, "default"), "0/1F", false)]],
  // It has it already, so it does not matter that it went away.
  ["yes", [slot(streamName(annex, "default"), "1/0", false)]],
  ["no-slot", []],
  ["no-slot", [slot(streamName(later, "default"), "0/20")]],
  ["no-slot", [slot("mv_op_1", "0/20")]],
  ["yes", [slot(streamName(annex, "my_store"), "0/20")]],
  ["not-yet", [slot(streamName(annex, "my_store"), "0/1")]],
  // A whole server follows: its trails stand still, and nobody reads them.
  ["yes", [slot(serverSlot(annex), "0/20"), slot(streamName(annex, "default"), "0/1", false)]],
  ["not-yet", [slot(serverSlot(annex), "0/1F"), slot(streamName(annex, "default"), "0/20")]],
  ["nobody-reads", [slot(serverSlot(annex), "0/1F", false)]],
  ["no-slot", [slot(serverSlot(later), "0/20")]],
] as const)("%s: %j", (verdict, rows) => {
  expect(replayedIn(rows, annex, 0x20n)).toBe(verdict);
});

test("a name that had to be cut is found too", () => {
  const rows = [slot(streamName(long, "default"), "0/20")];
  expect(replayedIn(rows, long, 0x20n)).toBe("yes");
});
