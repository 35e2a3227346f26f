/**
 * The circuit breaker of one endpoint, and so its ejection: what requests that went there say about it.
 * Pure but for the record it is given: no clock, no chance.
 *
 * Five gateway errors in a row open it: connection refused, reset, silence, or 502/503/504. Opened it is
 * passed over for 10 s, doubled at each further time up to 300 s; then one request is the trial that
 * closes it or opens it again.
 *
 * What must always be true: an application's 500 is no gateway error; what one tenant's requests run into
 * takes the endpoint from nobody else who is answered there; evidence that is older than the last
 * change of state changes nothing.
 */

export const breakerStates = ["closed", "open", "half-open"] as const;
export type BreakerState = (typeof breakerStates)[number];
export const breakerEvents = [
  "tripped",
  "trial-began",
  "answered",
  "failed",
  "abandoned",
  "reached",
] as const;
export type BreakerEvent = (typeof breakerEvents)[number];

/** What is missing changes nothing. */
export const breakerTransitions: Readonly<
  Record<BreakerState, Readonly<Partial<Record<BreakerEvent, BreakerState>>>>
> = {
  closed: { tripped: "open" },
  // `answered`: it was used in spite of it, because too few others were left.
  // `reached`: no request showed it, but a connection or a probe from the background.
  open: { "trial-began": "half-open", answered: "closed", reached: "closed" },
  // A trial of which nothing is heard for long makes room for another.
  "half-open": {
    answered: "closed",
    failed: "open",
    abandoned: "open",
    "trial-began": "half-open",
  },
};

/** Why an attempt was the endpoint's failure. `answer`: it said 502, 503 or 504 itself. */
export const ejectionReasons = ["connect", "reset", "timeout", "protocol", "answer"] as const;
export type EjectionReason = (typeof ejectionReasons)[number];
export type Evidence =
  | { readonly kind: "answered" }
  | { readonly kind: "failed"; readonly reason: EjectionReason }
  /** It says nothing of the endpoint: the client went away, or was at fault. */
  | { readonly kind: "none" };

export type BreakerLimits = {
  readonly failuresInRow: number;
  readonly openMs: number;
  readonly openMsMax: number;
  /** So long without an opening, and the next one is a first one again. */
  readonly calmMs: number;
  /** Another tenant that was answered so recently shows that a run of one tenant's failures is its own. */
  readonly vouchMs: number;
  /** So long a trial may say nothing. */
  readonly trialMs: number;
  /** An endpoint that takes no connections is tried again so soon while there is no other. */
  readonly lastResortMs: number;
};
export const breakerLimits: BreakerLimits = {
  failuresInRow: 5,
  openMs: 10_000,
  openMsMax: 300_000,
  calmMs: 60_000,
  vouchMs: 10_000,
  trialMs: 60_000,
  lastResortMs: 25,
};

type Answered = { who: string; atMs: number };

export type Breaker = {
  state: BreakerState;
  /** Grows with each change of state; evidence carries the one it was gathered under. */
  turn: number;
  run: number;
  /** Failures in a row that were no connection. */
  refusals: number;
  /** Who the run belongs to; undefined as soon as there are two. */
  runOf: string | undefined;
  openings: number;
  untilMs: number;
  changedMs: number;
  /** The last two different ones that were answered. */
  readonly latest: Answered;
  readonly other: Answered;
};

export const createBreaker = (): Breaker => ({
  state: "closed",
  turn: 0,
  run: 0,
  refusals: 0,
  runOf: undefined,
  openings: 0,
  untilMs: 0,
  changedMs: Number.NEGATIVE_INFINITY,
  latest: { who: "", atMs: Number.NEGATIVE_INFINITY },
  other: { who: "", atMs: Number.NEGATIVE_INFINITY },
});

/** Nothing listens there, as far as is known: to try it is to fail. */
export const isDead = ({ state, refusals }: Breaker, limits: BreakerLimits): boolean =>
  state !== "closed" && refusals >= limits.failuresInRow;

/** May a request be its trial? `lastResort`: nobody else can be reached. */
export function isTrialDue(
  breaker: Breaker,
  nowMs: number,
  lastResort: boolean,
  limits: BreakerLimits,
): boolean {
  if (breaker.state === "half-open") return nowMs >= breaker.changedMs + limits.trialMs;
  if (breaker.state !== "open") return false;
  if (nowMs >= breaker.untilMs) return true;
  return lastResort && nowMs >= breaker.changedMs + limits.lastResortMs;
}

