/** Waves, homes and waits: the executor's decisions, without anything around them. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { bucketOf, parsePlacementKey } from "../../../contract/placement-key.ts";
import { must } from "../../../runtime/assert.ts";
import { clockSlackMs, type HomeFacts, homeOf } from "./homes.ts";
import { judgeStopping, leaseWaitMs, stopLimits } from "./stopped.ts";
import { type AdoptableKey, planWaves, waveLimits } from "./waves.ts";

const keys = fc.uniqueArray(
  fc.record({
    key: fc.integer({ min: 0, max: 9999 }).map((n) => `default/tenant/t${n}`),
    epoch: fc.constant(1),
    annex: fc.constantFrom("sb-a", "sb-b", null),
    reason: fc.constant(""),
    tier: fc.constantFrom("gold" as const, "standard" as const, "free" as const),
    canary: fc.boolean(),
    bytes: fc.nat(1000),
  }),
  { selector: ({ key }) => key, maxLength: 400 },
);
const limits = { canariesPerAnnex: 2, first: 4, growth: 3, most: 50 };
const ranks = ["gold", "standard", "free"];

describe("waves", () => {
  test("every key that has an annex is in exactly one wave, whatever was done before", () => {
    fc.assert(
      fc.property(keys, fc.nat(4), (all, done) => {
        const waves = planWaves(all, done, limits);
        const named = waves.flat().map(({ key }) => key);
        const placed = all.filter(({ annex }) => annex !== null).map(({ key }) => key);
        expect(named.toSorted()).toEqual(placed.toSorted());
        expect(waves.every((wave) => wave.length > 0 && wave.length <= limits.most)).toBe(true);
        const rest = (done === 0 ? waves.slice(1) : waves).flat();
        const tiers = rest.map(({ tier }) => ranks.indexOf(tier));
        expect(tiers).toEqual(tiers.toSorted((a, b) => a - b));
      }),
    );
  });

  test("a second executor plans the rest in the same order", () => {
    fc.assert(
      fc.property(keys, fc.nat(3), (all, stop) => {
        const whole = planWaves(all, 0, limits);
        const done = whole.slice(0, stop + 1).flat();
        const left = all.filter(({ key }) => !done.some((one) => one.key === key));
        const rest = planWaves(left, stop + 1, limits).flat();
        expect(rest.map(({ key }) => key)).toEqual(
          whole
            .slice(stop + 1)
            .flat()
            .map(({ key }) => key),
        );
      }),
    );
  });

  test("who is labelled comes first, else the smallest of each annex", () => {
    const one = (name: string, more: Partial<AdoptableKey>): AdoptableKey => ({
      ...{ key: name, epoch: 1, annex: "sb-a", reason: "", tier: "gold", canary: false, bytes: 5 },
      ...more,
    });
    const all = [
      one("a", { bytes: 9 }),
      one("b", { bytes: 1, tier: "free" }),
      one("c", {}),
      one("d", { annex: "sb-b" }),
      one("e", { annex: "sb-b", canary: true, bytes: 99 }),
    ];
    const [first] = planWaves(all, 0, waveLimits);
    expect(first?.map(({ key }) => key)).toEqual(["b", "c", "e"]);
  });

  test("100,000 keys are planned in a moment, in waves that one revision can carry", () => {
    const many = Array.from({ length: 100_000 }, (_, n) => ({
      ...{ key: `default/tenant/t${n}`, epoch: 1, annex: `sb-${n % 3}`, reason: "" },
      ...{ tier: "standard" as const, canary: false, bytes: n },
    }));
    const waves = planWaves(many, 0);
    expect(waves.flat()).toHaveLength(100_000);
    expect(Math.max(...waves.map(({ length }) => length))).toBeLessThanOrEqual(5000);
    expect(waves.length).toBeLessThan(30);
  });
});

describe("homes", () => {
  const directory = {
    name: "default",
    strategy: "directory",
    slotCount: null,
    guardMode: "row",
  } as const;
  const key = "default/tenant/acme";
  const bucket = bucketOf(must(parsePlacementKey(key), key), { strategy: "directory" });
  const about = (change: Partial<HomeFacts> = {}): HomeFacts => ({
    ...{ cell: "cell-01", keyspaces: new Map([["default", directory]]), severedAtMs: 100_000 },
    ranges: [{ annex: "sb-a", lo: bucket, hi: bucket }],
    facts: {
      "sb-a": { status: "severed", reason: "", severed: { stores: [], heartbeatAgeMs: 100 } },
    },
    movedIn: new Map(),
    ...change,
  });

  test("by bucket; a bucket that nobody has, and an annex that is left out, say so", () => {
    expect(homeOf(key, about())).toEqual({ annex: "sb-a", reason: "" });
    const none = homeOf(key, about({ ranges: [] }));
    expect(none.annex).toBeNull();
    expect(none.reason).toContain(`no partner of cell-01 has a standby of its bucket ${bucket}`);
    const out = homeOf(key, about({ facts: { "sb-a": { status: "left-out", reason: "silent" } } }));
    expect(out.annex).toBeNull();
    expect(out.reason).toContain("sb-a: silent");
  });

  test("a key that a move had just brought is adopted only if the stream has certainly passed its switch", () => {
    const moved = (switchedAtMs: number) =>
      homeOf(
        key,
        about({ movedIn: new Map([[key, { move: "op_1", source: "cell-09", switchedAtMs }]]) }),
      );
    expect(moved(99_900 - clockSlackMs - 1).annex).toBe("sb-a");
    expect(moved(99_900).annex).toBeNull();
    expect(moved(99_900).reason).toContain("cellctl move show op_1");
  });
});

describe("the old owner has stopped", () => {
  const full = 4000 * 1.01 + stopLimits.graceMs;
  const lease = (sinceGrantMs: number | null, steadyMs: number) =>
    leaseWaitMs({ ttlMs: 4000, sinceGrantMs, steadyMs });

  test.each([
    ["no lease was ever granted", lease(null, 0), 0],
    ["a clock that was watched is believed", lease(1500, 60_000), full - 1500],
    ["a clock that was not watched for so long is not", lease(1500, 1000), full],
    ["nor one that says the grant lies ahead", lease(-3000, 60_000), full],
    ["not even for a while after", lease(8000, 0), full],
    ["long ago, whatever was done to the clock", lease(full + stopLimits.clockStepMaxMs + 1, 0), 0],
  ])("%s", (_, waited, expected) => {
    expect(waited).toBeCloseTo(expected);
  });

  const annex = (recorded: boolean, promiseRemainingMs = 0) => ({
    ...{ annex: "sb-a", recorded, promiseRemainingMs },
  });
  const judge = (elapsedMs: number, annexes: ReturnType<typeof annex>[], proved = false) =>
    judgeStopping({ leaseWaitMs: 1000, elapsedMs, annexes, proved }, { answerMs: 3000 });

  test("the lease, every order and every promise; proof ends promises alone", () => {
    expect(judge(999, [annex(true)], true).isOver).toBe(false);
    expect(judge(1000, [annex(true)]).isOver).toBe(true);
    expect(judge(1000, [annex(true, 5)])).toMatchObject({ isOver: false, promiseLeftMs: 5 });
    expect(judge(1000, [annex(true, 5)], true)).toMatchObject({ isOver: true, stopped: ["sb-a"] });
    // Without its word nobody knows what it has promised, dead or not.
    expect(judge(2999, [annex(false)], true).isOver).toBe(false);
    expect(judge(3000, [annex(false)], true)).toMatchObject({
      isOver: true,
      silent: ["sb-a"],
      stopped: [],
    });
    expect(judge(1000, []).isOver).toBe(true);
  });
});
