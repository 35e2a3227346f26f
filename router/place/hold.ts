/**
 * Requests that wait while their placement changes hands. The body is not read meanwhile, so a held
 * request costs a connection and little memory.
 *
 * Per placement key a small state machine: idle → holding → draining → idle. A request waits at most
 * `holdMs`; at most `perKeyMax` wait for one key and `totalMax` for all. A newer table releases them,
 * in the order in which they came and some at a time, so that the new owner is not met by all at once.
 */
import type { PlacementKey } from "../../contract/placement-key.ts";
import type { Clock, Timer } from "../../runtime/clock.ts";

export const holdStates = ["idle", "holding", "draining"] as const;
export type HoldState = (typeof holdStates)[number];
export const holdEvents = ["arrived", "released", "held-again", "emptied"] as const;
export type HoldEvent = (typeof holdEvents)[number];

/** What is missing cannot happen or changes nothing. */
export const holdTransitions: Readonly<
  Record<HoldState, Readonly<Partial<Record<HoldEvent, HoldState>>>>
> = {
  idle: { arrived: "holding" },
  holding: { released: "draining", emptied: "idle" },
  draining: { "held-again": "holding", emptied: "idle" },
};

export const stepHold = (state: HoldState, event: HoldEvent): HoldState =>
  holdTransitions[state][event] ?? state;

export const holdVerdicts = [
  "released",
  "timeout",
  "key-full",
  "router-full",
  "client-gone",
] as const;
export type HoldVerdict = (typeof holdVerdicts)[number];

export type HoldLimits = {
  readonly holdMs: number;
  readonly perKeyMax: number;
  readonly totalMax: number;
  /** Released in one go before others get a turn. */
  readonly batchMax: number;
};

type Waiter = (verdict: HoldVerdict) => void;
type Queue = { state: HoldState; readonly waiters: Set<Waiter> };

export class Hold {
  readonly #clock: Clock;
  readonly #limits: HoldLimits;
  readonly #onVerdict: (verdict: HoldVerdict) => void;
  readonly #queues = new Map<PlacementKey, Queue>();
  #total = 0;

  constructor(options: {
    readonly clock: Clock;
    readonly limits: HoldLimits;
    /** Counts; called once per request that came here. */
    readonly onVerdict: (verdict: HoldVerdict) => void;
  }) {
    this.#clock = options.clock;
    this.#limits = options.limits;
    this.#onVerdict = options.onVerdict;
  }

  /** Requests waiting now. */
  get held(): number {
    return this.#total;
  }

  /** By what they wait for. */
  heldByKey(): ReadonlyMap<PlacementKey, number> {
    return new Map([...this.#queues].map(([key, { waiters }]) => [key, waiters.size]));
  }

  stateOf(key: PlacementKey): HoldState {
    return this.#queues.get(key)?.state ?? "idle";
  }

  /** Waits until `release` finds the key free, at most until `deadlineMs` of the monotonic clock. */
  async wait(key: PlacementKey, deadlineMs: number, signal: AbortSignal): Promise<HoldVerdict> {
    const verdict = await this.#enter(key, deadlineMs, signal);
    this.#onVerdict(verdict);
    return verdict;
  }

  /** The end of a wait that starts now. */
  deadline(): number {
    return this.#clock.monotonicMs() + this.#limits.holdMs;
  }

  /** After each change of the table: `isFree` says which keys need not wait any more. */
  release(isFree: (key: PlacementKey) => boolean): void {
    for (const [key, queue] of this.#queues) {
      const free = isFree(key);
      if (free && queue.state === "holding") this.#drain(queue);
      else if (!free) queue.state = stepHold(queue.state, "held-again");
    }
  }

  #enter(
    key: PlacementKey,
    deadlineMs: number,
    signal: AbortSignal,
  ): Promise<HoldVerdict> | HoldVerdict {
    const queue = this.#queues.get(key) ?? { state: "idle", waiters: new Set<Waiter>() };
    if (signal.aborted) return "client-gone";
    if (this.#total >= this.#limits.totalMax) return "router-full";
    if (queue.waiters.size >= this.#limits.perKeyMax) return "key-full";
    const leftMs = deadlineMs - this.#clock.monotonicMs();
    if (leftMs <= 0) return "timeout";
    queue.state = stepHold(stepHold(queue.state, "held-again"), "arrived");
    this.#queues.set(key, queue);
    return new Promise((resolve) => {
      let timer: Timer | undefined;
      const settle = (verdict: HoldVerdict) => {
        if (!queue.waiters.delete(settle)) return;
        this.#total -= 1;
        timer?.cancel();
        signal.removeEventListener("abort", leave);
        if (queue.waiters.size === 0) this.#forget(key, queue);
        resolve(verdict);
      };
      const leave = () => settle("client-gone");
      queue.waiters.add(settle);
      this.#total += 1;
      timer = this.#clock.after(leftMs, () => settle("timeout"));
      signal.addEventListener("abort", leave, { once: true });
    });
  }

  #drain(queue: Queue): void {
    queue.state = stepHold(queue.state, "released");
    const turn = () => {
      if (queue.state !== "draining") return;
      let left = this.#limits.batchMax;
      for (const settle of queue.waiters) {
        if (left === 0) break;
        left -= 1;
        settle("released");
      }
      if (queue.waiters.size > 0) this.#clock.after(0, turn);
    };
    turn();
  }

  #forget(key: PlacementKey, queue: Queue): void {
    queue.state = stepHold(queue.state, "emptied");
    if (this.#queues.get(key) === queue) this.#queues.delete(key);
  }
}
