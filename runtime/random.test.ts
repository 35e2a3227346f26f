import fc from "fast-check";
import { expect, test } from "vitest";
import { parseOpId } from "../contract/ids.ts";
import { jitter, newOpId, systemRandom } from "./random.ts";

test("jitter stays within its share, on both sides", () => {
  fc.assert(
    fc.property(fc.double({ min: 0, max: 0.999_999, noNaN: true }), (unit) => {
      const ms = jitter({ ...systemRandom, unit: () => unit }, 1000, 0.1);
      expect(ms).toBeGreaterThanOrEqual(900);
      expect(ms).toBeLessThan(1100);
    }),
  );
});

test("operation ids are ids, differ, and sort by time", () => {
  const early = newOpId(systemRandom, Date.UTC(2026, 0, 1));
  const late = newOpId(systemRandom, Date.UTC(2026, 0, 2));
  expect([early, late].map((id) => parseOpId(id))).toEqual([early, late]);
  expect(early < late).toBe(true);
  expect(newOpId(systemRandom, 0)).not.toBe(newOpId(systemRandom, 0));
});

test("hex has two characters for each byte", () => {
  expect(systemRandom.hex(16)).toMatch(/^[0-9a-f]{32}$/);
});

test("no two ids are made of the same chance, across many refills, and of any length", () => {
  const ids = Array.from({ length: 5000 }, (_, at) => systemRandom.hex(8 + (at % 17)));
  expect(new Set(ids.map((id) => id.slice(0, 16))).size).toBe(ids.length);
  expect(systemRandom.hex(5000)).toMatch(/^[0-9a-f]{10000}$/);
  expect(systemRandom.hex(4096)).not.toMatch(/^0+$/);
});
