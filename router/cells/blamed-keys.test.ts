/** Which keys a router tells of when requests go wrong inside a cell. */
import { expect, test } from "vitest";
import type { CellId } from "../../contract/ids.ts";
import type { PlacementKey } from "../../contract/placement-key.ts";
import { BlamedByCell, BlamedKeys } from "./blamed-keys.ts";

const key = (name: string) => `default/tenant/${name}` as PlacementKey;
const cell = "a" as CellId;

test("the worst come first, and those of long ago are not told", () => {
  const blamed = new BlamedKeys();
  blamed.note(key("slow"), "failed", 0);
  blamed.note(key("bad"), "open", 1000);
  blamed.note(key("slow"), "failed", 1000);
  blamed.note(key("bad"), "open", 2000);
  expect(blamed.worst(2000)).toEqual([
    { key: key("bad"), open: 2, failed: 0 },
    { key: key("slow"), open: 0, failed: 2 },
  ]);
  expect(blamed.worst(31_500).map((one) => one.key)).toEqual([key("bad")]);
  expect(blamed.worst(40_000)).toEqual([]);
});

test("a cell that fails for everybody fills no memory, and twenty are told", () => {
  const blamed = new BlamedKeys();
  for (let n = 0; n < 2000; n += 1) blamed.note(key(`t${n}`), "open", 0);
  expect(blamed.size).toBe(500);
  expect(blamed.worst(0)).toHaveLength(20);
  // There is room again for those of now.
  blamed.note(key("now"), "open", 40_000);
  expect(blamed.worst(40_000).map((one) => one.key)).toEqual([key("now")]);
});

test("threads tell what is new; the report tells all of the last while, again and again", () => {
  const thread = new BlamedKeys();
  const all = new BlamedByCell();
  expect(all.worstOf(cell, thread.take(), 0)).toBeUndefined();
  thread.note(key("bad"), "open", 0);
  expect(all.worstOf(cell, thread.take(), 0)).toEqual([{ key: key("bad"), open: 1, failed: 0 }]);
  thread.note(key("bad"), "failed", 10);
  const sum = [{ key: key("bad"), open: 1, failed: 1 }];
  expect(all.worstOf(cell, thread.take(), 10)).toEqual(sum);
  expect(all.worstOf(cell, thread.take(), 20)).toEqual(sum);
  expect(all.worstOf("b" as CellId, [], 20)).toBeUndefined();
  expect(all.worstOf(cell, [], 60_000)).toBeUndefined();
});
