/** When an adopted cell may change its stage, as plain facts; and who counts as a live router. */
import { describe, expect, test } from "vitest";
import { aCell, aFleet, aRouter, aStage } from "./fleet.fixture.ts";
import type { CellView, Closed, FleetSnapshot, StageView } from "./fleet.ts";
import { liveRouters, nothingClosed, routerForgottenMs } from "./fleet.ts";
import { judgePassThrough, startTrack } from "./health.ts";
import { unmetSteps } from "./ops/cell-stage.ts";
import { spreadContainers } from "./place.ts";
import { adoptingCell, quietMs, stageConditions, unclassedText, unmet } from "./stage.ts";

const nowMs = 1_000_000;
const observing = (change: Partial<StageView> = {}): StageView =>
  aStage({ adopted: true, now: "observe", goal: "observe", guardedTables: 3, ...change });
const cellIn = (stage: StageView, change: Partial<CellView> = {}): CellView =>
  aCell("shop-01", { stage, adopting: "shop-01", ...change });

function toEnforce(
  stage: Partial<StageView>,
  change: {
    readonly cell?: Partial<CellView>;
    readonly routers?: FleetSnapshot["routers"];
    readonly holding?: { keys: number; waiting: number };
    readonly accept?: boolean;
  } = {},
): string[] {
  const cell = cellIn(observing(stage), change.cell);
  const holdings = new Map([["shop-01", change.holding ?? { keys: 400, waiting: 0 }]]);
  const facts = {
    ...{ cell, cells: [cell], routers: change.routers ?? [], holdings, nowMs },
    closed: nothingClosed,
  };
  return unmet(stageConditions(facts, "enforce", change.accept ?? false)).map(({ name }) => name);
}

describe("to enforce", () => {
  test("when nothing is missing", () => expect(toEnforce({})).toEqual([]));
  test.each([
    ["no agent", {}, { cell: { agents: [] } }, ["agent"]],
    ["an agent that is not healthy", {}, { cell: { health: "down" as const } }, ["agent"]],
    ["no lease", {}, { cell: { leaseUntilMs: 0 } }, ["agent"]],
    ["no table under the guard", { guardedTables: 0 }, {}, ["guard"]],
    [
      "a table that no manifest classes",
      { unclassed: { count: 1, names: ["public.notes"] } },
      {},
      ["coverage"],
    ],
    ["an agent that has not told of such tables", { unclassed: null }, {}, ["coverage"]],
    ["a placement that waits", {}, { holding: { keys: 400, waiting: 1 } }, ["placements"]],
    ["no tenant at all", {}, { holding: { keys: 0, waiting: 0 } }, ["placements"]],
    ["a refusal a moment ago", { refusedAtMs: nowMs - quietMs + 1 }, {}, ["refusals"]],
    ["observed for less than a minute", { sinceMs: nowMs - quietMs + 1 }, {}, ["refusals"]],
    [
      "a router that counted one",
      {},
      { routers: [{ ...aRouter("r1", 1), refusedAtMs: nowMs - 1 }] },
      ["refusals"],
    ],
  ])("not with %s", (_name, stage, change, missing) => {
    expect(toEnforce(stage, change)).toEqual(missing);
  });
  test("a minute after the last refusal, or when refusals are accepted", () => {
    expect(toEnforce({ refusedAtMs: nowMs - quietMs })).toEqual([]);
    expect(toEnforce({ refusedAtMs: nowMs - 1 }, { accept: true })).toEqual([]);
    expect(toEnforce({}, { holding: { keys: 0, waiting: 0 }, accept: true })).toEqual([]);
    // Acceptance is of refusals, not of a cell that cannot serve.
    expect(toEnforce({}, { cell: { agents: [] }, accept: true })).toEqual(["agent"]);
    const unclassed = { count: 1, names: ["public.notes"] };
    expect(toEnforce({ unclassed }, { accept: true })).toEqual(["coverage"]);
    expect(toEnforce({}, { holding: { keys: 4, waiting: 1 }, accept: true })).toEqual([
      "placements",
    ]);
  });
});

test("forgotten tables are named, and how many more there are", () => {
  const names = ["public.logs", "public.notes (classed tenant, not guarded)"];
  expect(unclassedText({ count: 5, names })).toBe(
    "5 tables are neither guarded nor classed in the manifest (public.logs, public.notes (classed tenant, not guarded), and 3 more)",
  );
  expect(unclassedText({ count: 1, names: ["public.logs"] })).toBe(
    "1 table is neither guarded nor classed in the manifest (public.logs)",
  );
  const cell = cellIn(observing({ unclassed: { count: 5, names } }));
  const facts = {
    cell,
    cells: [cell],
    routers: [],
    holdings: new Map(),
    nowMs,
    closed: nothingClosed,
  };
  // To observe nothing is asked for: there a forgotten table loses nothing.
  const toObserve = cellIn(observing({ now: "pass-through", unclassed: { count: 5, names } }));
  expect(unmet(stageConditions({ ...facts, cell: toObserve }, "observe", false))).toEqual([]);
  const [first] = unmet(stageConditions(facts, "enforce", true));
  expect(first?.text).toContain("public.logs");
  expect(unmetSteps("shop-01", "enforce", first === undefined ? [] : [first])[0]).toContain(
    "cellctl schema check",
  );
});

