import { expect, test } from "vitest";
import { isoTime, systemClock } from "./clock.ts";

test("a sleep ends when its signal aborts, and at once when it had", async () => {
  const stop = new AbortController();
  const napping = systemClock.sleep(3_600_000, stop.signal);
  stop.abort();
  await napping;
  await systemClock.sleep(3_600_000, stop.signal);
  expect(stop.signal.aborted).toBe(true);
});

test("a cancelled timer does not fire", async () => {
  const fired: string[] = [];
  systemClock.after(1, () => fired.push("cancelled")).cancel();
  await new Promise<void>((resolve) => systemClock.after(5, resolve));
  expect(fired).toEqual([]);
});

test("the monotonic clock does not run back", () => {
  const readings = Array.from({ length: 1000 }, () => systemClock.monotonicMs());
  expect([...readings].sort((a, b) => a - b)).toEqual(readings);
});

test("times are written in UTC", () => {
  expect(isoTime(0)).toBe("1970-01-01T00:00:00.000Z");
});
