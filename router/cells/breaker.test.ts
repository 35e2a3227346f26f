/** The breaker's table of states, and what opens it, over an invented clock. */
import fc from "fast-check";
import { expect, test } from "vitest";
import {
  type Breaker,
  beginTrial,
  breakerEvents,
  breakerStates,
  breakerTransitions,
  createBreaker,
  type EjectionReason,
  type Evidence,
  isDead,
  isTrialDue,
  breakerLimits as limits,
  noteAttempt,
  noteReached,
} from "./breaker.ts";

const failed = (reason: EjectionReason): Evidence => ({ kind: "failed", reason });
const answered: Evidence = { kind: "answered" };
const none: Evidence = { kind: "none" };

/** Evidence of a request that was picked a moment ago. */
const note = (breaker: Breaker, evidence: Evidence, nowMs = 0, who = "acme") =>
  noteAttempt(breaker, { evidence, turn: breaker.turn, who }, nowMs, limits);
const times = (count: number, run: () => unknown) => Array.from({ length: count }, run).at(-1);
const opened = (reason: EjectionReason = "reset", atMs = 0): Breaker => {
  const breaker = createBreaker();
  expect(times(limits.failuresInRow, () => note(breaker, failed(reason), atMs))).toBe(reason);
  return breaker;
};

test("the table of states", () => {
  const drawn = breakerStates.flatMap((state) =>
    breakerEvents.flatMap((event) => {
      const next = breakerTransitions[state][event];
      return next === undefined ? [] : [`${state} -${event}-> ${next}`];
    }),
  );
  expect(drawn).toEqual([
    "closed -tripped-> open",
    "open -trial-began-> half-open",
    "open -answered-> closed",
    "open -reached-> closed",
    "half-open -trial-began-> half-open",
    "half-open -answered-> closed",
    "half-open -failed-> open",
    "half-open -abandoned-> open",
  ]);
});

test("four failures and an answer leave it closed, however often", () => {
  const breaker = createBreaker();
  for (let round = 0; round < 10; round += 1) {
    times(limits.failuresInRow - 1, () => note(breaker, failed("reset")));
    note(breaker, answered);
  }
  expect(breaker.state).toBe("closed");
});

test("it is out for 10 s, then for twice as long each time, at most 300 s", () => {
  const breaker = opened();
  let nowMs = 0;
  const waits: number[] = [];
  for (let round = 0; round < 8; round += 1) {
    waits.push(breaker.untilMs - nowMs);
    expect(isTrialDue(breaker, breaker.untilMs - 1, false, limits)).toBe(false);
    nowMs = breaker.untilMs;
    expect(isTrialDue(breaker, nowMs, false, limits)).toBe(true);
    beginTrial(breaker, nowMs);
    expect(note(breaker, failed("timeout"), nowMs)).toBe("timeout");
  }
  expect(waits).toEqual([10, 20, 40, 80, 160, 300, 300, 300].map((seconds) => seconds * 1000));
});

test("after a calm minute the next time out is a first one again", () => {
  const breaker = opened();
  beginTrial(breaker, 10_000);
  note(breaker, answered, 10_000);
  times(limits.failuresInRow, () => note(breaker, failed("reset"), 20_000));
  expect(breaker.untilMs - 20_000).toBe(20_000);
  beginTrial(breaker, 40_000);
  note(breaker, answered, 40_000);
  times(limits.failuresInRow, () => note(breaker, failed("reset"), 100_001));
  expect(breaker.untilMs - 100_001).toBe(10_000);
});

test("what the background reached is back if nothing listened there, or if its time is over", () => {
  const dead = opened("connect");
  noteReached(dead, 1, limits);
  expect([dead.state, isDead(dead, limits)]).toEqual(["closed", false]);
  expect(note(dead, failed("connect"), 2)).toBeUndefined();
  const silent = opened("timeout");
  noteReached(silent, silent.untilMs - 1, limits);
  expect(silent.state).toBe("open");
  noteReached(silent, silent.untilMs, limits);
  expect(silent.state).toBe("closed");
  const tried = opened("connect");
  beginTrial(tried, 10_000);
  noteReached(tried, 10_001, limits);
  expect(tried.state).toBe("half-open");
});

test("half open there is one trial, and what comes of it decides", () => {
  const breaker = opened();
  beginTrial(breaker, 10_000);
  expect(isTrialDue(breaker, 60_000, true, limits)).toBe(false);
  expect(note(breaker, none, 10_001)).toBeUndefined();
  expect(isTrialDue(breaker, 10_001, false, limits)).toBe(true);
  beginTrial(breaker, 10_002);
  note(breaker, answered, 10_003);
  expect([breaker.state, breaker.run]).toEqual(["closed", 0]);
});

