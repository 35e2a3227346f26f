import { expect, test } from "vitest";
import { byHeaderName, listElements } from "./raw-headers.ts";

test("what is remembered of a name is what is true of it, however many names there are", () => {
  let asked = 0;
  const isOdd = byHeaderName((name) => {
    asked += 1;
    return name.startsWith("x-odd");
  });
  for (let round = 0; round < 3; round += 1) {
    for (let at = 0; at < 3000; at += 1) {
      expect(isOdd(`X-Odd-${at}`)).toBe(true);
      expect(isOdd(`x-even-${at}`)).toBe(false);
    }
  }
  const before = asked;
  for (let at = 0; at < 100; at += 1) isOdd("X-Odd-2999");
  expect(asked - before).toBeLessThanOrEqual(1);
});

test("a name that is too long to be remembered is judged each time", () => {
  const length = byHeaderName((name) => String(name.length));
  expect(length("a".repeat(100))).toBe("100");
  expect(length("a".repeat(101))).toBe("101");
});

test("elements of a list are trimmed, in lower case and not empty", () => {
  expect(listElements([])).toEqual([]);
  expect(listElements([" A ,, b", "C"])).toEqual(["a", "b", "c"]);
});
