/**
 * One worker as the main thread sees it: its state, the revision it serves, the questions it was asked,
 * and how it ended. It decides nothing: the conductor does.
 */
import { CellError } from "../../contract/errors.ts";
import type { CellId } from "../../contract/ids.ts";
import type { RememberedAnswer } from "../../contract/remembered-request.ts";
import { unreachable } from "../../runtime/assert.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { MetricsDump } from "../../runtime/metrics.ts";
import type { AckedList } from "../acked/acked-writes.ts";
import type { ListenerSockets } from "../listen/open-listeners.ts";
import { Acknowledgements } from "./acknowledgements.ts";
import {
  type AckedLists,
  type Counts,
  type FromWorker,
  readFromWorker,
  type ToWorker,
} from "./messages.ts";
import type { WorkerPort } from "./worker-port.ts";
import { mayServe, stepWorker, type WorkerEvent, type WorkerState } from "./worker-state.ts";

export const memberLimits = {
  /** From the thread's start to a worker with a table. */
  startMs: 60_000,
  /** For each change of the table, until the worker says that it serves it. */
  acknowledgeMs: 3000,
  /** A whole table of millions takes longer than a change of it. */
  tableMs: 30_000,
  /** For giving its listening sockets away, and for opening them. */
  doorsMs: 5000,
  /** For what a scrape or an explanation asks. */
  answerMs: 500,
  /** For a whole list of acknowledged writes. */
  listMs: 5000,
} as const;

export const deathReasons = ["crashed", "stuck"] as const;
export type DeathReason = (typeof deathReasons)[number];
export type Ended =
  | { readonly kind: "left" }
  | { readonly kind: "died"; readonly reason: DeathReason; readonly error: unknown };

export type MemberEvents = {
  readonly onLines: (lines: string) => void;
  readonly onSeen: (counts: Counts) => void;
  readonly onDoubt: () => void;
  /** It serves another revision, or none any more. */
  readonly onProgress: () => void;
  /** It runs, and wants the table there is. */
  readonly onReady: (member: Member) => void;
  /** It could not take a delta, and serves on from what it had. */
  readonly onRefused: (member: Member, text: string) => void;
};

export type MemberOptions = {
  readonly number: number;
  readonly port: WorkerPort;
  readonly clock: Clock;
  readonly on: MemberEvents;
};

export class Member {
  readonly number: number;
  /** Resolves once, when the thread is no more. */
  readonly ended: Promise<Ended>;
  readonly #options: MemberOptions;
  readonly #acknowledgements: Acknowledgements;
  readonly #watchers = new Set<() => void>();
  readonly #answers = new Map<number, (answer: FromWorker | undefined) => void>();
  #state: WorkerState = "starting";
  #listens: boolean = false;
  #revision = 0;
  #counts: MetricsDump = [];
  #left: AckedLists | undefined;
  #death: Ended | undefined;
  #questions = 0;
  #onDoors: (doors: ListenerSockets) => void = () => {};
  #onDrained: () => void = () => {};

  constructor(options: MemberOptions) {
    this.number = options.number;
    this.#options = options;
    this.#acknowledgements = new Acknowledgements(options.clock, () =>
      this.kill("stuck", new Error("it did not acknowledge the table in time")),
    );
    this.ended = new Promise((resolve) => {
      options.port.listen({
        message: (value) => this.#hear(readFromWorker(value)),
        error: (error) => {
          this.#death ??= { kind: "died", reason: "crashed", error };
        },
        exit: () => resolve(this.#end()),
      });
    });
  }

  get state(): WorkerState {
    return this.#state;
  }

  /** What it counted when it was last heard. */
  get lastCounts(): MetricsDump {
    return this.#counts;
  }

  /** The acknowledged writes that it left behind; undefined: it took them along. */
  get leftAcked(): AckedLists | undefined {
    return this.#left;
  }

  /** Could it answer a request by a revision below this one? */
  isBehind(revision: number): boolean {
    return mayServe(this.#state) && this.#revision < revision;
  }

  step(event: WorkerEvent): void {
    this.#state = stepWorker(this.#state, event);
    for (const watch of [...this.#watchers]) watch();
  }

  /** The revision it said it serves; 0 before. */
  get revision(): number {
    return this.#revision;
  }

  /**
   * A worker that does not acknowledge it in time is ended. One that is not there yet is told nothing:
   * it asks for the table when it is.
   */
  publish(message: ToWorker & { readonly kind: "table" | "delta" }): void {
    if (!this.#listens || this.#state === "gone") return;
    const { tableMs, acknowledgeMs } = memberLimits;
    this.#acknowledgements.sent(message.kind === "table" ? tableMs : acknowledgeMs);
    this.#options.port.post(message);
  }

  /** Resolves when it listens on them. */
  async open(doors: ListenerSockets): Promise<void> {
    this.step("given-doors");
    if (this.#state !== "opening") {
      for (const socket of Object.values(doors)) socket.close();
      throw new Error(`worker ${this.number} cannot listen any more`);
    }
    this.#options.port.post({ kind: "open", doors }, Object.values(doors));
    await this.reaches("open", memberLimits.doorsMs);
  }

  /** Takes its listening sockets away; connections stay. */
  handOver(): Promise<ListenerSockets> {
    return this.#within("without its doors", memberLimits.doorsMs, (done) => {
      this.#onDoors = done;
      this.#options.port.post({ kind: "hand-over" });
    });
  }

  /** Rejects when it ends before, or after `ms`. */
  reaches(wanted: WorkerState, ms: number): Promise<void> {
    return this.#within(wanted, ms, (done) => {
      const look = () => {
        if (this.#state !== wanted) return;
        this.#watchers.delete(look);
        done();
      };
      this.#watchers.add(look);
      look();
    });
  }

  /** Finishes what is in flight, then ends; after `ms` what is left is cut. */
  async leave(ms: number): Promise<void> {
    if (this.#state === "gone") return;
    this.step("told-to-leave");
    try {
      await this.#within<void>("drained", ms, (done) => {
        this.#onDrained = done;
        this.#options.port.post({ kind: "drain" });
      });
    } catch {
      // It has had its time.
    }
    await this.#options.port.terminate();
    await this.ended;
  }