/**
 * In the background it took a connection, or was well when probed. That counts where nothing was known to listen,
 * and from a probe also when its time is over.
 */
export function noteReached(breaker: Breaker, nowMs: number, limits: BreakerLimits): void {
  if (!isDead(breaker, limits) && nowMs < breaker.untilMs) return;
  if (breaker.state === "open") breaker.refusals = 0;
  step(breaker, "reached", nowMs);
}

export function beginTrial(breaker: Breaker, nowMs: number): void {
  step(breaker, "trial-began", nowMs);
}

export type Attempted = {
  readonly evidence: Evidence;
  /** `turn` of the breaker when the endpoint was picked. */
  readonly turn: number;
  /** The tenant, or what else it was asked for. */
  readonly who: string;
};

/** Returns the reason if it opened just now, so that it can be counted. */
export function noteAttempt(
  breaker: Breaker,
  { evidence, turn, who }: Attempted,
  nowMs: number,
  limits: BreakerLimits,
): EjectionReason | undefined {
  if (turn !== breaker.turn) return undefined;
  switch (evidence.kind) {
    case "none":
      if (breaker.state === "half-open") step(breaker, "abandoned", nowMs);
      return undefined;
    case "answered":
      noteAnswer(breaker, who, nowMs);
      return undefined;
    case "failed":
      return noteFailure(breaker, evidence.reason, who, nowMs, limits);
  }
}

function noteAnswer(breaker: Breaker, who: string, nowMs: number): void {
  const { latest, other } = breaker;
  if (latest.who !== who) {
    other.who = latest.who;
    other.atMs = latest.atMs;
    latest.who = who;
  }
  latest.atMs = nowMs;
  breaker.run = 0;
  breaker.refusals = 0;
  if (breaker.state !== "closed") step(breaker, "answered", nowMs);
}

function noteFailure(
  breaker: Breaker,
  reason: EjectionReason,
  who: string,
  nowMs: number,
  limits: BreakerLimits,
): EjectionReason | undefined {
  breaker.runOf = breaker.run === 0 || breaker.runOf === who ? who : undefined;
  breaker.refusals = reason === "connect" ? breaker.refusals + 1 : 0;
  breaker.run += 1;
  if (breaker.state === "half-open") {
    // The trial was alone: what it met is what there is.
    if (reason === "connect") breaker.refusals = Math.max(breaker.refusals, limits.failuresInRow);
    open(breaker, "failed", nowMs, limits);
    return reason;
  }
  if (breaker.state !== "closed" || breaker.run < limits.failuresInRow) return undefined;
  // Who cannot connect is told so by the endpoint alone; everything else may be about what was asked.
  const isRefused = breaker.refusals >= limits.failuresInRow;
  if (!isRefused && isOwnTrouble(breaker, nowMs, limits)) return undefined;
  if (nowMs - breaker.changedMs > limits.calmMs) breaker.openings = 0;
  open(breaker, "tripped", nowMs, limits);
  return reason;
}

/** All failures are of one tenant, and another was answered a moment ago. */
function isOwnTrouble({ runOf, latest, other }: Breaker, nowMs: number, limits: BreakerLimits) {
  if (runOf === undefined) return false;
  const sinceMs = nowMs - limits.vouchMs;
  return [latest, other].some(({ who, atMs }) => who !== runOf && atMs >= sinceMs);
}

function open(
  breaker: Breaker,
  event: "tripped" | "failed",
  nowMs: number,
  limits: BreakerLimits,
): void {
  const { openMs, openMsMax } = limits;
  step(breaker, event, nowMs);
  breaker.untilMs = nowMs + Math.min(openMs * 2 ** breaker.openings, openMsMax);
  // Doubled no further than to the longest time.
  if (openMs * 2 ** breaker.openings < openMsMax) breaker.openings += 1;
}

function step(breaker: Breaker, event: BreakerEvent, nowMs: number): void {
  const next = breakerTransitions[breaker.state][event];
  if (next === undefined) return;
  breaker.state = next;
  breaker.turn += 1;
  breaker.changedMs = nowMs;
  if (next === "closed") breaker.run = 0;
}
