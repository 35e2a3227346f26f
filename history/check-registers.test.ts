/**
 * The search against the definition: on small histories every order is tried, and both must agree. Then
 * what it costs on long ones, and that what is too large is said to be so.
 */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { createChecker } from "./check.ts";
import { judgeRegister, type RegisterOp } from "./check-registers.ts";
import type { Entry } from "./model.ts";

/** The definition: some order of all answered and some unknown operations explains every answer. */
function isExplained(ops: readonly RegisterOp[], state: string | null = null): boolean {
  if (ops.every(({ found }) => found === undefined)) return true;
  const bound = Math.min(
    ...ops.map(({ found, endedAt }) => (found === undefined ? Infinity : endedAt)),
  );
  return ops.some((op) => {
    if (op.beganAt > bound || (op.found !== undefined && op.found !== state)) return false;
    const next = op.swap?.expected === state ? op.swap.value : state;
    const rest = ops.filter((other) => other !== op);
    return isExplained(rest, op.swap === undefined ? state : next);
  });
}

const value = fc.constantFrom("a", "b", "c");
const valueOrNothing = fc.option(value, { nil: null });
const anyOp = fc
  .record({
    beganAt: fc.integer({ min: 0, max: 8 }),
    took: fc.integer({ min: 0, max: 4 }),
    isSwap: fc.boolean(),
    expected: valueOrNothing,
    value,
    found: valueOrNothing,
    isUnknown: fc.boolean(),
  })
  .map(
    (one): RegisterOp => ({
      process: "p",
      beganAt: one.beganAt,
      endedAt: one.isUnknown ? Infinity : one.beganAt + one.took,
      swap: one.isSwap ? { expected: one.expected, value: one.value } : undefined,
      found: one.isUnknown ? undefined : one.found,
    }),
  );

/** As a real register would have answered: each operation at one moment between beginning and answer. */
const soundOps = fc
  .array(
    fc.record({
      before: fc.integer({ min: 0, max: 30 }),
      after: fc.integer({ min: 0, max: 30 }),
      isSwap: fc.boolean(),
      fits: fc.boolean(),
      fate: fc.constantFrom("answered", "answered", "answered", "unknown", "never done"),
    }),
    { minLength: 1, maxLength: 120 },
  )
  .map((specs) => {
    let state: string | null = null;
    return specs.map(({ before, after, isSwap, fits, fate }, n): RegisterOp => {
      const moment = n * 10;
      const found: string | null = state;
      const swap = isSwap ? { expected: fits ? state : "nothing", value: `v${n}` } : undefined;
      if (swap !== undefined && fits && fate !== "never done") state = swap.value;
      const answered = fate === "answered";
      return {
        process: "p",
        beganAt: moment - before,
        endedAt: answered ? moment + after : Infinity,
        swap,
        found: answered ? found : undefined,
      };
    });
  });

describe("the search", () => {
  test("agrees with the definition on every small history", () => {
    const seen = { linearizable: 0, violated: 0, undecided: 0 };
    fc.assert(
      fc.property(fc.array(anyOp, { maxLength: 6 }), (ops) => {
        const { kind } = judgeRegister(ops);
        seen[kind] += 1;
        expect(kind).toBe(isExplained(ops) ? "linearizable" : "violated");
      }),
      { numRuns: 3000 },
    );
    // Both verdicts were met often enough to say something.
    expect(Math.min(seen.linearizable, seen.violated)).toBeGreaterThan(300);
  });

  test("finds the order of what a real register answered", () => {
    fc.assert(
      fc.property(soundOps, (ops) => {
        expect(judgeRegister(ops)).toEqual({ kind: "linearizable" });
      }),
    );
  });

  test("names the answer that no order explains", () => {
    fc.assert(
      fc.property(soundOps, (ops) => {
        const late = { process: "reader", beganAt: 1e6, endedAt: 1e6, swap: undefined };
        const verdict = judgeRegister([...ops, { ...late, found: "never written" }]);
        expect(verdict).toMatchObject({ kind: "violated", stuck: { process: "reader" } });
      }),
    );
  });

  test("takes five thousand operations of eight processes in its stride", () => {
    const ops: RegisterOp[] = Array.from({ length: 5000 }, (_, n) => ({
      process: `p${n % 8}`,
      beganAt: n * 10 - 40,
      endedAt: n * 10 + 40,
      swap: n % 2 === 0 ? { expected: n === 0 ? null : `v${n - 2}`, value: `v${n}` } : undefined,
      found: n < 1 ? null : `v${n % 2 === 0 ? n - 2 : n - 1}`,
    }));
    expect(judgeRegister(ops, 10_000)).toEqual({ kind: "linearizable" });
  });
});

test("what is too large to judge is not green", () => {
  const checker = createChecker({ registerStepsMax: 100 });
  const by = { cell: "cell-01", epoch: 1 };
  const unknown = Array.from({ length: 16 }, (_, n): Entry[] => [
    {
      kind: "swap",
      at: 0,
      process: `p${n}`,
      tenant: "acme",
      register: "r",
      expected: n === 0 ? null : `v${n % 4}`,
      value: `v${(n + 1) % 4}`,
    },
    { kind: "info", at: 0, process: `p${n}`, reason: "cut" },
  ]);
  const entries: Entry[] = [
    { kind: "head", format: "cellfleet.history", version: 2, run: "test" },
    ...unknown.flat(),
    { kind: "look", at: 1, process: "reader", tenant: "acme", register: "r" },
    { kind: "found", at: 2, process: "reader", value: "never written", ...by },
  ];
  for (const entry of entries) checker.feed(entry);
  expect(checker.verdict()).toMatchObject({ ok: false, violations: [{ kind: "undecided" }] });
});
