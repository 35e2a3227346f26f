/** Who keeps whose standby: by examples, and by properties over fleets that change while it is carried out. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { aCell } from "../fleet.fixture.ts";
import type { CellView } from "../fleet.ts";
import { type Arrangement, type ArrangeWorld, arrange } from "./arrange.ts";
import { type Buckets, coverageOf, isSameRange, splitBuckets } from "./buckets.ts";
import { aStandby } from "./standby.fixture.ts";
import { isAdoptable, isLiving, type StandbyView } from "./standby-view.ts";

const none: ReadonlySet<string> = new Set();
const world = (change: Partial<ArrangeWorld>): ArrangeWorld => ({
  ...{ cells: [], standbys: [], wanted: 3, lost: none, failingOver: none },
  ...change,
});
const cellsOf = (count: number): CellView[] =>
  Array.from({ length: count }, (_, at) => aCell(`cell-${String(at + 1).padStart(2, "0")}`));

const stepsMax = 500;
/** Ids are never used again. */
let made = 0;

/** Makes what is to be made, at once, and removes what leaves; until nothing is left to do. */
function settle(
  start: ArrangeWorld,
  onStep: (standbys: readonly StandbyView[]) => void = () => {},
) {
  let now = start;
  for (let step = 0; step < stepsMax; step += 1) {
    const plan = arrange(now);
    const growing = now.standbys.some((one) => isLiving(one) && !isAdoptable(one));
    if (plan.make.length + plan.leave.length === 0 && !growing) return now;
    now = { ...now, standbys: carryOut(now.standbys, plan) };
    onStep(now.standbys);
  }
  throw new Error("it never comes to rest");
}

const carryOut = (
  standbys: readonly StandbyView[],
  { make, leave }: Arrangement,
): StandbyView[] => [
  ...standbys
    .filter(({ annex }) => !leave.some((one) => one.annex === annex))
    .map((one) => (isLiving(one) ? { ...one, state: "ready" as const } : one)),
  ...make.map(begun),
];

const begun = ({ origin, host, buckets }: Arrangement["make"][number]): StandbyView => {
  made += 1;
  return aStandby(`sb-${made}`, origin, host, { buckets, state: "planned", createdAtMs: made });
};

const coveredOf = (standbys: readonly StandbyView[], origin: string) =>
  coverageOf(
    standbys
      .filter((one) => one.origin === origin && isAdoptable(one))
      .map(({ buckets }) => buckets),
  );

const drawn = (standbys: readonly StandbyView[]): string[] =>
  standbys
    .map(({ origin, host, buckets: { lo, hi } }) => `${origin} in ${host}: ${lo}-${hi}`)
    .sort();

