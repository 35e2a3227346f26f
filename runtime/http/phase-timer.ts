/**
 * One timer for the phases of an exchange. `touch` on every byte costs an assignment: the timer looks
 * at the last sign of life when it fires, instead of being set anew for every chunk.
 */
import type { Clock, Timer } from "../clock.ts";

export type PhaseTrouble =
  | "connect"
  | "head-timeout"
  | "body-timeout"
  | "client-stalled"
  | "replaced";

export class PhaseTimer {
  readonly #clock: Clock;
  readonly #onSilence: (trouble: PhaseTrouble) => void;
  #timer: Timer | undefined;
  #limitMs = 0;
  #trouble: PhaseTrouble = "connect";
  #lastMs = 0;

  constructor(clock: Clock, onSilence: (trouble: PhaseTrouble) => void) {
    this.#clock = clock;
    this.#onSilence = onSilence;
  }

  /** From now on a silence of `limitMs` is this trouble. */
  watch(limitMs: number, trouble: PhaseTrouble): void {
    this.#timer?.cancel();
    this.#limitMs = limitMs;
    this.#trouble = trouble;
    this.touch();
    this.#arm(limitMs);
  }

  touch(): void {
    this.#lastMs = this.#clock.monotonicMs();
  }

  /** Another watch for a while; call the result to go back to the present one. */
  interrupt(limitMs: number, trouble: PhaseTrouble): () => void {
    const before = { limitMs: this.#limitMs, trouble: this.#trouble };
    this.watch(limitMs, trouble);
    return () => this.watch(before.limitMs, before.trouble);
  }

  stop(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  #arm(ms: number): void {
    this.#timer = this.#clock.after(ms, () => {
      const leftMs = this.#lastMs + this.#limitMs - this.#clock.monotonicMs();
      if (leftMs > 1) this.#arm(leftMs);
      else this.#onSilence(this.#trouble);
    });
  }
}
