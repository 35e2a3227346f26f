/**
 * The clock of an exchange's phases. `touch` on every byte costs an assignment, `watch` hardly more:
 * all exchanges share one timer of the system, which is set for the first of them that may be due and
 * then looks at all. To set and clear one per phase would cost more than the phase.
 */
import { type Clock, nextTurn } from "../clock.ts";

export type PhaseTrouble =
  | "connect"
  | "head-timeout"
  | "body-timeout"
  | "client-stalled"
  | "replaced";

/** The shared timer looks at most so often, so a silence may be noticed so much too late. */
export const sweepMs = 25;

export class PhaseTimer {
  readonly #clock: Clock;
  readonly #sweep: Sweep;
  readonly #onSilence: (trouble: PhaseTrouble) => void;
  #limitMs = 0;
  #trouble: PhaseTrouble = "connect";
  #lastMs = 0;
  /** Its place among those of the sweep; -1: not running. For the sweep alone. */
  place = -1;

  constructor(clock: Clock, onSilence: (trouble: PhaseTrouble) => void) {
    this.#clock = clock;
    this.#sweep = sweepOf(clock);
    this.#onSilence = onSilence;
  }

  get dueMs(): number {
    return this.#lastMs + this.#limitMs;
  }

  /** From now on a silence of `limitMs` is this trouble. `nowMs`: for who has just looked. */
  watch(limitMs: number, trouble: PhaseTrouble, nowMs: number = this.#clock.monotonicMs()): void {
    this.#limitMs = limitMs;
    this.#trouble = trouble;
    this.#lastMs = nowMs;
    this.#sweep.add(this);
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
    this.#sweep.remove(this);
  }

  /** Once; who wants to go on watching says so again. */
  fire(): void {
    this.stop();
    this.#onSilence(this.#trouble);
  }
}

/** A look so much too late comes after the whole loop stood still: a long collection, a machine that was paused. */
const stoodStillMs = 200;

/** All running phase timers of one clock, and the one timer of the system behind them. */
class Sweep {
  readonly #clock: Clock;
  /**
   * The first `#count` are running. Not a Set: one that changes with every request is copied again and
   * again, and its dead copies, once they are old, keep every exchange they named alive until the next
   * full collection. Nor does this shrink, for the same reason.
   */
  readonly #running: (PhaseTimer | undefined)[] = [];
  #count = 0;
  #cancel: (() => void) | undefined;
  #atMs = Number.POSITIVE_INFINITY;
  #lookedMs = Number.NEGATIVE_INFINITY;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  add(timer: PhaseTimer): void {
    if (timer.place < 0) {
      timer.place = this.#count;
      this.#running[this.#count] = timer;
      this.#count += 1;
    }
    this.#expect(timer.dueMs);
  }

  /** The system's timer stays set: the next exchange will want it, and a look in vain costs little. */
  remove(timer: PhaseTimer): void {
    const { place } = timer;
    if (place < 0) return;
    timer.place = -1;
    this.#count -= 1;
    const last = this.#running[this.#count];
    this.#running[this.#count] = undefined;
    if (last === undefined || last === timer) return;
    last.place = place;
    this.#running[place] = last;
  }

  #expect(dueMs: number): void {
    const atMs = Math.max(dueMs, this.#lookedMs + sweepMs);
    if (atMs >= this.#atMs) return;
    this.#cancel?.();
    this.#atMs = atMs;
    // The sockets of an exchange keep the process alive, not its clock.
    const inMs = Math.max(0, atMs - this.#clock.monotonicMs());
    const timer = this.#clock.after(Math.ceil(inMs), () => this.#lookInTime(), {
      background: true,
    });
    this.#cancel = timer.cancel;
  }

  /** Timers come before sockets: what has arrived meanwhile is read first, and may end the silence. */
  #lookInTime(): void {
    const isLate = this.#clock.monotonicMs() > this.#atMs + stoodStillMs;
    if (!isLate) this.#look();
    else void nextTurn().then(() => this.#look());
  }

  #look(): void {
    const nowMs = this.#clock.monotonicMs();
    this.#cancel = undefined;
    this.#atMs = Number.POSITIVE_INFINITY;
    this.#lookedMs = nowMs;
    let nextMs = Number.POSITIVE_INFINITY;
    for (const timer of this.#running.slice(0, this.#count)) {
      // One that fires may end others.
      if (timer === undefined || timer.place < 0) continue;
      if (timer.dueMs <= nowMs + 1) timer.fire();
      else nextMs = Math.min(nextMs, timer.dueMs);
    }
    if (nextMs !== Number.POSITIVE_INFINITY) this.#expect(nextMs);
  }
}

const sweeps = new WeakMap<Clock, Sweep>();

function sweepOf(clock: Clock): Sweep {
  const known = sweeps.get(clock);
  if (known !== undefined) return known;
  const fresh = new Sweep(clock);
  sweeps.set(clock, fresh);
  return fresh;
}
