/**
 * For how long has the database's clock gone as this process's monotonic one? Ages that it tells of
 * things recorded before are believed only that far back: a clock may have been set.
 */
import type { Clock } from "../../../runtime/clock.ts";
import { databaseNowMs, type Reader } from "../../store/database.ts";

export type ClockWatch = {
  /** Asked now and then. */
  readonly look: () => Promise<void>;
  /** Up to `ageMs` if the clock went steadily for that long; less, or 0, if it did not or nobody watched. */
  readonly steadyMs: (ageMs: number) => number;
};

/** Two readings differ by the time that a question takes. */
const toleranceMs = 150;

export function createClockWatch(clock: Clock, reader: Reader): ClockWatch {
  let steady: { readonly sinceMs: number; readonly offsetMs: number } | undefined;
  let lookedMs = Number.NEGATIVE_INFINITY;
  return {
    look: async () => {
      const beforeMs = clock.monotonicMs();
      const nowMs = await databaseNowMs(reader);
      const afterMs = clock.monotonicMs();
      if (afterMs - beforeMs > toleranceMs) return; // It says nothing.
      lookedMs = beforeMs;
      const offsetMs = nowMs - beforeMs;
      const isSteady = steady !== undefined && Math.abs(offsetMs - steady.offsetMs) <= toleranceMs;
      if (!isSteady) steady = { sinceMs: beforeMs, offsetMs };
    },
    steadyMs: (ageMs) => {
      if (steady === undefined) return 0;
      return Math.min(ageMs, Math.max(0, lookedMs - steady.sinceMs));
    },
  };
}
