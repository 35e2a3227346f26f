/** One seat: never two who believe that they lead, and no term twice. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Clock, systemClock } from "../../runtime/clock.ts";
import { systemRandom } from "../../runtime/random.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import { eventually } from "../control.fixture.ts";
import { type Database, openDatabase, prepareDatabase } from "../store/database.ts";
import { keepSeat, readSeat, takeSeat } from "../store/leader.ts";
import { seatTtlMs, startLeading } from "./lead.ts";

let postgres: TestPostgres;
let database: Database;

beforeAll(async () => {
  postgres = await startTestPostgres();
  const url = await postgres.createDatabase("lead");
  database = openDatabase({ url, onConnectionError: () => undefined });
  await prepareDatabase(database, systemRandom);
});
afterAll(async () => {
  await database?.close();
  await postgres?.stop();
});

test("of twenty who ask at once one gets the seat, and it cannot be kept under an old term", async () => {
  const terms = await Promise.all(
    Array.from({ length: 20 }, (_, index) => takeSeat(database, `process-${index}`, 60_000)),
  );
  expect(terms.filter((one) => one !== undefined)).toEqual([1]);
  const seat = await readSeat(database.read);
  expect(seat?.live).toBe(true);
  const holder = seat?.holder ?? "";
  expect(await keepSeat(database, holder, 1, 60_000)).toBe(true);
  expect(await keepSeat(database, "somebody", 1, 60_000)).toBe(false);
  expect(await keepSeat(database, holder, 0, 60_000)).toBe(false);
  expect(await keepSeat(database, holder, 1, -1000)).toBe(true);
  expect(await takeSeat(database, "next", -1000)).toBe(2);
  expect(await keepSeat(database, holder, 1, 60_000)).toBe(false);
});

test("who stalls stops by its own clock, before the database would let another begin", async () => {
  let stalledMs = 0;
  const clock: Clock = {
    ...systemClock,
    monotonicMs: () => systemClock.monotonicMs() + stalledMs,
    // It never gets to renew: the process hangs.
    sleep: (_ms, signal) =>
      new Promise((resolve) => signal?.addEventListener("abort", () => resolve())),
  };
  const changes: Array<number | undefined> = [];
  const lead = startLeading({
    database,
    clock,
    random: systemRandom,
    instance: "stalled",
    onChange: (term) => changes.push(term),
    onError: (error) => changes.push(Number(String(error))),
  });
  const term = await eventually(
    () => Promise.resolve(lead.term()),
    (now) => now !== undefined,
  );
  expect(term).toBe(3);
  expect(lead.sinceMs()).toBeGreaterThan(0);
  expect(await takeSeat(database, "impatient", 1000)).toBeUndefined();
  stalledMs = seatTtlMs;
  expect(lead.term()).toBeUndefined();
  expect(lead.sinceMs()).toBe(0);
  expect(changes).toEqual([3, undefined]);
  await lead.close();
});

test("an orderly end leaves the seat to the next at once", async () => {
  await database.read.execute("update cellfleet_control.leader set expires_at = '-infinity'");
  const options = { database, clock: systemClock, random: systemRandom };
  const ignore = { onChange: () => undefined, onError: () => undefined };
  const first = startLeading({ ...options, ...ignore, instance: "first" });
  await eventually(
    () => Promise.resolve(first.term()),
    (now) => now !== undefined,
  );
  await first.close();
  expect((await readSeat(database.read))?.live).toBe(false);
  expect(await takeSeat(database, "second", 1000)).toBeGreaterThan(3);
});
