/**
 * How much this router has to do: requests under way, and how late its event loop is. Looks at the loop only
 * while requests are under way, so that an idle router does nothing.
 *
 * A late loop with few requests is a machine without a free processor: to refuse them would not help it.
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

/** Told when the router begins to refuse by priority, and when it ends. */
export type SheddingChange = {
  readonly kind: "began" | "ended";
  readonly level: number;
  readonly lateMs: number;
  readonly underWay: number;
};

const sampleMs = 100;
/** With fewer under way than this share of the ceiling, and than so many, lateness refuses nobody. */
const lateShare = 0.05;
const lateInFlight = 64;

export class Overload {
  readonly #clock: Clock;
  readonly #limits: OverloadLimits;
  readonly #onChange: (change: SheddingChange) => void;
  /** Lateness is a sign of overload from so many requests on. */
  readonly #lateFrom: number;
  #lateMs = 0;
  #wasShedding = false;
  #inFlight = 0;
  #byLoad: ShedLevel = 0;
  #lag: Lag = noLag;
  #sampling: boolean = false;

  constructor(
    clock: Clock,
    limits: OverloadLimits,
    onChange: (change: SheddingChange) => void = () => {},
  ) {
    this.#clock = clock;
    this.#limits = limits;
    this.#onChange = onChange;
    this.#lateFrom = Math.min(lateInFlight, Math.ceil(limits.inFlightMax * lateShare));
  }

  get inFlight(): number {
    return this.#inFlight;
  }
  /** How late the event loop was when it was looked at last; 0 while nobody asks. */
  get lateMs(): number {
    return this.#lateMs;
  }
  /** As in shed.ts: of its two reasons the worse. */
  get level(): number {
    return Math.max(this.#byLoad, this.#isBusy ? this.#lag.level : 0);
  }

  get #isBusy(): boolean {
    return this.#inFlight >= this.#lateFrom;
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
    this.#tell();
  }

  /** Not by `level`, which comes and goes with single requests around the floor. */
  #tell(): void {
    const level = Math.max(this.#byLoad, this.#lag.level);
    if (level > 0 === this.#wasShedding) return;
    this.#wasShedding = level > 0;
    const kind = level > 0 ? "began" : "ended";
    this.#onChange({ kind, level, lateMs: this.#lateMs, underWay: this.#inFlight });
  }

  #sample(): void {
    this.#sampling = true;
    const dueMs = this.#clock.monotonicMs() + sampleMs;
    const look = () => {
      const lateMs = Math.max(0, this.#clock.monotonicMs() - dueMs);
      this.#lag = observeLag(this.#lag, this.#isBusy ? lateMs : 0, this.#limits.lateMs);
      const goesOn = this.#inFlight > 0 || this.#lag.level > 0;
      this.#lateMs = goesOn ? lateMs : 0;
      this.#tell();
      if (goesOn) this.#sample();
      else this.#sampling = false;
    };
    this.#clock.after(sampleMs, look, { background: true });
  }
}
