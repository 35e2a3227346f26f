/**
 * Pure: who is refused when the router itself has too much to do. A level says which priorities; it rises
 * at once with requests under way and slowly with a late event loop, and falls only well below where it
 * rose, so that it does not flutter. `critical` is refused at the hard limit alone.
 */
import { type Priority, priorities } from "../../contract/service-route.ts";

/** What a level refuses: nothing, `low`, also `normal`, also `high`. */
export const shedLevels = [0, 1, 2, 3] as const;
export type ShedLevel = (typeof shedLevels)[number];

const rank = (priority: Priority): number => priorities.length - 1 - priorities.indexOf(priority);
/** Of each priority: the least level that refuses it; above all levels for `critical`. */
const refusedFrom: Readonly<Record<Priority, number>> = {
  low: rank("low") + 1,
  normal: rank("normal") + 1,
  high: rank("high") + 1,
  critical: rank("critical") + 1,
};

export const isShed = (level: number, priority: Priority): boolean =>
  level >= refusedFrom[priority];

/** Shares of the ceiling at which a level begins, and below which it ends. */
const risesAt: readonly number[] = [0, 0.7, 0.85, 0.95];
const fallsBelow: readonly number[] = [0, 0.6, 0.75, 0.85];

/** By the share of requests under way in what may be under way. */
export function levelByLoad(level: ShedLevel, share: number): ShedLevel {
  let next: ShedLevel = level;
  for (const higher of shedLevels) {
    if (higher > next && share >= (risesAt[higher] ?? 1)) next = higher;
  }
  while (next > 0 && share < (fallsBelow[next] ?? 0)) next = lower(next);
  return next;
}

const lower = (level: ShedLevel): ShedLevel => (level === 3 ? 2 : level === 2 ? 1 : 0);
const higherOf = (level: ShedLevel): ShedLevel => (level === 0 ? 1 : level === 1 ? 2 : 3);

export type Lag = {
  readonly level: ShedLevel;
  /** Samples in a row that were late, or in time. */
  readonly late: number;
  readonly calm: number;
};
export const noLag: Lag = { level: 0, late: 0, calm: 0 };

/** One late turn may be a collection of garbage; three in a row are a level, ten good ones take it back. */
const lateInRow = 3;
const calmInRow = 10;

/** By how late the event loop was; `lateMs` is the setting. */
export function observeLag(lag: Lag, lagMs: number, lateMs: number): Lag {
  if (lagMs >= lateMs) {
    const late = lag.late + 1;
    return late < lateInRow
      ? { ...lag, late, calm: 0 }
      : { level: higherOf(lag.level), late: 0, calm: 0 };
  }
  // Between half and whole it neither rises nor falls.
  if (lagMs >= lateMs / 2) return { ...lag, late: 0, calm: 0 };
  const calm = lag.calm + 1;
  return calm < calmInRow
    ? { ...lag, late: 0, calm }
    : { level: lower(lag.level), late: 0, calm: 0 };
}
