import { expect, test } from "vitest";
import { explore, type Model, tell } from "./explore.ts";

/** Two workers and a lock; with `racy` each looks first and takes later. */
type Lock = { readonly at: readonly ("out" | "looked" | "in")[] };
const set = (state: Lock, worker: number, place: Lock["at"][number]): Lock => ({
  at: state.at.map((one, n) => (n === worker ? place : one)),
});
const lock = (racy: boolean): Model<Lock> => ({
  initial: { at: ["out", "out"] },
  next: (state) =>
    state.at.flatMap((place, worker) => {
      const free = !state.at.includes("in");
      if (place === "in") return [{ label: `${worker} leaves`, state: set(state, worker, "out") }];
      if (place === "looked")
        return [{ label: `${worker} takes`, state: set(state, worker, "in") }];
      const to = racy ? "looked" : "in";
      return free ? [{ label: `${worker} looks`, state: set(state, worker, to) }] : [];
    }),
  broken: ({ at }) => (at[0] === "in" && at[1] === "in" ? "two are in" : undefined),
  isServed: ({ at }) => !at.includes("in"),
  canonical: ({ at }) => ({ at: at.toSorted() }),
});

test("every state is seen once, whatever the workers are called", () => {
  expect(explore(lock(false), 100)).toEqual({ kind: "holds", states: 2, steps: 3, depth: 1 });
});

test("the counterexample is a shortest one, and readable", () => {
  const result = explore(lock(true), 100);
  expect(result).toMatchObject({ kind: "broken", text: "two are in", trace: { length: 4 } });
  expect(tell(result)).toContain("  1. ");
});

test("a state from which nothing leads back is found, also if much can happen in it", () => {
  const trap: Model<{ readonly n: number }> = {
    initial: { n: 0 },
    next: ({ n }) =>
      n === 0
        ? [1, 2].map((to) => ({ label: `to ${to}`, state: { n: to } }))
        : n === 1
          ? [{ label: "back", state: { n: 0 } }]
          : [{ label: "around", state: { n: n === 2 ? 3 : 2 } }],
    broken: () => undefined,
    isServed: ({ n }) => n === 0,
  };
  expect(explore(trap, 100)).toMatchObject({ kind: "stuck", trace: ["to 2"] });
});

test("a step can be wrong although both its states are right", () => {
  const falling: Model<{ readonly epoch: number }> = {
    initial: { epoch: 0 },
    next: ({ epoch }) => [{ label: "on", state: { epoch: (epoch + 1) % 3 } }],
    broken: () => undefined,
    brokenStep: (before, after) => (after.epoch < before.epoch ? "the epoch fell" : undefined),
    isServed: () => true,
  };
  expect(explore(falling, 100)).toMatchObject({ kind: "broken", trace: { length: 3 } });
});

test("more states than allowed is no verdict", () => {
  expect(explore(lock(true), 2)).toEqual({ kind: "too-large", states: 3 });
});
