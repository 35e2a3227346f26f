/**
 * The retry budget of one cell: second attempts may be a fifth of its requests, and 3 a second whatever
 * there is, so that repetitions never become the load that keeps a cell down. Requests and repetitions of
 * the last ten seconds or so count, the older the less. The clock's value comes in.
 */

export type RetryBudgetLimits = {
  /** Of requests. */
  readonly share: number;
  readonly perSecondMin: number;
  readonly memoryMs: number;
};
export const retryBudgetLimits: RetryBudgetLimits = {
  share: 0.2,
  perSecondMin: 3,
  memoryMs: 10_000,
};

/** Counts halve every half of the memory, in one step: exact enough, and free of logarithms. */
export class RetryBudget {
  readonly #limits: RetryBudgetLimits;
  #requests = 0;
  #retries = 0;
  #halvedMs: number;

  constructor(limits: RetryBudgetLimits, nowMs: number) {
    this.#limits = limits;
    this.#halvedMs = nowMs;
  }

  noteRequest(nowMs: number): void {
    this.#fade(nowMs);
    this.#requests += 1;
  }

  /** Counts it, if it may be. */
  take(nowMs: number): boolean {
    this.#fade(nowMs);
    const { share, perSecondMin, memoryMs } = this.#limits;
    const allowed = this.#requests * share + (perSecondMin * memoryMs) / 1000;
    if (this.#retries + 1 > allowed) return false;
    this.#retries += 1;
    return true;
  }

  /** One that turned out to be no load. */
  giveBack(): void {
    this.#retries = Math.max(0, this.#retries - 1);
  }

  #fade(nowMs: number): void {
    const stepMs = this.#limits.memoryMs / 2;
    const steps = Math.floor((nowMs - this.#halvedMs) / stepMs);
    if (steps <= 0) return;
    this.#halvedMs += steps * stepMs;
    const factor = 0.5 ** Math.min(steps, 60);
    this.#requests *= factor;
    this.#retries *= factor;
  }
}
