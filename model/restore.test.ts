/** A restored control plane in every order in which things can happen, and the mistakes of corrections A5. */
import { describe, expect, test } from "vitest";
import { explore, tell } from "./explore.ts";
import { restore } from "./restore.ts";
import { type RestoreBug, restoreBugs } from "./restore-state.ts";

const statesMax = 100_000;
const moves = { changesMax: 1, takeovers: false, lossesMax: 2, freezing: true };
const takeovers = { changesMax: 1, takeovers: true, lossesMax: 2, freezing: false };
const all = { ...takeovers, freezing: true };

test.each([
  moves,
  { ...moves, changesMax: 2, lossesMax: 1 },
  takeovers,
  { ...takeovers, changesMax: 2, lossesMax: 1 },
  all,
  { ...all, changesMax: 2 },
])(
  "a restored control plane makes no second owner, and gives no key to who lacks writes: %o",
  (sizes) => {
    expect(tell(explore(restore(sizes), statesMax))).toMatch(/^holds in \d+ states/);
  },
  60_000,
);

test("where keys only move, a restore that nobody notices for a while does no harm either", () => {
  const result = explore(restore(moves, "waits-for-evidence"), statesMax);
  expect(tell(result)).toMatch(/^holds in \d+ states/);
});

const sizesOf: Partial<Record<RestoreBug, Parameters<typeof restore>[0]>> = {
  "silent-is-gone": moves,
  "silent-is-no-heir": all,
  "kept-is-forgotten": { ...all, lossesMax: 3 },
};

describe("each mistake is found, by a shortest way", () => {
  test.each(Object.keys(restoreBugs) as RestoreBug[])(
    "%s",
    (bug) => {
      const sizes = sizesOf[bug] ?? takeovers;
      const result = explore(restore(sizes, bug), statesMax);
      if (result.kind === "broken" || result.kind === "stuck") {
        console.info(`${bug}: ${result.kind} after ${result.trace.length} steps`);
      }
      expect(result.kind).toMatch(/broken|stuck/);
    },
    60_000,
  );
});
