/**
 * What a worker was sent and has not acknowledged yet. Answers come in the order of the posts, so one
 * timer, for the oldest, is enough.
 */
import type { Clock, Timer } from "../../runtime/clock.ts";

export class Acknowledgements {
  readonly #clock: Clock;
  readonly #onLate: () => void;
  /** How long each may take from when it is the oldest. */
  readonly #open: number[] = [];
  #timer: Timer | undefined;

  constructor(clock: Clock, onLate: () => void) {
    this.#clock = clock;
    this.#onLate = onLate;
  }

  sent(ms: number): void {
    this.#open.push(ms);
    if (this.#open.length === 1) this.#watch();
  }

  came(): void {
    this.#open.shift();
    this.#watch();
  }

  end(): void {
    this.#open.length = 0;
    this.#watch();
  }

  #watch(): void {
    this.#timer?.cancel();
    const [ms] = this.#open;
    this.#timer = ms === undefined ? undefined : this.#clock.after(ms, this.#onLate);
  }
}
