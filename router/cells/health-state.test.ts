/** What probes make of an endpoint. */
import { expect, test } from "vitest";
import {
  type Health,
  healthEvents,
  healthLimits,
  healthStates,
  healthTransitions,
  observeHealth,
  unknownHealth,
} from "./health-state.ts";

const seen = (signs: string): Health =>
  [...signs].reduce(
    (health, sign) => observeHealth(health, sign === "+", healthLimits),
    unknownHealth,
  );

test("the table of states", () => {
  const drawn = healthStates.flatMap((state) =>
    healthEvents.flatMap((event) => {
      const next = healthTransitions[state][event];
      return next === undefined ? [] : [`${state} -${event}-> ${next}`];
    }),
  );
  expect(drawn).toEqual([
    "unknown -rose-> up",
    "unknown -fell-> down",
    "up -fell-> down",
    "down -rose-> up",
  ]);
});

test.each([
  ["", "unknown"],
  ["--", "unknown"],
  ["---", "down"],
  ["--+-", "unknown"],
  ["++", "up"],
  ["++--+--", "up"],
  ["++---", "down"],
  ["---+", "down"],
  ["---+-+", "down"],
  ["---++", "up"],
])("%s is %s", (signs, state) => {
  expect(seen(signs).state).toBe(state);
});
