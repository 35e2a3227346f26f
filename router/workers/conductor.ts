/**
 * The main thread of a router with many workers: it keeps so many of them serving, gives each the table,
 * and replaces what dies or is to be renewed.
 *
 * What must always be true: a worker serves the table of the moment before it listens; a revision is
 * settled when no worker could answer by an older one; a listening socket goes from a worker to its
 * successor without being closed, so nobody who waits in its queue is turned away; and a worker that
 * dies takes along only what it carried itself.
 */
import { release } from "../../contract/release.ts";
import type { DeltaBody } from "../../contract/routing-table.ts";
import type { Clock } from "../../runtime/clock.ts";
import { errorFields, type Log } from "../../runtime/log.ts";
import type { RouterConfig } from "../config.ts";
import type { ListenerSockets } from "../listen/open-listeners.ts";
import type { RouterEvents } from "../observe/events.ts";
import type { RoutingView } from "../place/decide.ts";
import { type Ended, Member, memberLimits } from "./member.ts";
import type { AckedLists, Counts } from "./messages.ts";
import { judgeDeath, restartLimits } from "./restart-policy.ts";
import type { WorkerMetrics } from "./worker-metrics.ts";
import type { SpawnWorker } from "./worker-port.ts";

export type ConductorOptions = {
  readonly workers: number;
  /** One worker's share. */
  readonly config: RouterConfig;
  readonly clock: Clock;
  readonly log: Log<RouterEvents>;
  readonly metrics: WorkerMetrics;
  readonly spawn: SpawnWorker;
  /** Listening sockets for one more worker. */
  readonly openDoors: () => Promise<ListenerSockets>;
  readonly onLines: (lines: string) => void;
  readonly onSeen: (counts: Counts) => void;
  readonly onDoubt: () => void;
  /** What a worker that ended had acknowledged; undefined: nobody knows. */
  readonly onAcked: (left: AckedLists | undefined) => void;
};

const { windowMs } = restartLimits;
/** Longer than a worker's own drain, which cuts what is left. */
const leaveExtraMs = 4000;

/** A place for one worker. `busy`: somebody sees to it already that it is filled. */
type Place = { member: Member | undefined; busy: boolean };

export class Conductor {
  readonly #options: ConductorOptions;
  readonly #places: readonly Place[];
  /** All that are not gone, those that leave included. */
  readonly #members = new Set<Member>();
  readonly #settling = new Set<() => void>();
  #deathsMs: readonly number[] = [];
  #view: RoutingView | undefined;
  #generation = 0;
  #born = 0;
  #closing: boolean = false;
  #restart: Promise<boolean> | undefined;
  #onFailed: (error: Error) => void = () => {};
  /** Resolves when workers die faster than it makes sense to replace them. */
  readonly failed: Promise<Error>;

