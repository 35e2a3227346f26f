/** Which keys a router tells of when requests go wrong inside a cell. */
import { expect, test } from "vitest";
import type { CellId } from "../../contract/ids.ts";
import type { PlacementKey } from "../../contract/placement-key.ts";
import { BlamedByCell, BlamedKeys, blamedTogether } from "./blamed-keys.ts";

const key = (name: string) => `default/tenant/${name}` as PlacementKey;
const cell = "a" as CellId;

test("the worst come first, and those of long ago are not told", () => {
  const blamed = new BlamedKeys();
  blamed.note(key("slow"), "failed", 0);
  blamed.note(key("bad"), "open", 1000);
  blamed.note(key("slow"), "failed", 1000);
  blamed.note(key("bad"), "open", 2000);
  expect(blamed.worst(2000)).toEqual({
    worst: [
      { key: key("bad"), open: 2, failed: 0 },
      { key: key("slow"), open: 0, failed: 2 },
    ],
    partial: false,
  });
  expect(blamed.worst(31_500).worst.map((one) => one.key)).toEqual([key("bad")]);
  expect(blamed.worst(40_000)).toEqual({ worst: [], partial: false });
});

test("fifty are told; where there are more, or there was no room, it is said for as long as it matters", () => {
  const blamed = new BlamedKeys();
  for (let n = 0; n < 51; n += 1) blamed.note(key(`t${n}`), "open", 0);
  expect(blamed.worst(0)).toMatchObject({ partial: true });
  expect(blamed.worst(0).worst).toHaveLength(50);
  for (let n = 0; n < 2000; n += 1) blamed.note(key(`t${n}`), "open", 1000);
  expect(blamed.size).toBe(200);
  blamed.note(key("now"), "open", 31_000);
  expect(blamed.worst(31_000).partial).toBe(true);
  expect(blamed.worst(31_002)).toMatchObject({ worst: expect.any(Array), partial: true });
  // It was left out at 31 s, and there is room again.
  blamed.note(key("now"), "open", 40_000);
  expect(blamed.worst(40_000)).toMatchObject({ worst: [{ key: key("now") }], partial: true });
  blamed.note(key("now"), "open", 62_000);
  expect(blamed.worst(62_000)).toMatchObject({ worst: [{ key: key("now") }], partial: false });
});

test("an application that fails for everybody hides nobody whose request was cut off", () => {
  const blamed = new BlamedKeys();
  for (let n = 0; n < 2000; n += 1) blamed.note(key(`t${n}`), "failed", 0);
  blamed.note(key("bad"), "open", 0);
  expect(blamed.size).toBe(200);
  const told = blamed.worst(0);
  expect(told.worst[0]).toEqual({ key: key("bad"), open: 1, failed: 0 });
  expect(told.partial).toBe(true);
});

test("threads tell what is new; the report tells all of the last while, again and again", () => {
  const thread = new BlamedKeys();
  const all = new BlamedByCell();
  expect(all.worstOf(cell, undefined, 0)).toBeUndefined();
  thread.note(key("bad"), "open", 0);
  const once = [{ key: key("bad"), open: 1, failed: 0 }];
  expect(all.worstOf(cell, thread.take(0), 0)).toEqual({ worst: once, partial: false });
  thread.note(key("bad"), "failed", 10);
  const sum = { worst: [{ key: key("bad"), open: 1, failed: 1 }], partial: false };
  expect(all.worstOf(cell, thread.take(10), 10)).toEqual(sum);
  expect(all.worstOf(cell, undefined, 20)).toEqual(sum);
  expect(all.worstOf("b" as CellId, undefined, 20)).toBeUndefined();
  expect(all.worstOf(cell, undefined, 60_000)).toBeUndefined();
  expect(all.size).toBe(0);
});

test("many cells that fail for everybody fill no memory, and of those beyond it is said that nobody is named", () => {
  const all = new BlamedByCell();
  const fresh = { worst: [{ key: key("bad"), open: 1, failed: 0 }], partial: false };
  for (let n = 0; n < 1000; n += 1) all.worstOf(`c${n}` as CellId, fresh, 0);
  expect(all.size).toBe(100);
  expect(all.worstOf("c999" as CellId, fresh, 0)).toEqual({ worst: [], partial: true });
  expect(all.worstOf("c999" as CellId, fresh, 60_000)).toEqual(fresh);
  expect(all.size).toBe(1);
});

test("what threads told while nobody asked for hours is no more than one of them holds", () => {
  const told = (from: number) => ({
    worst: Array.from({ length: 150 }, (_, n) => ({
      key: key(`t${from + n}`),
      open: 1,
      failed: 1,
    })),
    partial: false,
  });
  let sum = blamedTogether(undefined, told(0));
  for (let turn = 0; turn < 100; turn += 1) sum = blamedTogether(sum, told(0));
  expect(sum).toMatchObject({ partial: false });
  expect(sum?.worst[0]).toMatchObject({ open: 101, failed: 101 });
  sum = blamedTogether(sum, told(100));
  expect(sum?.worst).toHaveLength(200);
  expect(sum?.partial).toBe(true);
});
