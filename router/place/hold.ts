/**
 * Requests that wait while their placement changes hands. The body is not read meanwhile, so a held
 * request costs a connection and little memory.
 *
 * Per placement key a small state machine: idle → holding → draining → idle. A table that says
 * `hold` fills the queue, a table that does not empties it, in the order in which requests came and some at
 * a time, so that the new owner is not met by all at once; of a whole cell's keys some begin before others. Who
 * comes while it empties stands at its end.
 *
 * What must always be true: every wait ends, by the table, by its own time or with its client, whether
 * or not a word of the table was lost: each table is looked at as it stands, nothing counts holds
 * against releases. Requests and their bytes are bounded, per key and in all; whoever waits longer
 * than once keeps the place in line and the end of the first wait.
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
  "key-bytes-full",
  "router-full",
  "router-bytes-full",
  "client-gone",
] as const;
export type HoldVerdict = (typeof holdVerdicts)[number];
/** There was no room to wait in. */
export type HoldFull = Exclude<HoldVerdict, "released" | "timeout" | "client-gone">;

export type HoldLimits = {
  readonly holdMs: number;
  readonly perKeyMax: number;
  readonly totalMax: number;
  readonly perKeyBytesMax: number;
  readonly totalBytesMax: number;
  /** Released in one go before others get a turn; each later turn releases twice as many. */
  readonly batchMax: number;
};

/** Of one request, for all of its waits. */
export type Ticket = {
  /** Its place in line. */
  readonly nth: number;
  /** Of the monotonic clock. */
  readonly deadlineMs: number;
  /** So much memory it may take while it waits. */
  readonly bytes: number;
};

type Waiter = {
  readonly ticket: Ticket;
  readonly settle: (verdict: HoldVerdict) => void;
  /** Of those that wait for news: has it come? */
  readonly isOver: () => boolean;
};

type Queue = {
  state: HoldState;
  /** In order of their tickets. */
  waiters: Set<Waiter>;
  bytes: number;
  lastNth: number;
  /** One of many keys that become free together. */
  isMany: boolean;
  turn: Timer | undefined;
};
type Queues = Map<PlacementKey, Queue>;

export class Hold {
  readonly #clock: Clock;
  readonly #limits: HoldLimits;
  readonly #onVerdict: (verdict: HoldVerdict) => void;
  readonly #queues: Queues = new Map();
  /** Those that wait for another word of the table than the one that a gate contradicted. */
  readonly #listening: Queues = new Map();
  /** Free, and not begun with. */
  readonly #toDrain = new Set<Queue>();
  #draining: Timer | undefined;
  #total = 0;
  #bytes = 0;
  #tickets = 0;

