/** Error budgets: arithmetic, windows, how fast they burn, and when nothing is said. */
import { describe, expect, test } from "vitest";
import type { CellId } from "../../../contract/ids.ts";
import { type Objective, objectiveDefaults } from "../../../contract/slo-api.ts";
import { burntOf, type Counted, judgeSlos, type WindowCount } from "./judge-slo.ts";
import { burnWindows, countedShare, dayMs, hourMs, minuteMs, windowFromMs } from "./windows.ts";

const cellA = "a" as CellId;
const nowMs = 1_000 * dayMs;
const objective = (change: Partial<Objective> = {}): Objective => ({
  ...{ id: "availability", by: "ada", reason: "", since: "" },
  ...{ ...objectiveDefaults, ...change },
});

type Minute = {
  /** Minutes ago. */
  readonly ago: number;
  readonly requests: number;
  readonly failures?: number;
  readonly cell?: string;
  readonly service?: string;
  readonly tier?: string;
};

/** As the database sums them up. */
function counted(minutes: readonly Minute[], days = 30): Counted {
  const at = ({ ago }: Minute) => nowMs - ago * minuteMs;
  const whose = ({ cell = "a", service = "default", tier = "" }: Minute) => ({
    ...{ cell, service, tier },
  });
  const windows = [...Object.values(burnWindows), days * dayMs].flatMap((windowMs) =>
    minutes
      .filter((one) => at(one) >= windowFromMs(nowMs, windowMs))
      .map(
        (one): WindowCount => ({
          ...{ ...whose(one), windowMs, requests: one.requests, failures: one.failures ?? 0 },
        }),
      ),
  );
  return { nowMs, windows, firsts: minutes.map((one) => ({ ...whose(one), firstMs: at(one) })) };
}

const judge = (minutes: readonly Minute[], change: Partial<Objective> = {}, cells = ["a"]) =>
  judgeSlos([objective(change)], counted(minutes, change.windowDays), cells)[0];
const state = (minutes: readonly Minute[], change: Partial<Objective> = {}) =>
  judge(minutes, change)?.worst;

const full = 30 * 24 * 60;
const lastMonth = (requests: number, failures = 0): Minute => ({ ago: full, requests, failures });

describe("a window", () => {
  test("begins with the first minute that lies wholly within it", () => {
    expect(windowFromMs(nowMs, 5 * minuteMs)).toBe(nowMs - 5 * minuteMs);
    expect(windowFromMs(nowMs + 1, 5 * minuteMs)).toBe(nowMs - 4 * minuteMs);
    expect(windowFromMs(nowMs + minuteMs - 1, hourMs)).toBe(nowMs - 59 * minuteMs);
  });

  test("says what was counted in it, and nothing of the minute before", () => {
    const inside = state([{ ago: 5, requests: 1000, failures: 100 }, lastMonth(1000)]);
    const before = state([{ ago: 6, requests: 1000, failures: 100 }, lastMonth(1000)]);
    expect(inside?.burn["5m"]).toBeCloseTo(100);
    expect(before?.burn["5m"]).toBe(0);
    expect(before?.burn["30m"]).toBeCloseTo(100);
  });

  test("that counting has not filled yet is taken as if it went on so", () => {
    expect(countedShare(nowMs, hourMs, nowMs - hourMs)).toBe(1);
    expect(countedShare(nowMs, hourMs, nowMs - 15 * minuteMs)).toBe(0.25);
    expect(countedShare(nowMs, hourMs, nowMs)).toBeCloseTo(1 / 60);
  });
});

