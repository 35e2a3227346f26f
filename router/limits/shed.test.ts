/** Who is refused at which load, and that levels do not flutter. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { priorities } from "../../contract/service-route.ts";
import { isShed, levelByLoad, noLag, observeLag, type ShedLevel, shedLevels } from "./shed.ts";

test("the lowest first, critical never", () => {
  const refused = shedLevels.map((level) => priorities.filter((one) => isShed(level, one)));
  expect(refused).toEqual([[], ["low"], ["normal", "low"], ["high", "normal", "low"]]);
});

test("the level rises at its share and falls a tenth below it", () => {
  const levels = [0.69, 0.7, 0.65, 0.6, 0.59, 0.86, 0.75, 0.74, 0.96, 0.85, 0.84, 0.1];
  let level: ShedLevel = 0;
  const seen = levels.map((share) => {
    level = levelByLoad(level, share);
    return level;
  });
  expect(seen).toEqual([0, 1, 1, 1, 0, 2, 2, 1, 3, 3, 2, 0]);
});

test("between two thresholds no sequence makes it flutter", () => {
  const within = fc.array(fc.double({ min: 0.76, max: 0.84, noNaN: true }), { minLength: 2 });
  fc.assert(
    fc.property(within, fc.constantFrom(...shedLevels), (shares, start) => {
      const first = levelByLoad(start, shares[0] ?? 0.8);
      let level = first;
      for (const share of shares) level = levelByLoad(level, share);
      expect(level).toBe(first);
    }),
  );
});

const lagged = (samples: readonly number[]) =>
  samples.reduce((lag, ms) => observeLag(lag, ms, 300), noLag).level;
const times = (count: number, ms: number) => Array.from({ length: count }, () => ms);

test.each([
  ["two late turns", times(2, 900), 0],
  ["three in a row", times(3, 900), 1],
  ["two, a good one, two more", [900, 900, 0, 900, 900], 0],
  ["six in a row", times(6, 900), 2],
  ["any number", times(50, 900), 3],
  ["three, and nine good ones", [...times(3, 900), ...times(9, 0)], 1],
  ["three, and ten good ones", [...times(3, 900), ...times(10, 0)], 0],
  ["three, and many that are neither", [...times(3, 900), ...times(50, 200)], 1],
] as const)("%s", (_name, samples, wanted) => {
  expect(lagged(samples)).toBe(wanted);
});