  constructor(options: ConductorOptions) {
    this.#options = options;
    this.#places = Array.from({ length: options.workers }, () => ({
      member: undefined,
      busy: true,
    }));
    this.failed = new Promise((resolve) => {
      this.#onFailed = resolve;
    });
  }

  get members(): readonly Member[] {
    return [...this.#members];
  }

  /** Resolves when all listen; throws what kept the first from it. */
  async start(): Promise<void> {
    await Promise.all(this.#places.map((place) => this.#fill(place)));
    for (const place of this.#places) this.#release(place);
  }

  /** In the same turn as the change: after it nothing may be told to one worker that others miss. */
  publish(view: RoutingView, delta: DeltaBody | undefined): void {
    const { generation } = view.table;
    // A new image is shared as a whole, so that workers need not keep all changes since the old one.
    const isWhole = delta === undefined || generation !== this.#generation;
    const message = isWhole ? tableMessage(view) : ({ kind: "delta", body: delta } as const);
    this.#view = view;
    this.#generation = generation;
    for (const member of this.#members) member.publish(message);
  }

  /** The oldest revision that a request could be answered by. */
  get settledRevision(): number {
    const now = this.#view?.table.revision ?? 0;
    const behind = this.members.filter((member) => member.isBehind(now));
    return Math.min(now, ...behind.map(({ revision }) => revision));
  }

  /** Resolves when every worker serves by the table of now, or is no more. */
  async settled(): Promise<void> {
    while (this.#isBehind()) {
      await new Promise<void>((resolve) => this.#settling.add(resolve));
    }
  }

  get restarting(): boolean {
    return this.#restart !== undefined;
  }

  /** One after the other, each with a successor first. False: one could not be replaced; it serves on. */
  restart(): Promise<boolean> {
    this.#restart ??= this.#restartAll().finally(() => {
      this.#restart = undefined;
    });
    return this.#restart;
  }

  /** Certificates, everywhere. */
  reload(): void {
    for (const member of this.#members) member.reload();
  }

  /** Ends a drain that runs. */
  hurry(): void {
    for (const member of this.#members) member.hurry();
  }

  /** Finishes what is in flight everywhere. */
  async close(): Promise<void> {
    this.#closing = true;
    const ms = this.#options.config.drainMs + leaveExtraMs;
    await Promise.all(this.members.map((member) => member.leave(ms)));
  }

  #isBehind(): boolean {
    const revision = this.#view?.table.revision ?? 0;
    return this.members.some((member) => member.isBehind(revision));
  }

  async #fill(place: Place): Promise<void> {
    const member = await this.#raise();
    place.member = member;
    const doors = await this.#options.openDoors();
    await orItsEnd(member, member.open(doors));
  }

  /** A worker that has the table, and no doors yet. */
  async #raise(): Promise<Member> {
    const { clock, spawn, config, onLines, onSeen, onDoubt } = this.#options;
    this.#born += 1;
    const member = new Member({
      number: this.#born,
      port: spawn({ release, config }),
      clock,
      on: {
        ...{ onLines, onSeen, onDoubt },
        onProgress: () => this.#onProgress(member),
        onReady: () => this.#onReady(member),
        onRefused: (_member, text) => this.#onRefused(member, text),
      },
    });
    this.#members.add(member);
    void member.ended.then((ended) => this.#onEnded(member, ended));
    await orItsEnd(member, member.reaches("ready", memberLimits.startMs));
    return member;
  }

  #onReady(member: Member): void {
    if (this.#view === undefined) member.step("loaded");
    else member.publish(tableMessage(this.#view));
  }

  #onProgress(member: Member): void {
    if (member.state === "starting") member.step("loaded");
    const waiting = [...this.#settling];
    this.#settling.clear();
    for (const look of waiting) look();
  }

  #onRefused(member: Member, text: string): void {
    this.#options.log.event("worker.refused-table", { worker: member.number, text }, "warn");
    if (this.#view !== undefined) member.publish(tableMessage(this.#view));
  }

  #onEnded(member: Member, ended: Ended): void {
    const { log, metrics, clock, onAcked } = this.#options;
    this.#members.delete(member);
    onAcked(member.leftAcked);
    metrics.keep(member.lastCounts);
    const worker = member.number;
    if (ended.kind === "left" || this.#closing) {
      log.event("worker.left", { worker });
      return;
    }
    const { reason, error } = ended;
    metrics.restarts.inc({ reason });
    log.event("worker.died", { worker, reason, ...errorFields(error) }, "error");
    const nowMs = clock.monotonicMs();
    this.#deathsMs = [...this.#deathsMs, nowMs].filter((atMs) => nowMs - atMs < windowMs);
    const place = this.#places.find((one) => one.member === member);
    if (place?.busy === false) void this.#refill(place);
  }

  /** Whoever was busy with it is not any more; what died meanwhile is seen to now. */
  #release(place: Place): void {
    place.busy = false;
    if (place.member?.state === "gone") void this.#refill(place);
  }

  /** Until it serves again, or there is no sense in it. */
  async #refill(place: Place): Promise<void> {
    const { clock, log } = this.#options;
    place.busy = true;
    place.member = undefined;
    while (!this.#closing && place.member === undefined) {
      const verdict = judgeDeath(this.#deathsMs, clock.monotonicMs());
      if (verdict.kind === "give-up") {
        log.event("worker.given-up", { deaths: verdict.deaths }, "error");
        this.#onFailed(new Error(`${verdict.deaths} workers died in a short time`));
        return;
      }
      await clock.sleep(verdict.afterMs);
      if (!this.#closing) await this.#tryFill(place);
    }
    this.#release(place);
  }

  async #tryFill(place: Place): Promise<void> {
    try {
      await this.#fill(place);
    } catch (error) {
      this.#options.log.event("worker.not-started", errorFields(error), "error");
      // One that lived on without doors must not stay.
      const { member } = place;
      place.member = undefined;
      member?.kill("stuck", error);
      await member?.ended;
    }
  }

  async #restartAll(): Promise<boolean> {
    const { log, metrics } = this.#options;
    for (const place of this.#places) {
      const old = place.member;
      if (this.#closing || old === undefined || old.state !== "open") continue;
      place.busy = true;
      try {
        await this.#replace(place, old);
        metrics.restarts.inc({ reason: "asked" });
      } catch (error) {
        log.event("worker.not-replaced", { worker: old.number, ...errorFields(error) }, "error");
        return false;
      } finally {
        this.#release(place);
      }
    }
    return true;
  }

  async #replace(place: Place, old: Member): Promise<void> {
    const { log, config } = this.#options;
    const fresh = await this.#raise();
    const doors = await this.#doorsOf(old);
    place.member = fresh;
    await fresh.open(doors);
    log.event("worker.replaced", { worker: old.number, by: fresh.number });
    await old.leave(config.drainMs + leaveExtraMs);
  }

  /** Of a worker that does not give them away they are lost with it: then new ones are opened. */
  async #doorsOf(old: Member): Promise<ListenerSockets> {
    try {
      return await old.handOver();
    } catch (error) {
      old.kill("stuck", error);
      await old.ended;
      return this.#options.openDoors();
    }
  }
}

/** Throws what the worker died of, where it did; one that is late does not stay. */
async function orItsEnd(member: Member, work: Promise<void>): Promise<void> {
  try {
    await work;
  } catch (error) {
    member.kill("stuck", error);
    const ended = await member.ended;
    throw ended.kind === "died" ? ended.error : error;
  }
}

const tableMessage = ({ table, protocol, passThrough }: RoutingView) =>
  ({ kind: "table", view: { table: table.share(), protocol, passThrough } }) as const;