describe("a budget", () => {
  test("is the share of requests that may fail; what failed is used of it", () => {
    expect(state([lastMonth(100_000, 25)])).toMatchObject({
      ...{ requests: 100_000, failures: 25, verdict: "ok" },
      text: "25 % of the budget of 30 d is used",
    });
    expect(state([lastMonth(100_000, 25)])?.budget).toBeCloseTo(100);
    expect(state([lastMonth(100_000, 25)])?.left).toBeCloseTo(0.75);
  });

  test("is burnt when all of it is used, and overdrawn beyond", () => {
    expect(state([lastMonth(100_000, 99)])?.verdict).toBe("ok");
    const over = judge([lastMonth(100_000, 140)]);
    expect(over?.worst?.verdict).toBe("burnt");
    expect(over?.worst?.left).toBeCloseTo(-0.4);
    expect(burntOf(over === undefined ? [] : [over])).toEqual([
      "a / availability: 140 % of the budget of 30 d is used",
    ]);
  });

  test("recovers when failures leave the window", () => {
    const minutes = [
      { ago: 7 * 24 * 60 + 1, requests: 10_000, failures: 500 },
      { ago: 60 * 24, requests: 10_000 },
    ];
    expect(state(minutes, { windowDays: 7 })?.verdict).toBe("ok");
    expect(state(minutes, { windowDays: 8 })?.verdict).toBe("burnt");
  });

  test("of a few requests, or a handful of failures, says nothing", () => {
    expect(state([lastMonth(99, 99)])?.verdict).toBe("few");
    expect(state([lastMonth(1000, 9)])?.verdict).toBe("ok");
    expect(state([lastMonth(1000, 10)])?.verdict).toBe("burnt");
    expect(state([])?.verdict).toBe("few");
  });
});

describe("a burn", () => {
  const month = lastMonth(10_000_000);

  test("of two percent of the budget in an hour is fast, while it goes on", () => {
    const hour = { ago: 50, requests: 30_000, failures: 1000 };
    const going = { ago: 2, requests: 3000, failures: 60 };
    expect(state([month, hour, going])?.verdict).toBe("fast-burn");
    expect(state([month, hour, { ...going, failures: 0 }])?.verdict).not.toBe("fast-burn");
    expect(state([month, { ...hour, failures: 0 }, going])?.verdict).not.toBe("fast-burn");
  });

  test("of five percent in six hours is told and stops nobody", () => {
    const slow = [
      month,
      { ago: 200, requests: 30_000, failures: 300 },
      { ago: 20, requests: 3000, failures: 30 },
    ];
    const judged = judge(slow);
    expect(judged?.worst?.verdict).toBe("burning");
    expect(burntOf(judged === undefined ? [] : [judged])).toEqual([]);
  });

  test("of a few failures in a quiet hour is none", () => {
    expect(state([month, { ago: 2, requests: 120, failures: 9 }])?.verdict).toBe("ok");
    expect(state([month, { ago: 2, requests: 40, failures: 20 }])?.verdict).toBe("ok");
  });

  test("by the seconds of one failover in a fleet that is minutes old stops nothing", () => {
    const perMinute = 75 * 60;
    const quiet = [5, 4, 3, 2].map((ago) => ({ ago, requests: perMinute }));
    const failedFor = (seconds: number) => [
      ...quiet,
      { ago: 1, requests: perMinute, failures: 75 * seconds },
    ];
    expect(state(failedFor(10))?.verdict).toBe("ok");
    // An outage is one, however young the fleet.
    expect(state(failedFor(59))?.verdict).toBe("fast-burn");
  });
});

describe("an objective", () => {
  const minutes: readonly Minute[] = [
    { ...lastMonth(10_000, 5), cell: "a" },
    { ...lastMonth(10_000, 500), cell: "b", service: "shop" },
    { ...lastMonth(10_000, 0), cell: "b" },
    { ...lastMonth(10_000, 100), cell: "a", tier: "gold" },
    { ...lastMonth(10_000, 0), cell: "a", tier: "free" },
  ];
  const worst = (change: Partial<Objective>) => {
    const found = judge(minutes, change, ["a", "b"]);
    return { cell: found?.worst?.cell, verdict: found?.worst?.verdict, of: found?.cells.length };
  };

  test("of every cell holds each by itself, and shows the worst", () => {
    expect(worst({})).toEqual({ cell: "b", verdict: "burnt", of: 2 });
    expect(worst({ cell: cellA })).toEqual({ cell: "a", verdict: "ok", of: 1 });
  });

  test("of a service counts that service alone", () => {
    expect(worst({ service: "shop" })).toMatchObject({ cell: "b", verdict: "burnt" });
    expect(worst({ service: "default" }).verdict).toBe("ok");
  });

  test("of a tier counts what cells saw of that tier; of all, what routers saw", () => {
    expect(worst({ tier: "gold" })).toMatchObject({ cell: "a", verdict: "burnt" });
    expect(worst({ tier: "free" }).verdict).toBe("ok");
    expect(judge(minutes, { cell: cellA })?.worst?.requests).toBe(10_000);
  });

  test("of a cell that is not in service says nothing", () => {
    expect(judge(minutes, { cell: "gone" as CellId })).toMatchObject({ worst: null, cells: [] });
  });
});
