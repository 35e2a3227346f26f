/** A rate holds over all that take from it, and saves nothing up. */
import { expect, test } from "vitest";
import type { Clock } from "../runtime/clock.ts";
import { createRate } from "./copy-rate.ts";

const signal = new AbortController().signal;

/** Time passes only by sleeping, or by hand. */
function createWalkedClock(): { readonly clock: Clock; readonly walk: (ms: number) => void } {
  let nowMs = 0;
  const clock: Clock = {
    nowMs: () => nowMs,
    monotonicMs: () => nowMs,
    after: () => ({ cancel: () => {} }),
    sleep: async (ms) => {
      nowMs += ms;
    },
  };
  return {
    clock,
    walk: (ms) => {
      nowMs += ms;
    },
  };
}

test("bytes take their time, from whichever table they are", async () => {
  const { clock } = createWalkedClock();
  const rate = createRate(clock, 1000);
  for (let piece = 0; piece < 11; piece += 1) await rate.take(100, signal);
  expect(clock.monotonicMs()).toBe(1000);
});

test("a pause is not made up for by a burst", async () => {
  const { clock, walk } = createWalkedClock();
  const rate = createRate(clock, 1000);
  await rate.take(100, signal);
  walk(60_000);
  for (let piece = 0; piece < 11; piece += 1) await rate.take(100, signal);
  expect(clock.monotonicMs()).toBe(61_000);
});

test("without a limit nobody waits", async () => {
  const { clock } = createWalkedClock();
  await createRate(clock, undefined).take(1e12, signal);
  expect(clock.monotonicMs()).toBe(0);
});