describe("who keeps whose standby", () => {
  test("three cells: each spread over the two others, evenly", () => {
    const { standbys } = settle(world({ cells: cellsOf(3) }));
    expect(standbys).toHaveLength(6);
    for (const cell of cellsOf(3)) {
      expect(coveredOf(standbys, cell.id).size).toBe(256);
      expect(standbys.filter(({ host }) => host === cell.id)).toHaveLength(2);
    }
  });

  test("buckets are split evenly, as contiguous ranges", () => {
    expect(splitBuckets(3)).toEqual([
      { lo: 0, hi: 85 },
      { lo: 86, hi: 170 },
      { lo: 171, hi: 255 },
    ]);
    for (const parts of [1, 2, 3, 4, 7]) expect(coverageOf(splitBuckets(parts)).size).toBe(256);
  });

  test("never in the same failure domain, another region, too few tiers, a dedicated cell", () => {
    const cells = [
      aCell("origin", { failureDomain: "a", tiers: ["gold", "standard"] }),
      aCell("same-domain", { failureDomain: "a" }),
      aCell("far", { region: "mars" }),
      aCell("few-tiers", { tiers: ["standard"] }),
      aCell("dedicated", { dedicated: true }),
      aCell("good", { tiers: ["gold", "standard", "free"] }),
    ];
    const made = arrange(world({ cells })).make.filter(({ origin }) => origin === "origin");
    expect(made.map(({ host }) => host)).toEqual(["good"]);
  });

  test("a partner that is merely down keeps its place; one that is lost is replaced, range by range", () => {
    const cells = cellsOf(5);
    const calm = settle(world({ cells }));
    const host = "cell-02";
    const down = cells.map((cell) =>
      cell.id === host ? { ...cell, health: "down" as const } : cell,
    );
    expect(arrange({ ...calm, cells: down })).toEqual({ make: [], leave: [] });
    const lost = settle({ ...calm, cells: down, lost: new Set([host]) });
    const before = drawn(calm.standbys).filter((one) => !one.includes(`in ${host}`));
    expect(drawn(lost.standbys)).toEqual(expect.arrayContaining(before));
    expect(lost.standbys.filter((one) => one.host === host)).toEqual([]);
  });

  test("two cells become three: the old stands until both halves may be adopted from", () => {
    const calm = settle(world({ cells: cellsOf(2) }));
    expect(drawn(calm.standbys)).toEqual([
      "cell-01 in cell-02: 0-255",
      "cell-02 in cell-01: 0-255",
    ]);
    const grown = { ...calm, cells: cellsOf(3) };
    expect(arrange(grown).leave).toEqual([]);
    const seen: number[] = [];
    settle(grown, (standbys) => seen.push(coveredOf(standbys, "cell-01").size));
    expect(new Set(seen)).toEqual(new Set([256]));
  });

  test("a cell that is cordoned and empty is left; one with tenants keeps what it keeps", () => {
    const calm = settle(world({ cells: cellsOf(4) }));
    const cordoned = (tenants: number) =>
      calm.cells.map((cell) =>
        cell.id === "cell-03"
          ? { ...cell, state: "cordoned" as const, usage: { ...cell.usage, tenants } }
          : cell,
      );
    expect(arrange({ ...calm, cells: cordoned(7) })).toEqual({ make: [], leave: [] });
    const empty = settle({ ...calm, cells: cordoned(0) });
    expect(empty.standbys.filter(({ host }) => host === "cell-03")).toEqual([]);
    expect(coveredOf(empty.standbys, "cell-01").size).toBe(256);
  });

  test("nothing of a cell that is failed over is touched; afterwards what was not adopted goes", () => {
    const calm = settle(world({ cells: cellsOf(3) }));
    const dead = calm.cells.map((cell) =>
      cell.id === "cell-01" ? { ...cell, state: "quarantined" as const, revoking: true } : cell,
    );
    const during = arrange({ ...calm, cells: dead, failingOver: new Set(["cell-01"]) });
    const its = calm.standbys
      .filter(({ origin }) => origin === "cell-01")
      .map(({ annex }) => annex);
    expect(during.leave.filter(({ annex }) => its.includes(annex))).toEqual([]);
    const after = arrange({ ...calm, cells: dead });
    expect(after.leave.map(({ annex }) => annex)).toEqual(expect.arrayContaining(its));
  });

  test("a cell whose database was set back keeps its standbys: they may have what it lacks", () => {
    const { standbys, cells } = settle(world({ cells: cellsOf(3) }));
    const back = cells.map((cell) =>
      cell.id === "cell-02" ? { ...cell, state: "quarantined" as const } : cell,
    );
    const { leave, make } = arrange(world({ cells: back, standbys }));
    const its = standbys.filter(({ origin }) => origin === "cell-02").map(({ annex }) => annex);
    expect(leave.filter(({ annex }) => its.includes(annex))).toEqual([]);
    expect(make.filter(({ origin }) => origin === "cell-02")).toEqual([]);
  });

  test("a host whose database was set back loses its copies at once: they may have holes", () => {
    const { standbys, cells } = settle(world({ cells: cellsOf(3) }));
    const back = cells.map((cell) =>
      cell.id === "cell-02" ? { ...cell, state: "quarantined" as const } : cell,
    );
    const { leave } = arrange(world({ cells: back, standbys }));
    const hosted = standbys.filter(({ host }) => host === "cell-02");
    expect(hosted).toHaveLength(2);
    for (const { annex } of hosted) {
      expect(leave.find((one) => one.annex === annex)?.reason).toContain(
        "is not the one that it was",
      );
    }
  });

  test("no standbys are wanted: all leave; those of an operator stay", () => {
    const calm = settle(world({ cells: cellsOf(3) }));
    const byHand = aStandby("sb-own", "cell-01", "cell-02", { byHand: true, state: "ready" });
    const off = arrange({ ...calm, standbys: [...calm.standbys, byHand], wanted: 0 });
    expect(off.leave).toHaveLength(6);
    expect(off.make).toEqual([]);
  });
});

type Event =
  | { readonly kind: "come" }
  | { readonly kind: "go"; readonly at: number }
  | { readonly kind: "health"; readonly at: number; readonly health: "healthy" | "down" }
  | { readonly kind: "lost"; readonly at: number }
  | { readonly kind: "break"; readonly at: number };

const anEvent: fc.Arbitrary<Event> = fc.oneof(
  fc.constant({ kind: "come" } as const),
  fc.record({ kind: fc.constant("go" as const), at: fc.nat(20) }),
  fc.record({
    kind: fc.constant("health" as const),
    at: fc.nat(20),
    health: fc.constantFrom("healthy" as const, "down" as const),
  }),
  fc.record({ kind: fc.constant("lost" as const), at: fc.nat(20) }),
  fc.record({ kind: fc.constant("break" as const), at: fc.nat(60) }),
);

