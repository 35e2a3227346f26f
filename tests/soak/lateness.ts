/** When this process itself, with the cells in it, last stood still: what a client sees then is not the router's. */
export type Lateness = {
  readonly wasLateSince: (sinceMs: number) => boolean;
  readonly worstMs: () => number;
  readonly stop: () => void;
};

const everyMs = 100;
const lateFromMs = 1000;

export function watchLateness(): Lateness {
  let before = performance.now();
  let lateAtMs = -Infinity;
  let worst = 0;
  const timer = setInterval(() => {
    const now = performance.now();
    const late = now - before - everyMs;
    before = now;
    worst = Math.max(worst, late);
    if (late > lateFromMs) lateAtMs = now;
  }, everyMs);
  return {
    wasLateSince: (sinceMs) => lateAtMs >= sinceMs || performance.now() - before > lateFromMs,
    worstMs: () => Math.round(worst),
    stop: () => clearInterval(timer),
  };
}
