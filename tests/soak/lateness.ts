/**
 * When this process, with the cells in it, last stood still, and when the router last had no processor: what a
 * client sees then is not the router's doing.
 */
export type Lateness = {
  readonly wasLateSince: (sinceMs: number) => boolean;
  readonly wasStarvedSince: (sinceMs: number) => boolean;
  /** Of the router, since it began: so long it has waited for a processor. */
  readonly noteStarved: (totalMs: number) => void;
  readonly worstMs: () => number;
  readonly stop: () => void;
};

const everyMs = 100;
const lateFromMs = 1000;
/** Of the time between two notes. */
const starvedFrom = 0.5;

export function watchLateness(): Lateness {
  let before = performance.now();
  let lateAtMs = -Infinity;
  let worst = 0;
  let noted = { atMs: before, totalMs: 0 };
  let starvedAtMs = -Infinity;
  const timer = setInterval(() => {
    const now = performance.now();
    const late = now - before - everyMs;
    before = now;
    worst = Math.max(worst, late);
    if (late > lateFromMs) lateAtMs = now;
  }, everyMs);
  return {
    wasLateSince: (sinceMs) => lateAtMs >= sinceMs || performance.now() - before > lateFromMs,
    wasStarvedSince: (sinceMs) => starvedAtMs >= sinceMs,
    noteStarved: (totalMs) => {
      const atMs = performance.now();
      if (totalMs - noted.totalMs > starvedFrom * (atMs - noted.atMs)) starvedAtMs = atMs;
      noted = { atMs, totalMs };
    },
    worstMs: () => Math.round(worst),
    stop: () => clearInterval(timer),
  };
}