test("what was asked before it opened neither closes it nor opens it longer", () => {
  const breaker = createBreaker();
  const { turn } = breaker;
  times(limits.failuresInRow, () => note(breaker, failed("reset")));
  const { untilMs } = breaker;
  noteAttempt(breaker, { evidence: answered, turn, who: "acme" }, 5, limits);
  noteAttempt(breaker, { evidence: failed("reset"), turn, who: "acme" }, 5, limits);
  expect([breaker.state, breaker.untilMs]).toEqual(["open", untilMs]);
});

test("dead is where five in a row could not connect, or a trial could not", () => {
  expect(isDead(opened("connect"), limits)).toBe(true);
  expect(isDead(opened("reset"), limits)).toBe(false);
  const mixed = createBreaker();
  note(mixed, failed("reset"));
  times(limits.failuresInRow - 1, () => note(mixed, failed("connect")));
  expect([mixed.state, isDead(mixed, limits)]).toEqual(["open", false]);
  // It was used all the same, because no other was left.
  note(mixed, failed("connect"));
  expect(isDead(mixed, limits)).toBe(true);
  note(mixed, failed("reset"));
  expect(isDead(mixed, limits)).toBe(false);
  const tried = opened("reset");
  beginTrial(tried, 10_000);
  note(tried, failed("connect"), 10_001);
  expect(isDead(tried, limits)).toBe(true);
  const early = opened("connect");
  expect(isTrialDue(early, limits.lastResortMs - 1, true, limits)).toBe(false);
  expect(isTrialDue(early, limits.lastResortMs, true, limits)).toBe(true);
});

test("one tenant whose requests break takes the endpoint from nobody who is answered there", () => {
  const breaker = createBreaker();
  note(breaker, answered, 0, "globex");
  times(1000, () => note(breaker, failed("answer"), limits.vouchMs, "acme"));
  expect(breaker.state).toBe("closed");
  // Nobody has been answered for long: it is not the tenant.
  note(breaker, failed("answer"), limits.vouchMs + 1, "acme");
  expect(breaker.state).toBe("open");
});

test("the answers of the tenant itself vouch for nothing", () => {
  const breaker = createBreaker();
  note(breaker, answered, 0, "acme");
  times(limits.failuresInRow, () => note(breaker, failed("answer"), 1, "acme"));
  expect(breaker.state).toBe("open");
});

test("failures of two tenants in a row open it, whoever was answered before", () => {
  const breaker = createBreaker();
  note(breaker, answered, 0, "initech");
  for (const who of ["acme", "acme", "globex", "acme", "acme"]) {
    note(breaker, failed("answer"), 1, who);
  }
  expect(breaker.state).toBe("open");
});

test("a connection that is refused is nobody's own trouble", () => {
  const breaker = createBreaker();
  note(breaker, answered, 0, "globex");
  times(limits.failuresInRow, () => note(breaker, failed("connect"), 1, "acme"));
  expect(isDead(breaker, limits)).toBe(true);
});

test("a trial of which nothing is heard makes room for another", () => {
  const breaker = opened();
  beginTrial(breaker, 10_000);
  const { turn } = breaker;
  expect(isTrialDue(breaker, 10_000 + limits.trialMs - 1, true, limits)).toBe(false);
  expect(isTrialDue(breaker, 10_000 + limits.trialMs, false, limits)).toBe(true);
  beginTrial(breaker, 10_000 + limits.trialMs);
  expect(isTrialDue(breaker, 10_000 + limits.trialMs, true, limits)).toBe(false);
  noteAttempt(breaker, { evidence: answered, turn, who: "acme" }, 80_000, limits);
  expect(breaker.state).toBe("half-open");
});

test("whatever happens, it can be tried again within the longest time out", () => {
  const step = fc.record({
    evidence: fc.constantFrom(answered, none, failed("connect"), failed("reset"), failed("answer")),
    who: fc.constantFrom("acme", "globex"),
    afterMs: fc.integer({ min: 0, max: 20_000 }),
    stale: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const breaker = createBreaker();
      let nowMs = 0;
      for (const { evidence, who, afterMs, stale } of steps) {
        nowMs += afterMs;
        if (isTrialDue(breaker, nowMs, false, limits)) beginTrial(breaker, nowMs);
        const turn = breaker.turn - (stale ? 1 : 0);
        noteAttempt(breaker, { evidence, turn, who }, nowMs, limits);
        if (breaker.state === "open") {
          expect(breaker.untilMs - nowMs).toBeLessThanOrEqual(limits.openMsMax);
        }
        if (breaker.state === "closed") expect(isDead(breaker, limits)).toBe(false);
      }
    }),
  );
});
