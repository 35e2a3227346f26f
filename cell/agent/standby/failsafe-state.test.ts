/** Rules of a failsafe: tables of single decisions, and histories in which clocks drift, jump and restart. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parseCellId } from "../../../contract/ids.ts";
import type { Partner } from "../../../contract/standby-api.ts";
import { must } from "../../../runtime/assert.ts";
import { type CountedPromise, countFrom, countPromise, type StoredPromise } from "./annex-state.ts";
import {
  answerMsOf,
  type Failsafe,
  type GrantView,
  hearPartner,
  isTimeForFailsafe,
  lookEveryMs,
  loseOfPromises,
  noPromises,
  planGrant,
} from "./failsafe-state.ts";

const id = (text: string) => must(parseCellId(text), "cell id");
const partner = (annex: string, lo: number, hi: number): Partner => ({
  ...{ annex: id(annex), host: id("host"), endpoint: "http://127.0.0.1:1", lo, hi, token: "t" },
});
const [a, b] = [partner("sb-a", 0, 127), partner("sb-b", 128, 255)];
const promised = (promisedMs: number, sentMonoMs = 0) =>
  ({ kind: "promised", promisedMs, number: 1, sentMonoMs }) as const;
const view = (change: Partial<GrantView> = {}): GrantView => ({
  ...{ partners: [a, b], refused: false, foreign: undefined, boot: "b1", leased: true },
  manual: undefined,
  ...{ stopped: new Set<string>(), ttlMs: 4000, leaseLeftMs: 1500, nowMonoMs: 0 },
  ...change,
});
const both = [a, b].reduce(
  (state, { annex }) => hearPartner(state, annex, promised(100_000), "b1"),
  noPromises,
);
const silentTwice = (state: Failsafe, annex: string) =>
  hearPartner(hearPartner(state, annex, { kind: "silent" }, "b1"), annex, { kind: "silent" }, "b1");

describe("a lease without the control plane", () => {
  test("lasts a whole TTL by the promises of all", () => {
    expect(planGrant(both, view())).toEqual({ kind: "grant", forMs: 4000, stop: [] });
  });
  test.each<[string, Partial<GrantView>]>([
    ["was never told of partners", { partners: undefined }],
    ["was refused", { refused: true }],
    ["is taken for another", { foreign: "TIME_TRAVEL" }],
    ["was started anew, and nobody vouches", { leased: false, boot: "b2" }],
    ["was started anew and has no partners", { leased: false, boot: "b2", partners: [] }],
  ])("is not there for a cell that %s", (_, change) => {
    expect(planGrant(both, view(change)).kind).toBe("none");
  });
  test("needs nobody where nobody could take over", () => {
    const plan = planGrant(noPromises, view({ partners: [] }));
    expect(plan).toEqual({ kind: "grant", forMs: 4000, stop: [] });
  });
  test("ends before a promise, and what that promise kept stops before it is extended", () => {
    expect(planGrant(both, view({ nowMonoMs: 96_000 }))).toEqual({
      ...{ kind: "grant", forMs: 3000, stop: [] },
    });
    const renewed = hearPartner(both, b.annex, promised(100_000, 97_500), "b1");
    const late = silentTwice(renewed, a.annex);
    expect(planGrant(late, view({ nowMonoMs: 97_500, leaseLeftMs: 0 }))).toEqual({
      ...{ kind: "grant", forMs: 4000, stop: [a] },
    });
  });
  test("waits for a partner while the one that stands lasts, then goes on without its buckets", () => {
    const one = hearPartner(noPromises, a.annex, promised(100_000), "b1");
    const asked = silentTwice(one, b.annex);
    expect(planGrant(one, view()).kind).toBe("wait");
    expect(planGrant(asked, view({ leaseLeftMs: 1500 })).kind).toBe("wait");
    expect(planGrant(asked, view({ leaseLeftMs: 700 }))).toMatchObject({ stop: [b] });
  });
  test("is nobody's when no partner promises", () => {
    const asked = silentTwice(silentTwice(noPromises, a.annex), b.annex);
    expect(planGrant(asked, view({ leaseLeftMs: 0 })).kind).toBe("none");
    // What no partner keeps goes on.
    const some = view({ leaseLeftMs: 0, partners: [a] });
    expect(planGrant(asked, some)).toMatchObject({ kind: "grant", stop: [a] });
  });
  test("does without a partner that is being taken over from at once", () => {
    const lost = hearPartner(both, a.annex, { kind: "takeover" }, "b1");
    expect(planGrant(lost, view())).toMatchObject({ kind: "grant", stop: [a] });
  });
  test("asks for nothing again of buckets that are stopped", () => {
    const stopped = new Set([a.annex]);
    const one = hearPartner(noPromises, b.annex, promised(100_000), "b1");
    expect(planGrant(one, view({ stopped }))).toMatchObject({ kind: "grant", stop: [] });
  });
});

test.each([
  [{ leaseLeftShare: 0.5, silentMs: 9000 }, false],
  [{ leaseLeftShare: 0.3, silentMs: 0 }, false],
  [{ leaseLeftShare: 0.3, silentMs: 700 }, false],
  [{ leaseLeftShare: 0.3, silentMs: 1200 }, true],
  [{ leaseLeftShare: 0, silentMs: 1200 }, true],
])("with %o it is time: %s", (one, time) => {
  expect(isTimeForFailsafe({ ...one, ttlMs: 4000 })).toBe(time);
});

test.each([4000, 10_000, 30_000])(
  "a partner that hangs costs a cell with leases of %i ms no others",
  (ttlMs) => {
    // Asked for after a third of the lease, and never answered.
    const dueMs = ttlMs / 3;
    const lookAtWorst = (nowMs: number) => nowMs + lookEveryMs;
    let nowMs = dueMs;
    const leftMs = () => ttlMs - nowMs;
    const isTime = () =>
      isTimeForFailsafe({ leaseLeftShare: leftMs() / ttlMs, silentMs: nowMs - dueMs, ttlMs });
    while (!isTime()) nowMs += 1;
    nowMs = lookAtWorst(nowMs);
    let state = hearPartner(noPromises, a.annex, promised(100_000, nowMs), "b1");
    const plan = () => planGrant(state, view({ ttlMs, leaseLeftMs: leftMs(), nowMonoMs: nowMs }));
    while (plan().kind === "wait") {
      nowMs += answerMsOf(ttlMs);
      state = hearPartner(state, b.annex, { kind: "silent" }, "b1");
      if (plan().kind === "wait") nowMs = lookAtWorst(nowMs);
    }
    expect(plan()).toMatchObject({ kind: "grant", stop: [b] });
    // Time to stop its buckets.
    expect(leftMs()).toBeGreaterThanOrEqual(ttlMs / 20);
  },
);

/** Real time is that of the world; each side has a clock of its own rate. */
type World = {
  now: number;
  origin: { state: Failsafe; boot: number; leaseEnd: number; stopped: Set<string>; asked: number };
  annexes: Array<{
    promise: CountedPromise | undefined;
    stored: StoredPromise;
    noMore: boolean;
  }>;
};
const step = fc.record({
  at: fc.integer({ min: 0, max: 1 }),
  after: fc.integer({ min: 0, max: 1500 }),
  lag: fc.integer({ min: 0, max: 800 }),
  kind: fc.constantFrom(
    "ask",
    "ask",
    "lost",
    "grant",
    "grant",
    "order",
    "forget",
    "sleep",
    "restart",
  ),
});
const rate = fc.double({ min: 0.99, max: 1.01, noNaN: true });

