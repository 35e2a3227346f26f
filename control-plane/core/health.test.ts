import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { aCell, anAgent } from "./fleet.fixture.ts";
import { type HealthTrack, healthLimits, judge, observe, startTrack } from "./health.ts";

const good = { good: true } as const;
const bad = { good: false, reason: "its gate does not answer" } as const;

const run = (health: HealthTrack["health"], looks: string): string[] => {
  let track = startTrack(aCell("cell-01", { health }));
  return [...looks].map((look) => {
    track = judge(track, look === "+" ? good : bad);
    return track.health;
  });
};

describe("the verdict", () => {
  test("falls after two and four bad looks in a row, rises after two good ones", () => {
    expect(run("healthy", "----")).toEqual(["healthy", "suspect", "suspect", "down"]);
    expect(run("down", "++")).toEqual(["down", "healthy"]);
    expect(run("suspect", "+-++")).toEqual(["suspect", "suspect", "suspect", "healthy"]);
  });

  test("one good look starts the count of bad ones anew", () => {
    expect(run("healthy", "-+-+-+-").every((one) => one === "healthy")).toBe(true);
  });

  test("a standby that serves nobody is well without an application; one that was adopted is not", () => {
    const agents = [anAgent("a", { appReachable: false })];
    const annex = { origin: "cell-01", host: "cell-02" };
    const at = 1_000_000;
    expect(observe(aCell("sb", { agents, annex }), [], at, 0)).toEqual(good);
    const usage = { tenants: 1, bytes: 0, rps: 0 };
    expect(observe(aCell("sb", { agents, annex, usage }), [], at, 0).good).toBe(false);
    expect(observe(aCell("cell-01", { agents }), [], at, 0).good).toBe(false);
  });

  test("a cell that never answered is unknown, not down", () => {
    expect(run("unknown", "------").at(-1)).toBe("unknown");
    expect(run("unknown", "-+")).toEqual(["unknown", "healthy"]);
  });

  test("never falls without as many bad looks in a row as the limit says", () => {
    const { downAfter, suspectAfter } = healthLimits;
    const least = { healthy: 0, unknown: 0, suspect: suspectAfter, down: downAfter };
    const checkLook = (state: { track: HealthTrack; bads: number }, isGood: boolean) => {
      const bads = isGood ? 0 : state.bads + 1;
      const track = judge(state.track, isGood ? good : bad);
      const fell = track.health !== state.track.health && track.health !== "healthy";
      if (fell) expect(bads).toBeGreaterThanOrEqual(least[track.health]);
      return { track, bads };
    };
    fc.assert(
      fc.property(fc.array(fc.boolean(), { maxLength: 40 }), (looks) => {
        looks.reduce(checkLook, { track: startTrack(aCell("cell-01")), bads: 0 });
      }),
    );
  });
});

describe("one look at a cell", () => {
  const at = 1_000_000;
  const look = (agent: Parameters<typeof anAgent>[1], failure?: string, nowMs = at) => {
    const cell = aCell("cell-01", { agents: [anAgent("a", agent)] });
    const seen = observe(cell, [{ instance: "a", failure }], nowMs, 0);
    return seen.good ? "good" : seen.reason;
  };

  test.each([
    ["all answers", {}, undefined, "good"],
    ["its database is gone", { databaseReachable: false }, undefined, /cannot reach the database/],
    ["its application is gone", { appReachable: false }, undefined, /cannot reach the application/],
    ["its gate is gone", {}, "ECONNREFUSED", /does not answer \(ECONNREFUSED\)/],
    ["no agent is primary", { primary: false }, undefined, /no primary agent/],
  ] as const)("%s", (_name, agent, failure, expected) => {
    const seen = look(agent, failure);
    if (typeof expected === "string") expect(seen).toBe(expected);
    else expect(seen).toMatch(expected);
  });

  test("silence counts, but not the silence from before this process led", () => {
    const later = at + healthLimits.silentMs + 1;
    expect(look({}, undefined, later)).toMatch(/has not called for/);
    const cell = aCell("cell-01", { agents: [anAgent("a")] });
    expect(observe(cell, [], later, later - 1000)).toEqual({ good: true });
  });

  test("the primary that called last counts; a crashed one is still in the table", () => {
    const agents = [
      anAgent("old", { seenAtMs: at - 5000, databaseReachable: false }),
      anAgent("new", { seenAtMs: at }),
    ];
    expect(observe(aCell("cell-01", { agents }), [], at, 0)).toEqual({ good: true });
  });
});
