import { describe, expect, test } from "vitest";
import { seeUnattended, type UnattendedMemory } from "./unattended.ts";

const limits = { silentMs: 20_000, looks: 10, gapMs: 5000 };
/** Looks at these times; the tables that have no worker by then. */
function look(
  times: readonly number[],
  tablesAt: (ms: number) => readonly string[],
  memory: UnattendedMemory = new Map(),
) {
  let found: readonly string[] = [];
  for (const nowMs of times) {
    found = seeUnattended(memory, "sb", { tables: tablesAt(nowMs), nowMs }, limits);
  }
  return found;
}
const everySecond = (seconds: number) => Array.from({ length: seconds + 1 }, (_, at) => at * 1000);

describe("a copy that was begun and has no worker", () => {
  test("is given up when none was seen for 20 s of looks", () => {
    expect(look(everySecond(19), () => ["orders"])).toEqual([]);
    expect(look(everySecond(20), () => ["orders"])).toEqual(["orders"]);
  });

  test("a worker that is seen once in between begins it anew; other tables count by themselves", () => {
    const tables = (ms: number) => (ms === 9000 ? ["notes"] : ["orders", "notes"]);
    expect(look(everySecond(20), tables)).toEqual(["notes"]);
    expect(look(everySecond(30), tables)).toEqual(["orders", "notes"]);
  });

  test("time in which nobody looked says nothing, and few looks say little", () => {
    const gap = [0, 1000, 2000, 60_000, 61_000];
    expect(look(gap, () => ["orders"])).toEqual([]);
    expect(look([...everySecond(11), 60_000], () => ["orders"])).toEqual([]);
    expect(look([0, 5000, 10_000, 15_000, 20_000], () => ["orders"])).toEqual([]);
  });

  test("another stream's copy of the same table is another one", () => {
    const memory: UnattendedMemory = new Map();
    look(everySecond(20), () => ["orders"], memory);
    const other = { tables: ["orders"], nowMs: 21_000 };
    expect(seeUnattended(memory, "sb-other", other, limits)).toEqual([]);
  });
});
