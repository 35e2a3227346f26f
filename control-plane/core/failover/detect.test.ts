/** Who is taken for dead: tables of what witnesses see, and what must hold whatever they see. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  calmMs,
  type Episode,
  episodeAge,
  followEpisode,
  isConfirmed,
  judgeCell,
  once,
  stoodStill,
  wantsProbe,
} from "./detect.ts";
import { aDeath, aSight } from "./sight.fixture.ts";
import { type CellSight, controlPlaneWitness, partnersWitness, routersWitness } from "./witness.ts";

const saysOf = (sight: CellSight) => judgeCell(sight).witnesses.map(({ says }) => says);

describe("a cell", () => {
  test("that all see alive is healthy", () => {
    expect(judgeCell(aSight()).state).toBe("healthy");
    expect(saysOf(aSight())).toEqual(["alive", "alive", "alive"]);
  });

  test("that died is gone by all three, and each says what it saw", () => {
    const verdict = judgeCell(aDeath());
    expect(verdict.state).toBe("gone");
    expect(verdict.witnesses).toEqual([
      {
        ...{ class: "control-plane", says: "gone" },
        text: "4 probes of its gates in a row missed within 1.6 s (ECONNREFUSED), and its agent has been silent for 2.1 s",
      },
      { class: "routers", says: "gone", text: "20 of 20 requests failed at 1 router" },
      { class: "partners", says: "gone", text: "cell-02, cell-03 hear nothing of it" },
    ]);
  });

  test.each<[string, CellSight, string]>([
    ["nobody sends it requests", aDeath({ routers: [] }), "gone"],
    ["it has no partners", aDeath({ partners: [] }), "gone"],
    ["only this control plane misses it", aDeath({ partners: [], routers: [] }), "suspect"],
    [
      "one of its partners hears from it",
      aDeath({
        partners: [
          { host: "cell-02", ageMs: 200, sees: "silent" },
          { host: "cell-03", ageMs: 200, sees: "alive" },
        ],
      }),
      "suspect",
    ],
    [
      "the partner that heard from it has died as well",
      aDeath({
        partners: [
          { host: "cell-02", ageMs: 200, sees: "silent" },
          { host: "cell-03", ageMs: 9000, sees: "alive" },
        ],
      }),
      "gone",
    ],
    [
      "its agent starts again: two probes were missed",
      aSight({
        probes: { misses: 2, missingForMs: 700, failure: "ECONNREFUSED" },
        agent: { silentMs: 900 },
      }),
      "suspect",
    ],
    [
      "one probe was lost",
      aSight({
        probes: { misses: 1, missingForMs: 100, failure: "timeout" },
        agent: { silentMs: 200 },
      }),
      "healthy",
    ],
    [
      "many probes were missed in a moment",
      aDeath({ probes: { misses: 9, missingForMs: 400, failure: "ECONNREFUSED" }, partners: [] }),
      "suspect",
    ],
    [
      "this control plane has only begun to look",
      aDeath({ watchedMs: 300, partners: [] }),
      "suspect",
    ],
    [
      "the way from here to its gate is cut, and its agent calls",
      aSight({
        probes: { misses: 8, missingForMs: 4000, failure: "timeout" },
        agent: { silentMs: 200 },
      }),
      "healthy",
    ],
    ["its application is stopped", aSight({ agent: { appReachable: false } }), "gray"],
    [
      "its database is gone, by its agent's word, and its partners hear nothing",
      aSight({
        agent: { databaseLostForMs: 1500 },
        routers: [],
        partners: [{ host: "cell-02", ageMs: 100, sees: "silent" }],
      }),
      "gone",
    ],
    [
      "its database is restarting",
      aSight({ agent: { databaseLostForMs: 400 }, routers: [], partners: [] }),
      "suspect",
    ],
    [
      "something in it hangs: the gate answers, nobody calls, its lease is over",
      aSight({ agent: { silentMs: 6000, leaseLeftMs: -2000 }, routers: [], partners: [] }),
      "gray",
    ],
    [
      "it serves by promises: the gate answers and partners hear from it",
      aSight({ agent: { silentMs: 60_000, leaseLeftMs: -56_000 } }),
      "gray",
    ],
    [
      "the control plane is back after a quarter of an hour, and nobody has called yet",
      aSight({
        watchedMs: 400,
        agent: { silentMs: 900_000, leaseLeftMs: -896_000 },
        routers: [],
        partners: [{ host: "cell-02", ageMs: 900_000, sees: "silent" }],
      }),
      "healthy",
    ],
    ["it never had an agent", aSight({ agent: { silentMs: null }, partners: [] }), "healthy"],
  ])("%s", (_what, sight, state) => {
    expect(judgeCell(sight).state).toBe(state);
  });

  test("that witnesses disagree about is probed at once", () => {
    expect(wantsProbe(judgeCell(aDeath()))).toBe(false);
    const early = aDeath({ probes: { misses: 1, missingForMs: 200, failure: "x" } });
    expect(wantsProbe(judgeCell({ ...early, routers: [] }))).toBe(true);
    const onlyPartners = aSight({ partners: [{ host: "cell-02", ageMs: 9, sees: "silent" }] });
    expect(wantsProbe(judgeCell(onlyPartners))).toBe(true);
  });
});

describe("routers", () => {
  const router = (name: string, requests: number, failures: number, ageMs = 500) => ({
    ...{ router: name, requests, failures, ageMs },
  });
  test.each([
    [[], "unknown"],
    [[router("a", 50, 50, 9000)], "unknown"],
    [[router("a", 1, 1)], "unknown"],
    [[router("a", 50, 50)], "gone"],
    [[router("a", 50, 26), router("b", 10, 10)], "gone"],
    [[router("a", 50, 50), router("b", 50, 0)], "unknown"],
    [[router("a", 50, 3)], "alive"],
  ])("%j say %s", (routers, says) => {
    expect(routersWitness(routers).says).toBe(says);
  });
});

const partner = fc.record({
  host: fc.constantFrom("cell-02", "cell-03", "cell-04"),
  ageMs: fc.option(fc.integer({ min: 0, max: 5000 }), { nil: null }),
  sees: fc.constantFrom("unknown" as const, "alive" as const, "silent" as const),
});
const anySight: fc.Arbitrary<CellSight> = fc.record({
  cell: fc.constant("cell-01"),
  watchedMs: fc.integer({ min: 0, max: 10_000 }),
  probes: fc
    .record({ misses: fc.integer({ min: 0, max: 9 }), forMs: fc.integer({ min: 0, max: 5000 }) })
    .map(({ misses, forMs }) => ({
      ...{ misses, missingForMs: misses === 0 ? null : forMs, failure: "no answer" },
    })),
  agent: fc.record({
    silentMs: fc.option(fc.integer({ min: 0, max: 10_000 }), { nil: null }),
    appReachable: fc.boolean(),
    databaseLostForMs: fc.option(fc.integer({ min: 0, max: 5000 }), { nil: null }),
    leaseLeftMs: fc.option(fc.integer({ min: -5000, max: 5000 }), { nil: null }),
  }),
  routers: fc.array(
    fc
      .record({
        router: fc.constantFrom("a", "b"),
        ageMs: fc.integer({ min: 0, max: 6000 }),
        requests: fc.integer({ min: 0, max: 100 }),
        share: fc.double({ min: 0, max: 1, noNaN: true }),
      })
      .map(({ share, ...one }) => ({ ...one, failures: Math.floor(one.requests * share) })),
    { maxLength: 3 },
  ),
  partners: fc.array(partner, { maxLength: 3 }),
});

describe("whatever witnesses see", () => {
  test("a cell is gone only by two kinds at least, and never while a partner that is heard sees it alive", () => {
    fc.assert(
      fc.property(anySight, (sight) => {
        const { state, witnesses } = judgeCell(sight);
        const seenAlive = sight.partners.some(
          ({ ageMs, sees }) => sees === "alive" && ageMs !== null && ageMs <= 3000,
        );
        const gone = witnesses.filter(({ says }) => says === "gone").length;
        expect(state === "gone").toBe(gone >= 2 && !seenAlive);
        expect(isConfirmed(witnesses)).toBe(state === "gone");
      }),
      { numRuns: 2000 },
    );
  });

  test("a kind that has seen nothing says unknown", () => {
    fc.assert(
      fc.property(anySight, (sight) => {
        const silent = sight.partners.map((one) => ({ ...one, ageMs: 60_000 }));
        expect(partnersWitness(silent).says).toBe("unknown");
        const idle = sight.routers.map((one) => ({ ...one, requests: 0, failures: 0 }));
        expect(routersWitness(idle).says).toBe("unknown");
        const unlooked = {
          ...sight,
          watchedMs: 0,
          agent: { ...sight.agent, databaseLostForMs: null },
        };
        expect(controlPlaneWitness(unlooked).says).not.toBe("gone");
      }),
    );
  });

  test("an agent that calls, with its database, is never called gone by this control plane", () => {
    fc.assert(
      fc.property(anySight, (sight) => {
        const agent = { ...sight.agent, silentMs: 0, databaseLostForMs: null };
        const probes = { misses: 5, missingForMs: 3000, failure: "no answer" };
        expect(controlPlaneWitness({ ...sight, agent, probes }).says).toBe("alive");
      }),
    );
  });
});

describe("an observer that stood still", () => {
  test.each([
    [150, false],
    [1500, false],
    [1501, true],
    [60_000, true],
  ])("for %d ms: %s", (gapMs, still) => {
    expect(stoodStill(gapMs)).toBe(still);
  });
});

describe("news", () => {
  const run = (states: readonly ("healthy" | "suspect" | "gray" | "gone")[], everyMs = 500) => {
    let episode: Episode | undefined;
    const told: string[] = [];
    for (const [index, state] of states.entries()) {
      const next = followEpisode(episode, { cell: "cell-01", state, text: "so" }, index * everyMs);
      episode = next.episode;
      if (next.news !== undefined) told.push(next.news);
    }
    return told;
  };

  test("of a cell that dies, and of its return", () => {
    const well = Array.from({ length: 9 }, () => "healthy" as const);
    expect(run(["healthy", "suspect", "gone", "gone", ...well])).toEqual([
      "cell-01 is so",
      "cell-01 is well again: so",
    ]);
  });

  test("of one that flaps are told once", () => {
    const flapping = Array.from({ length: 40 }, (_, index) => (index % 2 ? "healthy" : "gone"));
    expect(run(flapping as ("healthy" | "gone")[])).toEqual(["cell-01 is so"]);
  });

  test("of one that flaps the time counts from where it began, and from where it was gone first", () => {
    let episode: Episode | undefined;
    const states = ["suspect", "suspect", "gone", "suspect", "healthy", "gone"] as const;
    const ages = states.map((state, index) => {
      const age = episodeAge(episode, state, index * 500);
      episode = followEpisode(episode, { cell: "cell-01", state, text: "" }, index * 500).episode;
      return age === null ? null : [age.forMs, age.goneForMs];
    });
    expect(ages).toEqual([[0, null], [500, null], [1000, 0], [1500, 500], null, [2500, 1500]]);
  });

  test("of a suspicion that passes there are none", () => {
    expect(
      run(["suspect", "suspect", ...Array.from({ length: 20 }, () => "healthy" as const)]),
    ).toEqual([]);
    expect(calmMs).toBeGreaterThan(1000);
  });

  test("of one obstacle are told once, of another again", () => {
    const start: Episode = { sinceMs: 0, goneSinceMs: null, calmSinceMs: null, told: [] };
    const first = once(start, "held rate", "rate");
    const second = once(first.episode, "held rate", "rate");
    expect([first.news, second.news, once(second.episode, "held lag", "lag").news]).toEqual([
      "rate",
      undefined,
      "lag",
    ]);
  });
});
