/**
 * What an annex's agent counts by its own monotonic clock: the promise to its origin, and whether the origin
 * gives signs of life. Pure.
 *
 * Always true: a promise ends here later than the origin may count on it, whatever was forgotten by a
 * restart; and `alive` is said only of a sign that is younger than its bound.
 */
import { rateError } from "../lease.ts";

export type CountedPromise = {
  /** Of each store, in their order. */
  readonly numbers: readonly number[];
  readonly untilMonoMs: number;
};

/** Of what stands in the stores, in their order. `promisedMs` 0: nothing. */
export type StoredPromise = { readonly promisedMs: number; readonly number: number };

/**
 * What the stores say, against what is counted here. A promise that this process did not make counts whole
 * from now on: the agent that made it may be this one's predecessor.
 */
export function countPromise(
  known: CountedPromise | undefined,
  stored: readonly StoredPromise[],
  nowMonoMs: number,
): CountedPromise | undefined {
  if (stored.every(({ promisedMs }) => promisedMs === 0)) {
    // A reading from before the promise was made says nothing about it.
    return known !== undefined && isOlder(stored, known) ? known : undefined;
  }
  if (known !== undefined && !stored.some(({ number }, at) => number > (known.numbers[at] ?? 0))) {
    return known;
  }
  return countFrom(known, stored, nowMonoMs);
}

/** Made, or found, at this moment: as long as the longest of them, and never shorter than before. */
export function countFrom(
  known: CountedPromise | undefined,
  stored: readonly StoredPromise[],
  nowMonoMs: number,
): CountedPromise {
  const longest = Math.max(...stored.map(({ promisedMs }) => promisedMs));
  return {
    numbers: stored.map(({ number }) => number),
    untilMonoMs: Math.max(known?.untilMonoMs ?? 0, nowMonoMs + longest * (1 + rateError)),
  };
}

const isOlder = (stored: readonly StoredPromise[], known: CountedPromise): boolean =>
  stored.some(({ number }, at) => number < (known.numbers[at] ?? 0));

export type Sight = {
  readonly sinceMonoMs: number;
  /** The newest heartbeat that was found here, and when it was first. */
  readonly beat: number | null;
  readonly beatMonoMs: number | undefined;
  /** The origin's agent said that it serves. */
  readonly answeredMonoMs: number | undefined;
};

export const noSight = (nowMonoMs: number): Sight => ({
  ...{ sinceMonoMs: nowMonoMs, beat: null, beatMonoMs: undefined, answeredMonoMs: undefined },
});

/** The first reading only says what lay here already. */
export function seeBeat(
  sight: Sight,
  beat: number | null,
  nowMonoMs: number,
  first: boolean,
): Sight {
  if (beat === sight.beat) return sight;
  return { ...sight, beat, ...(first ? {} : { beatMonoMs: nowMonoMs }) };
}

/** Signs of life come twice a second. */
const aliveMs = 1500;

/** `unknown`: not watched for long enough, or nothing was ever there to be seen. */
export function sees(sight: Sight, nowMonoMs: number): "unknown" | "alive" | "silent" {
  const last = Math.max(sight.beatMonoMs ?? -Infinity, sight.answeredMonoMs ?? -Infinity);
  if (nowMonoMs - last <= aliveMs) return "alive";
  if (last > -Infinity) return "silent";
  if (sight.beat === null || nowMonoMs - sight.sinceMonoMs <= 2 * aliveMs) return "unknown";
  return "silent";
}

/** The origin's agent is asked before the heartbeats' silence counts. */
export const isWorthAskingOrigin = (sight: Sight, nowMonoMs: number): boolean =>
  nowMonoMs - (sight.beatMonoMs ?? -Infinity) > aliveMs / 2;

/** Of the newest heartbeat; null: none. What lay here before is at least as old as this watch. */
export const heartbeatAgeMs = (sight: Sight, nowMonoMs: number): number | null =>
  sight.beat === null ? null : nowMonoMs - (sight.beatMonoMs ?? sight.sinceMonoMs);