test("out of enforce only while no other cell owns anything", () => {
  const cell = cellIn(observing({ now: "enforce", goal: "enforce" }));
  const others = [aCell("cell-02"), aCell("cell-03", { state: "retired" })];
  const out = (owner: string, keys: number) =>
    unmet(
      stageConditions(
        {
          cell,
          cells: [cell, ...others],
          routers: [],
          holdings: new Map([[owner, { keys, waiting: 0 }]]),
          closed: nothingClosed,
          nowMs,
        },
        "observe",
        true,
      ),
    ).map(({ name }) => name);
  expect(out("cell-02", 1)).toEqual(["sole-owner"]);
  expect(out("cell-02", 0)).toEqual([]);
  expect(out("shop-01", 5)).toEqual([]);
  expect(out("cell-03", 5)).toEqual([]);
});

test("out of enforce only while nobody is suspended and no deletion goes on, also half way", () => {
  const out = (stage: Partial<StageView>, closed: Partial<Closed>) => {
    const cell = cellIn(observing({ now: "enforce", goal: "enforce", ...stage }));
    const facts = { cell, cells: [cell], routers: [], holdings: new Map(), nowMs };
    return unmet(
      stageConditions({ ...facts, closed: { ...nothingClosed, ...closed } }, "observe", true),
    ).map(({ name }) => name);
  };
  expect(out({}, { suspended: 1 })).toEqual(["suspensions"]);
  expect(out({}, { deletions: 2 })).toEqual(["deletions"]);
  expect(out({}, {})).toEqual([]);
  expect(out({ now: "observe" }, { suspended: 1 })).toEqual(["suspensions"]);
  expect(out({ now: "observe", goal: "observe", applied: "observe" }, { suspended: 1 })).toEqual(
    [],
  );
  expect(
    unmetSteps("shop-01", "observe", [{ name: "suspensions", ok: false, text: "" }]),
  ).toContain("cellctl tenant resume ID");
});

test("a cell is being adopted as long as any part of it is told, or is in, another stage than enforce", () => {
  const at = (
    now: StageView["now"],
    goal: StageView["goal"],
    state: CellView["state"] = "active",
    database: Partial<StageView> = {},
  ) =>
    adoptingCell([
      { id: "shop-01", state, stage: aStage({ adopted: true, now, goal, ...database }) },
    ]);
  expect(at("observe", "observe")).toBe("shop-01");
  expect(at("observe", "enforce")).toBe("shop-01");
  expect(at("enforce", "observe")).toBe("shop-01");
  expect(at("enforce", "enforce")).toBeNull();
  expect(at("observe", "observe", "retired")).toBeNull();
  expect(at("enforce", "enforce", "active", { applied: "observe" })).toBe("shop-01");
  // In enforce by an earlier change: an answer of the one in between may still be under way.
  expect(at("enforce", "enforce", "active", { isCurrent: false })).toBe("shop-01");
});

test("containers of a keyspace are spread over the cell that is being adopted alone", () => {
  const cells = ["shop-01", "cell-02"].map((id) => aCell(id, { adopting: "shop-01" }));
  const spread = spreadContainers(cells, ["a", "b", "c"]);
  expect([...new Set(spread?.values())]).toEqual(["shop-01"]);
});

test("a cell in pass-through is never called down; an agent that serves makes it healthy", () => {
  const track = startTrack(cellIn(aStage({ now: "pass-through" }), { health: "healthy" }));
  const bad = { good: false, reason: "its agent has not called" } as const;
  let seen = track;
  for (let look = 0; look < 10; look += 1) seen = judgePassThrough(seen, bad, false);
  expect(seen).toMatchObject({
    health: "unknown",
    reason: "pass-through: nothing of ours runs there",
  });
  expect(judgePassThrough(seen, bad, true).reason).toContain("go past its agent");
  expect(judgePassThrough(seen, { good: true }, true).health).toBe("healthy");
});

describe("a live router", () => {
  const live = (seenMs: number, listeningMs: number) =>
    liveRouters(
      aFleet({
        nowMs,
        routers: [aRouter("r1", 1, nowMs - seenMs)],
        listeningSinceMs: nowMs - listeningMs,
      }),
    ).length;
  test("called lately, or could not call because nobody listened", () => {
    expect(live(15_000, 600_000)).toBe(1);
    expect(live(15_001, 600_000)).toBe(0);
    expect(live(600_000, 15_000)).toBe(1);
    expect(live(600_000, 15_001)).toBe(0);
  });
  test("is forgotten after a week of silence, whoever listens", () => {
    expect(live(routerForgottenMs + 1, 0)).toBe(0);
    expect(live(routerForgottenMs, 0)).toBe(1);
  });
});
