/** What an annex counts: tables. */
import { describe, expect, test } from "vitest";
import {
  countFrom,
  countPromise,
  heartbeatAgeMs,
  noSight,
  type Sight,
  seeBeat,
  sees,
} from "./annex-state.ts";

describe("a promise", () => {
  const stored = (promisedMs: number, number: number) => [{ promisedMs, number }];
  const made = countFrom(undefined, stored(1000, 3), 0);

  test("lasts one percent longer than was said", () => {
    expect(made).toEqual({ numbers: [3], untilMonoMs: 1010 });
  });
  test("that this process did not make counts whole from when it was found", () => {
    expect(countPromise(undefined, stored(1000, 3), 500)).toEqual({
      ...{ numbers: [3], untilMonoMs: 1510 },
    });
    // By another agent of the annex, which was the primary meanwhile.
    expect(countPromise(made, stored(1000, 4), 500)?.untilMonoMs).toBe(1510);
  });
  test("is never shortened by another", () => {
    expect(countFrom(made, stored(10, 4), 0).untilMonoMs).toBe(1010);
  });
  test("is not ended by a reading from before it was made", () => {
    expect(countPromise(made, stored(0, 2), 1)).toBe(made);
    expect(countPromise(made, stored(0, 3), 1)).toBeUndefined();
    expect(countPromise(made, stored(1000, 3), 1)).toBe(made);
  });
});

describe("sight of the origin", () => {
  const seen = (beats: ReadonlyArray<readonly [number, number]>): Sight =>
    beats.reduce((sight, [beat, at], index) => seeBeat(sight, beat, at, index === 0), noSight(0));

  test.each<[string, Sight, number, string]>([
    ["nothing yet", noSight(0), 9000, "unknown"],
    ["what lay here before", seen([[5, 0]]), 1000, "unknown"],
    ["what lay here, and nothing since", seen([[5, 0]]), 3100, "silent"],
    [
      "a heartbeat",
      seen([
        [5, 0],
        [6, 400],
      ]),
      1900,
      "alive",
    ],
    [
      "a heartbeat of long ago",
      seen([
        [5, 0],
        [6, 400],
      ]),
      1901,
      "silent",
    ],
    [
      "its agent",
      {
        ...seen([
          [5, 0],
          [6, 400],
        ]),
        answeredMonoMs: 5000,
      },
      6000,
      "alive",
    ],
  ])("of %s: %#", (_, sight, at, what) => {
    expect(sees(sight, at)).toBe(what);
  });
  test("a heartbeat's age counts from its arrival", () => {
    expect(heartbeatAgeMs(noSight(0), 10)).toBeNull();
    expect(
      heartbeatAgeMs(
        seen([
          [5, 0],
          [6, 400],
        ]),
        900,
      ),
    ).toBe(500);
    expect(heartbeatAgeMs(seen([[5, 0]]), 900)).toBe(900);
  });
});