  /** What a drain waits for is cut. */
  hurry(): void {
    if (this.#state !== "gone") this.#options.port.post({ kind: "hurry" });
  }

  reload(): void {
    if (this.#state !== "gone") this.#options.port.post({ kind: "reload" });
  }

  /** Ends it as it stands. */
  kill(reason: DeathReason, error: unknown): void {
    this.#death ??= { kind: "died", reason, error };
    void this.#options.port.terminate();
  }

  /** Undefined: it did not answer in time. */
  async count(): Promise<MetricsDump | undefined> {
    const answer = await this.#ask((question) => ({ kind: "count", question }));
    return answer?.kind === "counted" ? answer.metrics : undefined;
  }

  /** Undefined: it did not answer in time, or is no more. */
  async acked(cell: CellId): Promise<AckedList | undefined> {
    const { listMs } = memberLimits;
    const answer = await this.#ask((question) => ({ kind: "acks", question, cell }), listMs);
    return answer?.kind === "acked" ? answer.list : undefined;
  }

  async find(requestId: string): Promise<RememberedAnswer | undefined> {
    const answer = await this.#ask((question) => ({ kind: "find", question, requestId }));
    return answer?.kind === "found" ? answer.answer : undefined;
  }

  #hear(message: FromWorker): void {
    const { on } = this.#options;
    switch (message.kind) {
      case "ready":
        this.#listens = true;
        on.onReady(this);
        return;
      case "failed": {
        const { code, message: text, nextSteps } = message.error;
        this.kill("crashed", new CellError(code, text, { nextSteps }));
        return;
      }
      case "serves":
        this.#revision = message.revision;
        this.#acknowledgements.came();
        on.onProgress();
        return;
      case "refused":
        this.#acknowledgements.came();
        on.onRefused(this, message.text);
        return;
      case "opened":
        this.step("opened");
        return;
      case "handed-over":
        this.#onDoors(message.doors);
        return;
      case "drained":
        this.#counts = message.metrics;
        this.#left = message.acked;
        this.#onDrained();
        return;
      case "counted":
        this.#counts = message.metrics;
        this.#answers.get(message.question)?.(message);
        return;
      case "found":
      case "acked":
        this.#answers.get(message.question)?.(message);
        return;
      case "seen":
        on.onSeen(message.counts);
        return;
      case "doubt":
        on.onDoubt();
        return;
      case "log":
        on.onLines(message.lines);
        return;
      default:
        unreachable(message);
    }
  }

  #end(): Ended {
    const error = new Error("the thread ended by itself");
    const sudden: Ended = { kind: "died", reason: "crashed", error };
    const ended = this.#death ?? (this.#state === "leaving" ? { kind: "left" } : sudden);
    this.#acknowledgements.end();
    this.step("ended");
    for (const answer of [...this.#answers.values()]) answer(undefined);
    this.#options.on.onProgress();
    return ended;
  }

  #ask(
    make: (question: number) => ToWorker,
    ms: number = memberLimits.answerMs,
  ): Promise<FromWorker | undefined> {
    this.#questions += 1;
    const question = this.#questions;
    return new Promise((resolve) => {
      const settle = (answer: FromWorker | undefined) => {
        timer.cancel();
        this.#answers.delete(question);
        resolve(answer);
      };
      const timer = this.#options.clock.after(ms, () => settle(undefined));
      this.#answers.set(question, settle);
      if (this.#state === "gone") settle(undefined);
      else this.#options.port.post(make(question));
    });
  }

  /** Settles with `work`, with the end of the worker, or after `ms`. */
  #within<T>(what: string, ms: number, work: (done: (value: T) => void) => void): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const stop = () => {
        timer.cancel();
        this.#watchers.delete(watch);
      };
      const fail = (text: string) => {
        stop();
        reject(new Error(`worker ${this.number} ${text}`));
      };
      const watch = () => {
        if (this.#state === "gone") fail(`ended before it was ${what}`);
      };
      const timer = this.#options.clock.after(ms, () => fail(`was not ${what} in ${ms} ms`));
      this.#watchers.add(watch);
      work((value) => {
        stop();
        resolve(value);
      });
      watch();
    });
  }
}
