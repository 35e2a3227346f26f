/** Who is blamed when the symptom follows tenants to their new cell. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { must } from "../../../runtime/assert.ts";
import type { AdopterLook } from "./phases.ts";
import { type AdoptedKey, blame, poisonText, signsOf } from "./poison.ts";
import type { KeyMark } from "./suspects.ts";

describe("poison", () => {
  const look = (change: Partial<AdopterLook> = {}): AdopterLook => ({
    ...{ annex: "sb-a", instance: "i1", boot: "b1", appReachable: true, databaseReachable: true },
    ...{ silentMs: 10, hostBoot: "h1", hostHealth: "healthy", errorShare: 0 },
    ...change,
  });

  test.each([
    [{ boot: "b2" }, "its database was started again"],
    [{ hostBoot: "h2" }, "its host's database was started again"],
    [{ instance: "i2" }, "its agent was started again"],
    [{ silentMs: 60_000 }, "has not called"],
    [{ appReachable: false }, "cannot reach the application"],
    [{ databaseReachable: false }, "cannot reach the database"],
    [{ hostHealth: "down" }, "its host became down"],
    [{ errorShare: 0.9 }, "90 % of its requests fail"],
  ] as ReadonlyArray<readonly [Partial<AdopterLook>, string]>)(
    "%j is a sign, and none if it was so before",
    (change, text) => {
      expect(
        signsOf(look(), look(change))
          .map((sign) => sign.text)
          .join(),
      ).toContain(text);
      expect(signsOf(look(change), look(change))).toEqual([]);
      expect(signsOf(look(), look())).toEqual([]);
    },
  );

  const adopted = fc.array(
    fc.record({
      key: fc.integer({ min: 0, max: 500 }).map((n) => `k${n}`),
      annex: fc.constantFrom("sb-a", "sb-b"),
      wave: fc.nat(5),
      atMs: fc.nat(20_000),
    }),
    { maxLength: 60 },
  );

  test("never blames a key that came after the symptom, or to another cell; somebody is to blame if anybody came before", () => {
    fc.assert(
      fc.property(adopted, fc.nat(20_000), fc.nat(20_000), (all, seenMs, ago) => {
        const signs = [{ annex: "sb-a", text: "down", of: "process" as const }];
        const found = blame({ signs, seenMs, lastGoodMs: seenMs - ago, adopted: all });
        const may = all.filter(({ annex, atMs }) => annex === "sb-a" && atMs <= seenMs);
        expect(found === undefined).toBe(may.length === 0);
        if (found === undefined) return;
        expect(found.suspects.length).toBeGreaterThan(0);
        const allowed = new Set(may.map(({ key }) => key));
        expect(found.suspects.every(({ key }) => allowed.has(key))).toBe(true);
      }),
    );
  });

  const came = (keys: readonly string[]): AdoptedKey[] =>
    keys.map((key) => ({ key, annex: "sb-a", wave: 1, atMs: 100 }));
  const mark = (key: string, open: number, failed = 0) => ({ key, open, failed });
  const blamed = (of: "process" | "server", marks: readonly KeyMark[], partial = false) =>
    must(
      blame({
        ...{ signs: [{ annex: "sb-a", text: "down", of }], seenMs: 200, lastGoodMs: 150 },
        ...{ adopted: came(["x", "y", "z"]), marks: new Map([["sb-a", { marks, partial }]]) },
      }),
      "somebody",
    );
  const suspected = (...args: Parameters<typeof blamed>) =>
    blamed(...args).suspects.map(({ key }) => key);

  test("keys that nobody asked for are not suspects where that is known; the text names who is and what to type", () => {
    const found = blamed("process", [mark("y", 2)]);
    expect(found.suspects).toEqual([{ key: "y", because: "2 of its requests were cut off" }]);
    expect(poisonText("op_1", found)).toContain("cellctl failover resume op_1");
    expect(poisonText("op_1", found)).toContain("2 that came with them are served on");
  });

  test("who had one request open is as suspect as who had a hundred, and more so than who was answered", () => {
    expect(suspected("process", [mark("x", 1), mark("y", 100), mark("z", 0, 100)])).toEqual([
      ...["x", "y"],
    ]);
    expect(suspected("process", [mark("z", 0, 1)])).toEqual(["z"]);
    // What an application answers while its database falls.
    expect(suspected("server", [mark("x", 1), mark("z", 0, 1)])).toEqual(["x", "z"]);
  });

  test("where nothing is known of them, or not of all, everybody is suspected", () => {
    expect(suspected("process", [])).toEqual(["x", "y", "z"]);
    expect(suspected("process", [mark("of-before", 9)])).toEqual(["x", "y", "z"]);
    expect(suspected("process", [mark("y", 2)], true)).toEqual(["x", "y", "z"]);
  });
});
