/**
 * Tenants move back and forth between the cells of a real fleet, two at a time, while they and others are
 * written to and read. Customers notice a short wait and nothing else. The long run is `node tests/moves/main.ts`.
 */
import { afterAll, beforeAll, expect, test } from "vitest";
import { startFleet, type TestFleet } from "../fleet.ts";
import { travel } from "../moves/travel.ts";

let fleet: TestFleet;

beforeAll(async () => {
  fleet = await startFleet({ flags: ["--no-demo"] });
});
afterAll(() => fleet?.stop());

test("6 moves, two at a time, one of each lane taken back: nothing lost, doubled or refused", {
  timeout: 180_000,
}, async () => {
  const { trips, writes, refused, verdict, routes } = await travel(fleet, {
    ...{ moves: 6, atOnce: 2, writesPerSecond: 30, others: 6, othersPerSecond: 12 },
  });
  expect(refused).toEqual([]);
  expect(verdict.violations).toEqual([]);
  expect(verdict.counts).toMatchObject({ failed: 0, unknown: 0, acknowledged: writes });
  // Every write is in some cell's log, and in no two of them.
  expect(verdict.counts.commits).toBe(writes);
  expect(verdict.counts.lists).toBeGreaterThan(20);
  // At all times a published route named an active owner, or said that requests wait.
  expect(routes.faults).toEqual([]);
  expect(routes.judged).toBeGreaterThan(100);
  expect(trips).toHaveLength(6);
  expect(trips.filter(({ isReverse }) => isReverse)).toHaveLength(2);
  for (const { from, to, pause, gapMs } of trips) {
    expect(to).not.toBe(from);
    expect(pause?.total).toBeGreaterThan(0);
    // Requests waited while the keys changed hands: that is what makes it a move under load.
    expect(gapMs).toBeGreaterThan(0);
  }
});
