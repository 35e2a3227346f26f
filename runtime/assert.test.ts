import { expect, test } from "vitest";
import { AssertionFailure, assert, must, unreachable } from "./assert.ts";

test("what cannot be ends the work, and says what it was", () => {
  expect(() => assert(false, "a queue is never negative")).toThrow("a queue is never negative");
  expect(() => must(undefined, "the first cell")).toThrow("missing: the first cell");
  expect(() => must(null, "x")).toThrow(AssertionFailure);
  // A value from outside the types: an old process wrote it, or a cast lied.
  expect(() => unreachable("melting" as never)).toThrow('unreachable: "melting"');
});

test("what is there passes, also when it is falsy", () => {
  expect([must(0, "x"), must("", "x"), must(false, "x")]).toEqual([0, "", false]);
  expect(() => assert(true, "x")).not.toThrow();
});
