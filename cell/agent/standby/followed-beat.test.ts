/** What a physical standby has applied, against what is known and what is presented. */
import { expect, test } from "vitest";
import { isBehind, latestOf } from "./followed-beat.ts";

const latest = { beat: 0x1_0000_0020, grant: 7 };
const seen = { systemIdentifier: "7", timeline: 1, boot: null, grant: 9, lsn: "0/10" };

test.each([
  [true, { grant: 6, lsn: "2/0" }],
  [true, { grant: 7, lsn: "1/1F" }],
  [false, { grant: 7, lsn: "1/20" }],
  [false, { grant: 8, lsn: "1/21" }],
])("set back: %s, who presents %j", (verdict, asked) => {
  expect(isBehind(asked, latest)).toBe(verdict);
});

test("what was never read says nothing", () => {
  expect(isBehind({ grant: 0, lsn: "0/0" }, undefined)).toBe(false);
});

test("of each fact the later one is told", () => {
  expect(latestOf(seen, latest)).toEqual({ ...seen, grant: 9, lsn: "1/20" });
  const known = { ...seen, lsn: "2/0", grant: 1 };
  expect(latestOf(known, latest)).toEqual({ ...known, grant: 7 });
});
