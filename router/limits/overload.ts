/**
 * How much this router has to do: requests under way, and how late its event loop is. Looks at the loop only
 * while requests are under way, so that an idle router does nothing.
 */
import type { Priority } from "../../contract/service-route.ts";
import type { Clock } from "../../runtime/clock.ts";
import { isShed, type Lag, levelByLoad, noLag, observeLag, type ShedLevel } from "./shed.ts";

export type OverloadLimits = {
  /** Requests under way in this router (in each of its workers): beyond it all are refused. */
  readonly inFlightMax: number;
  /** So late a turn of the event loop is a sign of overload; 0: do not look. */
  readonly lateMs: number;
};

const sampleMs = 100;

export class Overload {
  readonly #clock: Clock;
  readonly #limits: OverloadLimits;
  #inFlight = 0;
  #byLoad: ShedLevel = 0;
  #lag: Lag = noLag;
  #sampling: boolean = false;

  constructor(clock: Clock, limits: OverloadLimits) {
    this.#clock = clock;
    this.#limits = limits;
  }

  get inFlight(): number {
    return this.#inFlight;
  }
  /** As in shed.ts: of its two reasons the worse. */
  get level(): number {
    return Math.max(this.#byLoad, this.#lag.level);
  }

  /** May a request of this priority come in? What was let in leaves with `leave`, exactly once. */
  enter(priority: Priority): boolean {
    if (this.isShedding(priority)) return false;
    this.#inFlight += 1;
    this.#weigh();
    if (!this.#sampling && this.#limits.lateMs > 0) this.#sample();
    return true;
  }

  leave(): void {
    this.#inFlight -= 1;
    this.#weigh();
  }

  /** The same question for what is not counted: a tunnel. */
  isShedding(priority: Priority): boolean {
    return this.#inFlight >= this.#limits.inFlightMax || isShed(this.level, priority);
  }

  #weigh(): void {
    this.#byLoad = levelByLoad(this.#byLoad, this.#inFlight / this.#limits.inFlightMax);
  }

  #sample(): void {
    this.#sampling = true;
    const dueMs = this.#clock.monotonicMs() + sampleMs;
    const look = () => {
      const lateMs = this.#clock.monotonicMs() - dueMs;
      this.#lag = observeLag(this.#lag, lateMs, this.#limits.lateMs);
      if (this.#inFlight > 0 || this.#lag.level > 0) this.#sample();
      else this.#sampling = false;
    };
    this.#clock.after(sampleMs, look, { background: true });
  }
}
