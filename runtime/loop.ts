/**
 * A paced loop: turns never overlap, failures back off, `close()` waits for the running turn.
 * Events only wake it; the work is done at the loop's own pace.
 */
import type { Clock } from "./clock.ts";
import type { Random } from "./random.ts";
import { jitter } from "./random.ts";

export type Loop = {
  /** Run the next turn now instead of after the interval. */
  readonly wake: () => void;
  /** The same, also while turns fail: for whoever knows that waiting would be wrong, and asks seldom. */
  readonly hurry: () => void;
  /** Aborts the turn's signal and waits until the turn is over. */
  readonly close: () => Promise<void>;
};

export type LoopOptions = {
  readonly clock: Clock;
  readonly random: Random;
  readonly intervalMs: number;
  /** Backoff doubles from `intervalMs` (at least 100 ms) up to this. */
  readonly backoffMaxMs: number;
  /** One turn. Resolve `again` to be called at once (there is more work). */
  readonly turn: (signal: AbortSignal) => Promise<"again" | "idle">;
  /** Told of every turn that threw. */
  readonly onError: (error: unknown) => void;
};

export function startLoop(options: LoopOptions): Loop {
  const stop = new AbortController();
  let nap = new AbortController();
  let failures = 0;
  let woken = false;

  async function oneTurn(): Promise<number> {
    try {
      const result = await options.turn(stop.signal);
      failures = 0;
      return result === "again" ? 0 : jitter(options.random, options.intervalMs, 0.1);
    } catch (error) {
      if (!stop.signal.aborted) options.onError(error);
      failures += 1;
      const base = Math.max(100, options.intervalMs) * 2 ** Math.min(failures - 1, 10);
      return jitter(options.random, Math.min(base, options.backoffMaxMs), 0.2);
    }
  }

  async function run(): Promise<void> {
    while (!stop.signal.aborted) {
      woken = false;
      const waitMs = await oneTurn();
      if (stop.signal.aborted || waitMs === 0) continue;
      nap = new AbortController();
      // A wake that came during the turn counts, except while failing: then the backoff holds.
      if (woken && failures === 0) continue;
      await options.clock.sleep(waitMs, nap.signal);
    }
  }

  const running = run();
  return {
    wake: () => {
      woken = true;
      if (failures === 0) nap.abort();
    },
    hurry: () => {
      woken = true;
      nap.abort();
    },
    close: async () => {
      stop.abort();
      nap.abort();
      await running;
    },
  };
}
