/** A planned move in every order in which things can happen, and each known mistake, which must be found. */
import { describe, expect, test } from "vitest";
import { explore, tell } from "./explore.ts";
import { plannedMove } from "./planned-move.ts";
import { type MoveBug, moveBugs } from "./planned-move-state.ts";

const statesMax = 100_000;
const sizes = { writes: 1, jobs: 0, executorsMax: 2, triesMax: 1 };
const withJob = { ...sizes, writes: 0, jobs: 1 };
const small = { ...sizes, writes: 0, executorsMax: 1 };
const sizeOf: Partial<Record<MoveBug, typeof sizes>> = {
  "fence-does-not-wait": withJob,
  "late-hold": small,
  "try-same-attempt": { ...sizes, executorsMax: 1, triesMax: 2 },
};

test.each([{ ...sizes, triesMax: 2 }, withJob])(
  "a planned move keeps its promises in every state: %o",
  (size) => {
    expect(tell(explore(plannedMove(size), statesMax))).toMatch(/^holds in \d+ states/);
  },
  60_000,
);

describe("each mistake is found, by a shortest way", () => {
  test.each(Object.keys(moveBugs) as MoveBug[])(
    "%s",
    (bug) => {
      const result = explore(plannedMove(sizeOf[bug] ?? sizes, bug), statesMax);
      if (result.kind === "broken" || result.kind === "stuck") {
        console.info(`${bug}: ${result.kind} after ${result.trace.length} steps`);
      }
      expect(result.kind).toMatch(/broken|stuck/);
    },
    60_000,
  );
});
