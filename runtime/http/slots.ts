/**
 * Seats in front of an endpoint: at most `inFlightMax` requests at once, at most `pendingMax` waiting,
 * none for longer than `queueMs`. undici's own queue has no bound and no clock, so a request is only
 * given to it when a connection is free or may be opened.
 *
 * First come, first served; a seat given back goes to the oldest waiter at once. Some seats may be
 * reserved: whoever asks as `greedy`, because much of what is under way is his already, neither gets
 * those nor overtakes anybody else, so that others find a seat while he fills all the rest.
 */
import type { Clock } from "../clock.ts";

export type SlotLimits = {
  readonly inFlightMax: number;
  readonly pendingMax: number;
  readonly queueMs: number;
  /** Of `inFlightMax`, and as large a share of `pendingMax`: not for the greedy. Default 0. */
  readonly reserve?: number;
};
export type SeatWish = {
  readonly greedy?: boolean;
  /** Time already spent in other queues for the same request: it counts. */
  readonly waitedMs?: number;
};
export const seatVerdicts = ["taken", "queue-full", "queue-timeout", "client-gone"] as const;
export type SeatVerdict = (typeof seatVerdicts)[number];

export class Slots {
  readonly #clock: Clock;
  readonly #limits: SlotLimits;
  readonly #reserve: number;
  readonly #modest = new Set<(verdict: SeatVerdict) => void>();
  readonly #greedy = new Set<(verdict: SeatVerdict) => void>();
  #inFlight = 0;

  constructor(clock: Clock, limits: SlotLimits) {
    this.#clock = clock;
    this.#limits = limits;
    this.#reserve = limits.reserve ?? 0;
  }

  get inFlight(): number {
    return this.#inFlight;
  }
  get pending(): number {
    return this.#modest.size + this.#greedy.size;
  }

  /** A seat that was `taken` must be given back with `give`, exactly once. */
  take(signal: AbortSignal, wish: SeatWish = {}): Promise<SeatVerdict> | SeatVerdict {
    const { greedy = false } = wish;
    if (signal.aborted) return "client-gone";
    if (this.takeNow(wish)) return "taken";
    if (this.#isFull(greedy)) return "queue-full";
    const queue = greedy ? this.#greedy : this.#modest;
    const waitMs = Math.max(0, this.#limits.queueMs - (wish.waitedMs ?? 0));
    return new Promise((resolve) => {
      const settle = (verdict: SeatVerdict) => {
        queue.delete(settle);
        timer.cancel();
        signal.removeEventListener("abort", leave);
        resolve(verdict);
      };
      const leave = () => settle("client-gone");
      const timer = this.#clock.after(waitMs, () => settle("queue-timeout"));
      signal.addEventListener("abort", leave, { once: true });
      queue.add(settle);
    });
  }

  /** A seat that is free; otherwise nothing has happened. */
  takeNow({ greedy = false }: SeatWish = {}): boolean {
    if (this.#inFlight >= this.#seatsFor(greedy)) return false;
    this.#inFlight += 1;
    return true;
  }

  give(): void {
    // The seat passes on without being free in between, so that nobody overtakes the queue.
    const [modest] = this.#modest;
    if (modest !== undefined) {
      modest("taken");
      return;
    }
    const [greedy] = this.#greedy;
    if (greedy !== undefined && this.#inFlight <= this.#seatsFor(true)) greedy("taken");
    else this.#inFlight -= 1;
  }

  #seatsFor(greedy: boolean): number {
    return this.#limits.inFlightMax - (greedy ? this.#reserve : 0);
  }

  #isFull(greedy: boolean): boolean {
    const { pendingMax, inFlightMax } = this.#limits;
    if (this.pending >= pendingMax) return true;
    const kept = Math.floor((pendingMax * this.#reserve) / inFlightMax);
    return greedy && this.#greedy.size >= pendingMax - kept;
  }
}
