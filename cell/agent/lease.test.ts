/** The lease's argument, step by step, with clocks moved by hand. */
import { describe, expect, test } from "vitest";
import {
  expireIfOver,
  type LeaseReading,
  type LeaseState,
  loseTime,
  noLease,
  observeReading,
  rateError,
  remainingMs,
  renewalDueAt,
  takeGrant,
} from "./lease.ts";

const boot = "2026-11-22T00:00:00.000Z";
const laterBoot = "2026-11-22T00:05:00.000Z";
const ttlMs = 10_000;

const granted = (sentMonoMs = 1000, grant = 1): LeaseState =>
  takeGrant(noLease, { grant, ttlMs, boot, sentMonoMs });
const reading = (fields: Partial<LeaseReading>): LeaseReading => ({
  serverBoot: boot,
  live: true,
  grant: 1,
  grantSeen: fields.grant ?? 1,
  remainingMs: ttlMs,
  beforeMonoMs: 2000,
  afterMonoMs: 2010,
  ...fields,
});

test("a lease that the database lost in a crash is over, and no late reading revives it", () => {
  const crashed = reading({ live: false, grant: 0, grantSeen: 1, remainingMs: 0 });
  const after = observeReading(granted(1000), crashed);
  expect(after).toMatchObject({ kind: "expired", grant: 1 });
  expect(renewalDueAt(after)).toBe(Number.NEGATIVE_INFINITY);
  expect(observeReading(after, reading({}))).toBe(after);
  expect(observeReading(after, reading({ grant: 2 })).kind).toBe("held");
});

describe("a grant", () => {
  test("counts from before the request, however late its answer comes", () => {
    const state = granted(1000);
    // The answer came at 9000: of ten seconds, two (less one percent of ten) are left.
    expect(remainingMs(state, 9000)).toBe(1000 + ttlMs * (1 - rateError) - 9000);
    expect(remainingMs(state, 1000 + ttlMs)).toBe(0);
  });

  test("that is older than the one held changes nothing", () => {
    const state = granted(1000, 7);
    expect(takeGrant(state, { grant: 6, ttlMs: 99_999, boot, sentMonoMs: 1500 })).toBe(state);
    const repeated = takeGrant(state, { grant: 7, ttlMs: 99_999, boot, sentMonoMs: 1500 });
    expect(remainingMs(repeated, 1500)).toBe(remainingMs(state, 1500));
  });

  test("whose row was read before its writer came here ends at the earlier of both", () => {
    const seen = observeReading(noLease, reading({ remainingMs: 9999, beforeMonoMs: 1500 }));
    const state = takeGrant(seen, { grant: 1, ttlMs, boot, sentMonoMs: 1000 });
    expect(remainingMs(state, 1500)).toBe(1000 + ttlMs * (1 - rateError) - 1500);
  });

  test("of an expired number stays expired; a greater one begins anew", () => {
    const over = expireIfOver(granted(1000), 20_000);
    expect(over.kind).toBe("expired");
    expect(takeGrant(over, { grant: 1, ttlMs, boot, sentMonoMs: 20_000 })).toBe(over);
    expect(takeGrant(over, { grant: 2, ttlMs, boot, sentMonoMs: 20_000 }).kind).toBe("held");
  });
});

describe("a reading of the row", () => {
  test("with more time than is known gives none: a clock that fell back extends nothing", () => {
    const state = granted(1000);
    const after = observeReading(state, reading({ remainingMs: 3_600_000 }));
    expect(remainingMs(after, 2010)).toBe(remainingMs(state, 2010));
  });

  test("with less time takes it away: the database's clock was set ahead", () => {
    const after = observeReading(granted(1000), reading({ remainingMs: 500 }));
    expect(remainingMs(after, 2010)).toBe(500);
  });

  test("a slow answer alone does not shorten the lease", () => {
    const slow = reading({ remainingMs: ttlMs - 1000, beforeMonoMs: 2000, afterMonoMs: 6000 });
    expect(observeReading(granted(1000), slow)).toEqual(granted(1000));
  });

  test("cannot revive what is over, whatever the database's clock says", () => {
    const over = expireIfOver(granted(1000), 20_000);
    expect(observeReading(over, reading({ beforeMonoMs: 20_000, afterMonoMs: 20_001 }))).toBe(over);
  });

  test("that is dead in the database is dead here, and stays so when its clock falls back", () => {
    const dead = observeReading(granted(1000), reading({ live: false, remainingMs: 0 }));
    expect(dead.kind).toBe("expired");
    expect(observeReading(dead, reading({})).kind).toBe("expired");
  });

  test("after a restart of the database ends the lease at once, with or without a row", () => {
    const restarted = { serverBoot: laterBoot, live: false, remainingMs: 0 };
    expect(observeReading(granted(1000), reading({ ...restarted, grant: 0 })).kind).toBe("none");
    expect(observeReading(granted(1000), reading({ ...restarted, grant: 1 })).kind).toBe("none");
  });

  test("from before the newest grant says nothing about it", () => {
    const state = granted(1000, 2);
    expect(observeReading(state, reading({ grant: 1, live: false }))).toBe(state);
    expect(observeReading(state, reading({ grant: 1, remainingMs: 1 }))).toBe(state);
  });

  test("is how another agent's lease is learnt, counted from before the question", () => {
    const state = observeReading(noLease, reading({ grant: 5, remainingMs: 1000 }));
    expect(remainingMs(state, 2010)).toBe(2000 + 1000 * (1 - rateError) - 2010);
  });
});

test("time that the wall clock ran ahead is taken from the lease", () => {
  const state = loseTime(granted(1000), 4000);
  expect(remainingMs(state, 2000)).toBe(1000 + ttlMs * (1 - rateError) - 4000 - 2000);
  expect(loseTime(granted(1000), -4000)).toEqual(granted(1000));
});

test("renewal is due after a third of the lease, and every minute at the latest", () => {
  expect(renewalDueAt(noLease)).toBe(Number.NEGATIVE_INFINITY);
  expect(renewalDueAt(granted(1000))).toBe(1000 + (ttlMs * (1 - rateError)) / 3);
  const long = takeGrant(noLease, { grant: 1, ttlMs: 1_200_000, boot, sentMonoMs: 0 });
  expect(renewalDueAt(long)).toBe(60_000);
});