test("no key is served where it may be activated elsewhere, however clocks drift and agents restart", () => {
  fc.assert(
    fc.property(
      fc.array(step, { maxLength: 60 }),
      fc.tuple(rate, rate, rate),
      fc.integer({ min: 1000, max: 9000 }),
      (steps, [originRate, ...annexRates], promiseMs) => {
        const world: World = {
          now: 0,
          origin: { state: noPromises, boot: 1, leaseEnd: 0, stopped: new Set(), asked: 0 },
          annexes: annexRates.map(() => ({
            ...{
              promise: undefined,
              stored: { promisedMs: 0, number: 0 },
              noMore: false,
              open: false,
            },
          })),
        };
        for (const one of steps) {
          world.now += one.after;
          run(world, one, { originRate, annexRates, promiseMs });
          check(world, annexRates);
        }
      },
    ),
    { numRuns: 3000 },
  );
});

type Rates = {
  readonly originRate: number;
  readonly annexRates: number[];
  readonly promiseMs: number;
};

function run(
  world: World,
  { at, lag, kind }: { readonly at: number; readonly lag: number; readonly kind: string },
  { originRate, annexRates, promiseMs }: Rates,
): void {
  const { origin } = world;
  const annex = must(world.annexes[at], "annex");
  const { annex: name } = must([a, b][at], "partner");
  const mono = (rateOf: number) => world.now * rateOf;
  review(annex, mono(must(annexRates[at], "rate")));
  switch (kind) {
    case "ask":
    case "lost": {
      const sentMonoMs = mono(originRate);
      world.now += lag;
      review(annex, mono(must(annexRates[at], "rate")));
      if (annex.noMore) {
        if (kind === "ask")
          origin.state = hearPartner(origin.state, name, { kind: "takeover" }, String(origin.boot));
        return;
      }
      annex.stored = { promisedMs: promiseMs, number: annex.stored.number + 1 };
      annex.promise = countFrom(annex.promise, [annex.stored], mono(must(annexRates[at], "rate")));
      world.now += lag;
      const answer =
        kind === "ask"
          ? ({
              kind: "promised",
              promisedMs: promiseMs,
              number: annex.stored.number,
              sentMonoMs,
            } as const)
          : ({ kind: "silent" } as const);
      origin.state = hearPartner(origin.state, name, answer, String(origin.boot));
      return;
    }
    case "grant": {
      const readAt = world.now;
      const plan = planGrant(origin.state, {
        ...view({ boot: String(origin.boot), leased: false, leaseLeftMs: 0 }),
        ...{ stopped: origin.stopped, nowMonoMs: mono(originRate) },
      });
      if (plan.kind !== "grant") return;
      for (const { annex: stopping } of plan.stop) origin.stopped.add(stopping);
      // By its own clock, from when that was read.
      origin.leaseEnd = Math.max(origin.leaseEnd, readAt + plan.forMs / originRate);
      return;
    }
    case "order":
      annex.noMore = true;
      return;
    case "forget":
      annex.promise = countPromise(undefined, [annex.stored], mono(must(annexRates[at], "rate")));
      return;
    case "sleep":
      // Its monotonic clock stood still meanwhile; the wall clock tells by how much.
      origin.state = loseOfPromises(origin.state, lag);
      return;
    default:
      origin.boot += 1;
      origin.leaseEnd = 0;
  }
}

function review(annex: World["annexes"][number], nowMonoMs: number): void {
  annex.promise = countPromise(annex.promise, [annex.stored], nowMonoMs);
  if (annex.promise !== undefined && nowMonoMs >= annex.promise.untilMonoMs) {
    annex.stored = { ...annex.stored, promisedMs: 0 };
    annex.promise = undefined;
  }
}

/** Until the annex's promise ends, by its own clock, nobody activates anything there; and no moment longer. */
function check({ now, origin, annexes }: World, annexRates: readonly number[]): void {
  for (const [at, { promise }] of annexes.entries()) {
    const { annex } = must([a, b][at], "partner");
    if (origin.stopped.has(annex)) continue;
    const free = promise === undefined ? now : promise.untilMonoMs / must(annexRates[at], "rate");
    expect(origin.leaseEnd, `${annex} is free at ${now}`).toBeLessThanOrEqual(
      Math.max(now, free) + 0.001,
    );
  }
}
