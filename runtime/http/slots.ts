/**
 * Seats in front of an endpoint: at most `inFlightMax` requests at once, at most `pendingMax` waiting,
 * none for longer than `queueMs`. undici's own queue has no bound and no clock, so a request is only
 * given to it when a connection is free or may be opened.
 *
 * First come, first served; a seat given back goes to the oldest waiter at once.
 */
import type { Clock } from "../clock.ts";

export type SlotLimits = {
  readonly inFlightMax: number;
  readonly pendingMax: number;
  readonly queueMs: number;
};
export const seatVerdicts = ["taken", "queue-full", "queue-timeout", "client-gone"] as const;
export type SeatVerdict = (typeof seatVerdicts)[number];

export class Slots {
  readonly #clock: Clock;
  readonly #limits: SlotLimits;
  readonly #waiting = new Set<(verdict: SeatVerdict) => void>();
  #inFlight = 0;

  constructor(clock: Clock, limits: SlotLimits) {
    this.#clock = clock;
    this.#limits = limits;
  }

  get inFlight(): number {
    return this.#inFlight;
  }
  get pending(): number {
    return this.#waiting.size;
  }

  /** A seat that was `taken` must be given back with `give`, exactly once. */
  take(signal: AbortSignal): Promise<SeatVerdict> | SeatVerdict {
    if (signal.aborted) return "client-gone";
    if (this.#inFlight < this.#limits.inFlightMax) {
      this.#inFlight += 1;
      return "taken";
    }
    if (this.#waiting.size >= this.#limits.pendingMax) return "queue-full";
    return new Promise((resolve) => {
      const settle = (verdict: SeatVerdict) => {
        this.#waiting.delete(settle);
        timer.cancel();
        signal.removeEventListener("abort", leave);
        resolve(verdict);
      };
      const leave = () => settle("client-gone");
      const timer = this.#clock.after(this.#limits.queueMs, () => settle("queue-timeout"));
      signal.addEventListener("abort", leave, { once: true });
      this.#waiting.add(settle);
    });
  }

  give(): void {
    const [next] = this.#waiting;
    // The seat passes on without being free in between, so that nobody overtakes the queue.
    if (next === undefined) this.#inFlight -= 1;
    else next("taken");
  }
}
