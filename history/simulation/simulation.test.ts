/**
 * The mutation proof of the checker over whole fleets: without a mistake every seed is green, with each
 * mistake one of the seeds is red. A mistake of several tables is red in any of its ways: what exactly a
 * client sees of it depends on the seed.
 */
import { describe, expect, test } from "vitest";
import { type BugName, bugs, type Scenario } from "./bugs.ts";
import { simulate } from "./simulate.ts";

const scenarios: readonly Scenario[] = ["move", "takeover", "move-then-takeover"];
const soundSeeds = 120;
const seedsMax = 400;

describe("a sound fleet is green", () => {
  test.each(scenarios)("%s", (scenario) => {
    for (let seed = 1; seed <= soundSeeds; seed += 1) {
      const { verdict, ended } = simulate(seed, scenario);
      expect({ seed, ended, violations: verdict.violations.slice(0, 3) }).toEqual({
        seed,
        ended: true,
        violations: [],
      });
      expect(verdict.counts.acknowledged).toBeGreaterThan(20);
    }
  });
});

describe("a mistaken fleet is red", () => {
  const names = Object.keys(bugs) as BugName[];
  test.each(names)("%s", (bug) => {
    const { scenario } = bugs[bug];
    for (let seed = 1; seed <= seedsMax; seed += 1) {
      const { verdict } = simulate(seed, scenario, bug);
      if (verdict.ok) continue;
      const kinds = [...new Set(verdict.violations.map(({ kind }) => kind))];
      expect(kinds).not.toContain("malformed");
      return;
    }
    expect.unreachable(`${seedsMax} seeds of ${scenario} with ${bug} were all green`);
  });
});
