/** How fast a copy may go: bytes are taken before they are sent, by all its tables from one allowance. */
import type { Clock } from "../runtime/clock.ts";

export type Rate = { readonly take: (bytes: number, signal: AbortSignal) => Promise<void> };

export function createRate(clock: Clock, bytesPerSecondMax: number | undefined): Rate {
  if (bytesPerSecondMax === undefined) return { take: async () => {} };
  // Nothing is saved up while the source is slower: a burst is what a limit is meant to prevent.
  let freeAtMs = clock.monotonicMs();
  return {
    take: async (bytes, signal) => {
      const nowMs = clock.monotonicMs();
      const waitMs = freeAtMs - nowMs;
      freeAtMs = Math.max(freeAtMs, nowMs) + (bytes / bytesPerSecondMax) * 1000;
      if (waitMs > 0) await clock.sleep(waitMs, signal);
    },
  };
}
