import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { hostileText, jsonErrorPosition } from "./json-body.ts";

const isJson = (text: string): boolean => {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
};

describe("where JSON goes wrong", () => {
  test("nowhere, in what is JSON", () => {
    fc.assert(
      fc.property(fc.json(), (text) => {
        expect(jsonErrorPosition(text)).toBe(text.length);
      }),
    );
  });

  test("never after the end, and what stands before is no mistake yet", () => {
    const broken = fc
      .tuple(fc.json(), fc.nat(), fc.constantFrom("", "x", ",", "}", '"', "\\", "0"))
      .map(([text, at, put]) => {
        const cut = at % (text.length + 1);
        return text.slice(0, cut) + put + text.slice(cut + 1);
      });
    fc.assert(
      fc.property(broken, (text) => {
        fc.pre(!isJson(text));
        const at = jsonErrorPosition(text);
        expect(at).toBeLessThanOrEqual(text.length);
        // A mistake found at `at` is found there whatever follows it.
        expect(jsonErrorPosition(text.slice(0, at))).toBeLessThanOrEqual(at);
      }),
    );
  });

  test("half a megabyte of brackets is looked through without recursion", () => {
    expect(jsonErrorPosition("[".repeat(500_000))).toBe(500_000);
  });
});

describe("hostile text", () => {
  test.each([
    ["plain", undefined],
    ["emoji 🦀 and é", undefined],
    ["\u0000", "body: must not contain"],
    ["\u009b", "body: must not contain"],
    ["\u2028", "body: must not contain"],
    ["\ud83d", "body: must not contain"],
  ])("%j", (text, problem) => {
    const found = hostileText(text, "body");
    if (problem === undefined) expect(found).toBeUndefined();
    else expect(found).toContain(problem);
  });
  test("is found in names, in members, in lists, with its path", () => {
    expect(hostileText({ a: { b: ["x", "\u0007"] } }, "body")).toContain("a.b.1:");
    expect(hostileText({ a: { "\u0007": 1 } }, "body")).toContain("a:");
    expect(hostileText({ a: 1, b: null, c: [true] }, "body")).toBeUndefined();
  });
  test("depth is bounded", () => {
    let deep: unknown = 1;
    for (let level = 0; level < 40; level += 1) deep = [deep];
    expect(hostileText(deep, "body")).toContain("nested deeper");
  });
});