/** What the world does to a fleet; nobody decided it. */
function happen(now: ArrangeWorld, event: Event, count: number): ArrangeWorld {
  const at = "at" in event ? event.at : 0;
  const target = now.cells[at % Math.max(1, now.cells.length)];
  const change = (to: Partial<CellView>) =>
    now.cells.map((cell) => (cell === target ? { ...cell, ...to } : cell));
  if (event.kind === "come") return { ...now, cells: [...now.cells, aCell(`cell-${count}`)] };
  if (target === undefined) return now;
  if (event.kind === "go") return { ...now, cells: change({ state: "cordoned" }) };
  if (event.kind === "lost") {
    return { ...now, cells: change({ health: "down" }), lost: new Set([...now.lost, target.id]) };
  }
  if (event.kind === "health") {
    const lost = new Set([...now.lost].filter((id) => id !== target.id || event.health === "down"));
    return { ...now, cells: change({ health: event.health }), lost };
  }
  const standbys = now.standbys.map((one, index) =>
    index === at % now.standbys.length && isLiving(one)
      ? { ...one, state: "broken" as const }
      : one,
  );
  return { ...now, standbys };
}

/** One step of what was decided, chosen by a number: everything else was interrupted. */
function oneStep(now: ArrangeWorld, choice: number): ArrangeWorld {
  const { make, leave } = arrange(now);
  const growing = now.standbys.filter((one) => isLiving(one) && !isAdoptable(one));
  const picked = choice % Math.max(1, make.length + leave.length + growing.length);
  const making = make[picked];
  if (making !== undefined) {
    return { ...now, standbys: [...now.standbys, begun(making)] };
  }
  const left = leave[picked - make.length];
  if (left !== undefined) {
    return { ...now, standbys: now.standbys.filter(({ annex }) => annex !== left.annex) };
  }
  const grown = growing[picked - make.length - leave.length];
  const standbys = now.standbys.map((one) =>
    one === grown ? { ...one, state: "ready" as const } : one,
  );
  return { ...now, standbys };
}

const everyBucket = (buckets: readonly Buckets[]): number => coverageOf(buckets).size;

describe("whatever happens, interrupted anywhere", () => {
  const runs = fc.array(fc.tuple(fc.option(anEvent, { nil: undefined }), fc.nat(1000)), {
    minLength: 5,
    maxLength: 60,
  });

  test("no step uncovers a bucket that could be taken over", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 6 }),
        fc.integer({ min: 1, max: 3 }),
        runs,
        (n, wanted, run) => {
          let now = world({ cells: cellsOf(n), wanted });
          for (const [at, [event, choice]] of run.entries()) {
            if (event !== undefined) now = happen(now, event, at + 100);
            const before = now;
            now = oneStep(now, choice);
            for (const { id } of now.cells) {
              const had = coveredOf(before.standbys, id);
              const has = coveredOf(now.standbys, id);
              expect([...had].filter((bucket) => !has.has(bucket))).toEqual([]);
            }
          }
        },
      ),
      { numRuns: 150 },
    );
  });

  test("it comes to rest with every cell covered that can be, and nobody keeping much more than others", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 7 }),
        fc.integer({ min: 1, max: 3 }),
        runs,
        (n, wanted, run) => {
          let now = world({ cells: cellsOf(n), wanted });
          for (const [at, [event, choice]] of run.entries()) {
            if (event !== undefined) now = happen(now, event, at + 100);
            now = oneStep(now, choice);
          }
          const { cells, standbys, lost } = settle(now);
          const hosts = cells.filter(
            ({ id, health, state }) => health === "healthy" && state === "active" && !lost.has(id),
          );
          for (const cell of cells) {
            const own = standbys.filter(
              ({ origin, host }) => origin === cell.id && !lost.has(host),
            );
            // Where nobody may take a range, what stands on cells that are about to leave stays.
            if (!hosts.some(({ id }) => id !== cell.id)) continue;
            expect(everyBucket(own.map(({ buckets }) => buckets))).toBe(256);
            const twice = own.filter((one) =>
              own.some((other) => other !== one && isSameRange(other.buckets, one.buckets)),
            );
            expect(twice).toEqual([]);
          }
        },
      ),
      { numRuns: 100 },
    );
  });

  test("a fleet that grows one by one is as even as one that starts whole", () => {
    let now = world({ cells: cellsOf(2) });
    for (let count = 3; count <= 12; count += 1) now = settle({ ...now, cells: cellsOf(count) });
    const counts = now.cells.map(({ id }) => now.standbys.filter(({ host }) => host === id).length);
    expect(now.standbys).toHaveLength(36);
    expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(3);
  });
});
