/**
 * Pure: when a worker that died by itself is replaced, and when the router gives up. The first ones are
 * replaced at once: one bad request must not take a core away. What dies again and again would only
 * burn the machine and hide the fault, so the process ends, and whoever runs it sees that.
 */
export const restartLimits = {
  /** Deaths of all workers in `windowMs` that are still repaired. */
  deathsMax: 10,
  windowMs: 60_000,
  /** Replaced at once; after that the wait doubles, up to the last. */
  atOnceMax: 2,
  backoffMs: 200,
  backoffMaxMs: 5000,
} as const;

export type RestartVerdict =
  | { readonly kind: "again"; readonly afterMs: number }
  | { readonly kind: "give-up"; readonly deaths: number };

/** `deathsMs`: when workers died by themselves, this time included, on the monotonic clock. */
export function judgeDeath(deathsMs: readonly number[], nowMs: number): RestartVerdict {
  const recent = deathsMs.filter((atMs) => nowMs - atMs < restartLimits.windowMs);
  const deaths = recent.length;
  if (deaths > restartLimits.deathsMax) return { kind: "give-up", deaths };
  const doubled = deaths - restartLimits.atOnceMax - 1;
  if (doubled < 0) return { kind: "again", afterMs: 0 };
  const afterMs = Math.min(restartLimits.backoffMs * 2 ** doubled, restartLimits.backoffMaxMs);
  return { kind: "again", afterMs };
}
