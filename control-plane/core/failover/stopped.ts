/**
 * Has the old owner certainly stopped? Its last lease must be over, as it was recorded, and each annex
 * must have recorded the order and have no promise left that it gave to the origin.
 *
 * What must always be true: proof that the origin is dead ends the wait for promises, never the wait for
 * the last lease; an annex that does not answer is not adopted from.
 */

export type StopLimits = {
  /** Drift between two clocks' rates. */
  readonly drift: number;
  readonly graceMs: number;
  /** A clock may have been set by so much without anybody knowing. */
  readonly clockStepMaxMs: number;
  /** An annex that has not recorded the order after this is left out. */
  readonly answerMs: number;
};
export const stopLimits: StopLimits = {
  drift: 0.01,
  graceMs: 250,
  clockStepMaxMs: 10_000,
  answerMs: 5000,
};

export type LastLease = {
  /** As recorded with the grant; 0: none was ever granted. */
  readonly ttlMs: number;
  /** Age of the grant by the database's clock, when nothing more was granted; null: none. */
  readonly sinceGrantMs: number | null;
  /** For so long, up to then, the database's clock went as this process's monotonic one. */
  readonly steadyMs: number;
};

/** Counted on the executor's monotonic clock, from the moment from which nothing more is granted. */
export function leaseWaitMs(
  { ttlMs, sinceGrantMs, steadyMs }: LastLease,
  limits: Pick<StopLimits, "drift" | "graceMs" | "clockStepMaxMs"> = stopLimits,
): number {
  if (sinceGrantMs === null || ttlMs === 0) return 0;
  const full = ownLeaseWaitMs(ttlMs, limits);
  // Long ago, whatever was done to the clock.
  if (sinceGrantMs > full + limits.clockStepMaxMs) return 0;
  // A clock that was not watched may have been set since: then its word counts for nothing.
  const isKnown = sinceGrantMs >= 0 && steadyMs >= sinceGrantMs;
  return isKnown ? Math.max(0, full - sinceGrantMs) : full;
}

/**
 * Of a cell that gives itself leases: the last one may have begun in the moment before it was powered off,
 * and nobody has recorded it.
 */
export const ownLeaseWaitMs = (
  ownMs: number,
  limits: Pick<StopLimits, "drift" | "graceMs"> = stopLimits,
): number => ownMs * (1 + limits.drift) + limits.graceMs;

export type OrderedAnnex = {
  readonly annex: string;
  /** Its database has the order of this failover and attempt. */
  readonly recorded: boolean;
  /** As its agent said, by its own monotonic clock; counts only once `recorded`. */
  readonly promiseRemainingMs: number;
};

export type Stopping = {
  readonly isOver: boolean;
  readonly leaseLeftMs: number;
  readonly promiseLeftMs: number;
  readonly stopped: readonly string[];
  readonly waiting: readonly string[];
  /** Not adopted from. */
  readonly silent: readonly string[];
};

export function judgeStopping(
  facts: {
    readonly leaseWaitMs: number;
    readonly elapsedMs: number;
    readonly annexes: readonly OrderedAnnex[];
    /** The origin is proved dead: nobody has to keep a promise to it. */
    readonly proved: boolean;
  },
  limits: Pick<StopLimits, "answerMs"> = stopLimits,
): Stopping {
  const { annexes, elapsedMs, proved } = facts;
  const leaseLeftMs = Math.max(0, facts.leaseWaitMs - elapsedMs);
  const isFree = (one: OrderedAnnex) => one.recorded && (proved || one.promiseRemainingMs <= 0);
  const stopped = annexes.filter(isFree).map(({ annex }) => annex);
  const isLate = elapsedMs >= Math.max(limits.answerMs, facts.leaseWaitMs);
  const silent = annexes.filter(({ recorded }) => !recorded && isLate).map(({ annex }) => annex);
  const waiting = annexes
    .filter((one) => !isFree(one) && !silent.includes(one.annex))
    .map(({ annex }) => annex);
  const promises = annexes
    .filter(({ annex, recorded }) => recorded && waiting.includes(annex))
    .map(({ promiseRemainingMs }) => promiseRemainingMs);
  return {
    isOver: leaseLeftMs === 0 && waiting.length === 0,
    leaseLeftMs,
    promiseLeftMs: Math.max(0, ...promises),
    ...{ stopped, waiting, silent },
  };
}

export function stoppingText(cell: string, found: Stopping): string {
  if (found.leaseLeftMs > 0) {
    return `${cell} gets no lease any more; its last one certainly ends in ${Math.ceil(found.leaseLeftMs)} ms`;
  }
  if (found.promiseLeftMs > 0) {
    return `${found.waiting.join(", ")} promised ${cell} to activate nothing for ${Math.ceil(found.promiseLeftMs / 1000)} s more; proof that ${cell} is powered off ends this wait`;
  }
  return `waiting for ${found.waiting.join(", ")} to record the order`;
}
