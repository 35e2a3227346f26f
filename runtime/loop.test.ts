import { describe, expect, test } from "vitest";
import type { Clock } from "./clock.ts";
import { type Loop, startLoop } from "./loop.ts";

/** Naps end only by an abort; what was asked for is written down. */
function napping(): { clock: Clock; naps: number[] } {
  const naps: number[] = [];
  const clock: Clock = {
    nowMs: () => 0,
    monotonicMs: () => 0,
    after: () => ({ cancel: () => {} }),
    sleep: (ms, signal) => {
      naps.push(ms);
      return new Promise((resolve) => {
        if (signal?.aborted === true) resolve();
        signal?.addEventListener("abort", () => resolve(), { once: true });
      });
    },
  };
  return { clock, naps };
}

/** The middle of every jitter, so that waits are exact. */
const random = { unit: () => 0.5, uuid: () => "", hex: () => "" };
const settle = () => new Promise((resolve) => setImmediate(resolve));

async function napsAre(naps: readonly number[], count: number): Promise<void> {
  while (naps.length < count) await settle();
}

describe("a loop", () => {
  test("goes on at once while there is more, then naps for its interval", async () => {
    const { clock, naps } = napping();
    const results = ["again", "again", "idle"] as const;
    let turns = 0;
    const loop = startLoop({
      clock,
      random,
      intervalMs: 1000,
      backoffMaxMs: 8000,
      turn: async () => {
        turns += 1;
        return results[turns - 1] ?? "idle";
      },
      onError: () => {},
    });
    await napsAre(naps, 1);
    expect([turns, naps]).toEqual([3, [1000]]);
    await loop.close();
  });

  test("never runs two turns at a time, and a wake during a turn is not lost", async () => {
    const { clock, naps } = napping();
    const running = { now: 0, most: 0, turns: 0 };
    const loop: Loop = startLoop({
      clock,
      random,
      intervalMs: 1000,
      backoffMaxMs: 8000,
      turn: async () => {
        running.now += 1;
        running.turns += 1;
        running.most = Math.max(running.most, running.now);
        await settle();
        if (running.turns === 1) {
          loop.wake();
          loop.wake();
        }
        running.now -= 1;
        return "idle";
      },
      onError: () => {},
    });
    await napsAre(naps, 1);
    expect(running).toEqual({ now: 0, most: 1, turns: 2 });
    await loop.close();
  });

  test("a wake ends a nap", async () => {
    const { clock, naps } = napping();
    let turns = 0;
    const loop = startLoop({
      clock,
      random,
      intervalMs: 1000,
      backoffMaxMs: 8000,
      turn: async () => {
        turns += 1;
        return "idle";
      },
      onError: () => {},
    });
    await napsAre(naps, 1);
    loop.wake();
    await napsAre(naps, 2);
    expect(turns).toBe(2);
    await loop.close();
  });

  test("backs off while it fails, up to the limit, and a wake does not break the backoff", async () => {
    const { naps } = napping();
    const errors: unknown[] = [];
    // Naps end by themselves here: what counts is how long they would be.
    const clock = { ...napping().clock, sleep: async (ms: number) => void naps.push(ms) };
    let turns = 0;
    const loop: Loop = startLoop({
      clock,
      random,
      intervalMs: 10,
      backoffMaxMs: 1000,
      turn: async () => {
        turns += 1;
        await settle();
        loop.wake();
        if (turns <= 6) throw new Error(`turn ${turns}`);
        return "idle";
      },
      onError: (error) => errors.push(error),
    });
    await napsAre(naps, 6);
    expect(naps.slice(0, 6)).toEqual([100, 200, 400, 800, 1000, 1000]);
    expect(errors).toHaveLength(6);
    await loop.close();
  });

  test("close aborts the running turn's signal and waits for its end", async () => {
    const { clock } = napping();
    const seen: string[] = [];
    let begun = () => {};
    const started = new Promise<void>((resolve) => {
      begun = resolve;
    });
    const loop = startLoop({
      clock,
      random,
      intervalMs: 10,
      backoffMaxMs: 100,
      turn: async (signal) => {
        begun();
        await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
        await settle();
        seen.push("turn over");
        return "idle";
      },
      onError: () => seen.push("error"),
    });
    await started;
    await loop.close();
    seen.push("closed");
    expect(seen).toEqual(["turn over", "closed"]);
  });
});