  constructor(options: {
    readonly clock: Clock;
    readonly limits: HoldLimits;
    /** Counts; called once per wait. */
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
  /** Bytes that they may take. */
  get heldBytes(): number {
    return this.#bytes;
  }

  /** By what they wait for. */
  heldByKey(): ReadonlyMap<PlacementKey, number> {
    const counts = new Map<PlacementKey, number>();
    for (const [key, { waiters }] of [...this.#queues, ...this.#listening]) {
      counts.set(key, (counts.get(key) ?? 0) + waiters.size);
    }
    return counts;
  }

  stateOf(key: PlacementKey): HoldState {
    return this.#queues.get(key)?.state ?? "idle";
  }

  /** A place in line and the end of all waits, from now on. */
  ticket(bytes: number): Ticket {
    this.#tickets += 1;
    const deadlineMs = this.#clock.monotonicMs() + this.#limits.holdMs;
    return { nth: this.#tickets, deadlineMs, bytes };
  }

  /**
   * Waits until `release` finds the key free, at most to the ticket's end. All keys of a cell are handed over at
   * once: who waits for that leaves half of the router's room to moves, and is let go a few at a time.
   */
  wait(
    key: PlacementKey,
    ticket: Ticket,
    signal: AbortSignal,
    until: "switch" | "handover" = "switch",
  ): Promise<HoldVerdict> {
    const full = until === "handover" ? this.#lacksHalf(ticket) : undefined;
    const entered =
      full ?? this.#enter(this.#queues, key, ticket, ticket.deadlineMs, signal, never);
    const queue = this.#queues.get(key);
    if (queue !== undefined) queue.isMany = until === "handover";
    return this.#counted(entered);
  }

  /** Waits for those that came before and are on their way; not where there is no room to. */
  async follow(key: PlacementKey, ticket: Ticket, signal: AbortSignal): Promise<HoldVerdict> {
    const queue = this.#queues.get(key);
    const isFree = queue === undefined || this.#lacksRoom(queue, ticket) !== undefined;
    return isFree ? "released" : this.wait(key, ticket, signal);
  }

  /** Waits until `isOver` is true after a change of the table. */
  listen(
    key: PlacementKey,
    ticket: Ticket,
    deadlineMs: number,
    signal: AbortSignal,
    isOver: () => boolean,
  ): Promise<HoldVerdict> {
    return this.#counted(this.#enter(this.#listening, key, ticket, deadlineMs, signal, isOver));
  }

  /** After each change of the table: `isFree` says which keys need not wait any more. */
  release(isFree: (key: PlacementKey) => boolean): void {
    for (const [key, queue] of this.#queues) this.#follow(queue, isFree(key));
    if (this.#draining === undefined) this.#drainSome();
    for (const { waiters } of this.#listening.values()) {
      for (const { isOver, settle } of waiters) if (isOver()) settle("released");
    }
  }

  #follow(queue: Queue, isFree: boolean): void {
    if (isFree && queue.state === "holding") {
      queue.state = stepHold(queue.state, "released");
      if (queue.isMany) this.#toDrain.add(queue);
      else this.#drain(queue);
    } else if (!isFree && queue.state === "draining") {
      queue.state = stepHold(queue.state, "held-again");
      queue.turn?.cancel();
    }
  }

  async #counted(entered: Promise<HoldVerdict> | HoldVerdict): Promise<HoldVerdict> {
    const verdict = await entered;
    this.#onVerdict(verdict);
    return verdict;
  }

  #enter(
    queues: Queues,
    key: PlacementKey,
    ticket: Ticket,
    deadlineMs: number,
    signal: AbortSignal,
    isOver: () => boolean,
  ): Promise<HoldVerdict> | HoldVerdict {
    if (signal.aborted) return "client-gone";
    const queue = queues.get(key) ?? emptyQueue();
    const full = this.#lacksRoom(queue, ticket);
    if (full !== undefined) return full;
    const leftMs = deadlineMs - this.#clock.monotonicMs();
    if (leftMs <= 0) return "timeout";
    queue.state = stepHold(queue.state, "arrived");
    queues.set(key, queue);
    return new Promise((resolve) => {
      const leave = () => waiter.settle("client-gone");
      const timer = this.#clock.after(leftMs, () => waiter.settle("timeout"));
      const waiter: Waiter = {
        ticket,
        isOver,
        settle: (verdict) => {
          if (!queue.waiters.delete(waiter)) return;
          this.#count(queue, -1, -ticket.bytes);
          timer.cancel();
          signal.removeEventListener("abort", leave);
          if (queue.waiters.size === 0) forget(queues, key, queue);
          resolve(verdict);
        },
      };
      stand(queue, waiter);
      this.#count(queue, 1, ticket.bytes);
      signal.addEventListener("abort", leave, { once: true });
    });
  }

  #count(queue: Queue, requests: number, bytes: number): void {
    this.#total += requests;
    this.#bytes += bytes;
    queue.bytes += bytes;
  }

  #lacksRoom({ waiters, bytes }: Queue, ticket: Ticket): HoldFull | undefined {
    const { perKeyMax, totalMax, perKeyBytesMax, totalBytesMax } = this.#limits;
    if (this.#total >= totalMax) return "router-full";
    if (this.#bytes + ticket.bytes > totalBytesMax) return "router-bytes-full";
    if (waiters.size >= perKeyMax) return "key-full";
    return bytes + ticket.bytes > perKeyBytesMax ? "key-bytes-full" : undefined;
  }

  #lacksHalf({ bytes }: Ticket): HoldFull | undefined {
    const { totalMax, totalBytesMax } = this.#limits;
    if (this.#total >= totalMax / 2) return "router-full";
    return this.#bytes + bytes > totalBytesMax / 2 ? "router-bytes-full" : undefined;
  }

  /**
   * Of a whole cell's keys some begin later: they came in about a second, and their new owners are cold, and have
   * room for what comes in a moment. Chained, not planned ahead: on a busy loop timers come together.
   */
  #drainSome(): void {
    const most = Math.max(begunAtOnceMin, this.#total / beginTurns);
    let begun = 0;
    for (const queue of this.#toDrain) {
      if (begun >= most) break;
      this.#toDrain.delete(queue);
      // Held again meanwhile, or nobody waits any more.
      if (queue.state !== "draining") continue;
      begun += Math.min(queue.waiters.size, this.#limits.batchMax);
      this.#drain(queue);
    }
    this.#draining =
      this.#toDrain.size === 0
        ? undefined
        : this.#clock.after(beginEveryMs, () => this.#drainSome());
  }

  #drain(queue: Queue): void {
    let batch = this.#limits.batchMax;
    const turn = () => {
      let left = batch;
      for (const { settle } of queue.waiters) {
        if (left === 0) break;
        left -= 1;
        settle("released");
      }
      // Faster each time, so that it ends even where more come than the first batch.
      batch *= 2;
      if (queue.waiters.size > 0) queue.turn = this.#clock.after(0, turn);
    };
    turn();
  }
}

const begunAtOnceMin = 4;
const beginEveryMs = 50;
/** Of which each begins with so large a part of what waits then. */
const beginTurns = 10;

const never = (): boolean => false;

const emptyQueue = (): Queue => ({
  state: "idle",
  waiters: new Set(),
  bytes: 0,
  lastNth: 0,
  isMany: false,
  turn: undefined,
});

/** At the end, but for one that has waited before. */
function stand(queue: Queue, waiter: Waiter): void {
  const { nth } = waiter.ticket;
  queue.waiters.add(waiter);
  if (nth < queue.lastNth) {
    queue.waiters = new Set([...queue.waiters].sort((a, b) => a.ticket.nth - b.ticket.nth));
  }
  queue.lastNth = Math.max(queue.lastNth, nth);
}

function forget(queues: Queues, key: PlacementKey, queue: Queue): void {
  queue.state = stepHold(queue.state, "emptied");
  queue.turn?.cancel();
  if (queues.get(key) === queue) queues.delete(key);
}
