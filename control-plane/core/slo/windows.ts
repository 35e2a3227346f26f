/**
 * The windows over which requests are counted. Pure.
 *
 * Counts lie in minutes, older ones in hours. A window holds what lies wholly within it: a minute that began
 * before it is not part of it, so that it never says more than its length.
 */
export const minuteMs = 60_000;
export const hourMs = 60 * minuteMs;
export const dayMs = 24 * hourMs;

/** Minutes older than this become hours; every window shorter than a day is therefore exact to the minute. */
export const minutesKeptMs = 24 * hourMs;

/** Alerts of several windows (Site Reliability Workbook, chapter 5): the short one ends the alarm soon. */
export const burnWindows = {
  "5m": 5 * minuteMs,
  "30m": 30 * minuteMs,
  "1h": hourMs,
  "6h": 6 * hourMs,
} as const;
export type BurnWindow = keyof typeof burnWindows;

/** The first minute of the window that ends now. */
export const windowFromMs = (nowMs: number, windowMs: number): number =>
  Math.ceil((nowMs - windowMs) / minuteMs) * minuteMs;

/** All that has to be read for objectives of these windows, each once, shortest first. */
export const windowsToRead = (windowsDays: readonly number[]): readonly number[] =>
  [...new Set([...Object.values(burnWindows), ...windowsDays.map((days) => days * dayMs)])].sort(
    (a, b) => a - b,
  );

/**
 * Which part of the window is counted, 0 to 1: counting may have begun within it. At least a minute counts.
 */
export function countedShare(nowMs: number, windowMs: number, firstMs: number): number {
  if (firstMs <= windowFromMs(nowMs, windowMs)) return 1;
  return Math.min(1, Math.max(minuteMs, nowMs - firstMs) / windowMs);
}
