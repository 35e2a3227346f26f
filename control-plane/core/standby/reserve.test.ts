/** What is kept free for a failover is free when one comes: with one tenant, and with a whole import. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { decideAll, firstNo } from "../filters.ts";
import { aCell } from "../fleet.fixture.ts";
import type { CellView, Tier } from "../fleet.ts";
import { planImport } from "../import-plan.ts";
import { placeTenant } from "../place.ts";
import { splitBuckets } from "./buckets.ts";
import { withReserves } from "./reserve.ts";
import { aStandby } from "./standby.fixture.ts";

const sized = (id: string, tenants: number, used = 0): CellView =>
  aCell(id, {
    capacity: { tenants, bytes: 1e9, rps: 1e6, maxTenantShare: 0.5 },
    usage: { tenants: used, bytes: 0, rps: 0 },
  });
const wanted = (cell: string | null = null) => ({
  ...{ tenant: "acme", tier: "standard" as Tier, region: null, bytes: 0, rps: 0, cell },
});
/** Each cell's buckets are kept by all the others, in equal parts. */
const meshed = (cells: readonly CellView[]): CellView[] =>
  withReserves(
    cells,
    cells.flatMap(({ id: origin }) => {
      const hosts = cells.filter(({ id }) => id !== origin);
      return splitBuckets(hosts.length).map((buckets, at) =>
        aStandby(`sb-${origin}-${at}`, origin, hosts[at]?.id ?? "", { buckets }),
      );
    }),
  );
/** Tenants that a cell would have if this one failed now. */
const afterFailureOf = (dead: CellView, cell: CellView): number =>
  cell.usage.tenants +
  (cell.reserve?.keeps.find(({ origin }) => origin === dead.id)?.share ?? 0) * dead.usage.tenants;

describe("the failover reserve", () => {
  test("without standbys nothing is kept free", () => {
    const cells = withReserves([sized("cell-01", 10, 9), sized("cell-02", 10)], []);
    expect(cells.map(({ reserve }) => reserve)).toEqual([null, null]);
    expect(placeTenant(cells, wanted("cell-01")).kind).toBe("place");
  });

  test("room is kept for the largest share that one partner would bring, and the numbers are told", () => {
    const cells = meshed([
      sized("cell-01", 100, 55),
      sized("cell-02", 1000, 90),
      sized("cell-03", 100, 4),
    ]);
    const [first] = cells;
    expect(first?.reserve?.held.tenants).toEqual({ amount: 45, origin: "cell-02" });
    const refusal = firstNo(decideAll(first ?? sized("", 0), wanted("cell-01")));
    expect(refusal).toMatchObject({
      ...{ name: "reserve", reason: "reserve" },
      text: "45 tenants are kept free for a failover of cell-02; 55 of 100 are used",
    });
  });

  test("a cell takes nothing that its partners could not take over", () => {
    const cells = meshed([
      sized("cell-01", 1000, 38),
      sized("cell-02", 20, 0),
      sized("cell-03", 1000),
    ]);
    const fits = decideAll(cells[0] ?? sized("", 0), wanted("cell-01"));
    expect(firstNo(fits)).toBeUndefined();
    const full = meshed([
      sized("cell-01", 1000, 40),
      sized("cell-02", 20, 0),
      sized("cell-03", 1000),
    ]);
    expect(firstNo(decideAll(full[0] ?? sized("", 0), wanted("cell-01")))?.text).toBe(
      "its partner cell-02 has room for 20 more tenants and would take over 50% of its 40",
    );
  });

  test("what an annex has adopted is load of its host", () => {
    const annex = aCell("sb-cell-02-cell-01", {
      annex: { origin: "cell-02", host: "cell-01" },
      usage: { tenants: 30, bytes: 0, rps: 0 },
    });
    const [host] = withReserves([sized("cell-01", 100, 70), annex], []);
    expect(host?.reserve?.hosted.tenants).toBe(30);
    expect(firstNo(decideAll(host ?? annex, wanted("cell-01")))?.name).toBe("reserve");
  });

  test("placed one by one until nothing fits, every cell could still fail", () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 3, max: 60 }), { minLength: 2, maxLength: 5 }),
        (sizes) => {
          let cells = meshed(sizes.map((size, at) => sized(`cell-0${at}`, size)));
          for (let placed = 0; placed < 400; placed += 1) {
            const where = placeTenant(cells, { ...wanted(), tenant: `t${placed}` });
            if (where.kind === "blocked") break;
            cells = meshed(
              cells.map((cell) => ({
                ...cell,
                usage: {
                  ...cell.usage,
                  tenants: cell.usage.tenants + (cell.id === where.cell ? 1 : 0),
                },
              })),
            );
          }
          expectSurvivable(cells);
        },
      ),
      { numRuns: 40 },
    );
  });

  test("an import leaves as much free as placing one by one", () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 3, max: 60 }), { minLength: 2, maxLength: 5 }),
        fc.integer({ min: 1, max: 200 }),
        (sizes, count) => {
          const cells = meshed(sizes.map((size, at) => sized(`cell-0${at}`, size)));
          const alike = { id: "a", tier: "standard" as const, region: null, cell: null, count };
          const load = { bytes: 0, rps: 0, bytesMax: 0, rpsMax: 0 };
          const plan = planImport(cells, [{ ...alike, ...load }], "mean");
          if (plan.kind === "blocked") return;
          const filled = cells.map((cell) => {
            const more = plan.shares.find((share) => share.cell === cell.id)?.count ?? 0;
            return { ...cell, usage: { ...cell.usage, tenants: cell.usage.tenants + more } };
          });
          expectSurvivable(meshed(filled));
        },
      ),
      { numRuns: 60 },
    );
  });
});

function expectSurvivable(cells: readonly CellView[]): void {
  for (const dead of cells) {
    for (const cell of cells.filter(({ id }) => id !== dead.id)) {
      expect(afterFailureOf(dead, cell)).toBeLessThanOrEqual(cell.capacity.tenants + 1e-9);
    }
  }
}
