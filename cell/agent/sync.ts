/**
 * The agent's conversation with the control plane: one long-polled call after the other.
 *
 * Always true: the database's clock is read before a lease is asked for, and counts; changes are
 * applied in order and acknowledged by the very next call; only the primary applies anything. A
 * control plane that is gone changes nothing here: the cell serves for as long as its lease lasts.
 */
import {
  type AgentSyncRequest,
  type AgentSyncResponse,
  agentSyncResponseSchema,
} from "../../contract/cell-protocol.ts";
import { CellError, errorTable } from "../../contract/errors.ts";
import type { CellId } from "../../contract/ids.ts";
import { revisionSchema } from "../../contract/ids.ts";
import { release } from "../../contract/release.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { JsonClient } from "../../runtime/http-client.ts";
import { errorFields } from "../../runtime/log.ts";
import { type Loop, startLoop } from "../../runtime/loop.ts";
import type { Random } from "../../runtime/random.ts";
import type { DatabaseFacts } from "../store/facts.ts";
import type { Unclassed } from "../store/table-classes.ts";
import type { AgentLog } from "./events.ts";
import type { Refused } from "./obedience.ts";
import type { OutcomeBatches } from "./outcome-batches.ts";
import { OwnershipReport, type ReportPage } from "./ownership-report.ts";
import type { Questions } from "./questions.ts";
import type { Standing } from "./standby/standing.ts";
import type { Facts, IdNeeds, Stores } from "./stores/stores.ts";
import type { TenantStats } from "./tenant-stats.ts";
import type { WouldRefuse } from "./would-refuse.ts";

export type SyncOptions = {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: AgentLog;
  readonly cell: CellId;
  readonly instance: string;
  readonly endpoint: string;
  readonly controlPlane: string;
  readonly client: JsonClient;
  readonly stores: Stores;
  readonly standing: Standing;
  readonly stats: TenantStats;
  readonly outcomes: OutcomeBatches;
  readonly appReachable: () => boolean;
  /** Of the application, behind this agent. */
  readonly services: readonly string[];
  readonly wouldRefuse: WouldRefuse;
  readonly questions: Questions;
  /** Of every answer of the own fleet, whoever is primary. */
  readonly onAnswer: (answer: AgentSyncResponse) => void;
};

/** Below what proxies between here and the control plane cut. */
const waitMsMax = 25_000;
/** More than the control plane may wait, for its own work and the way. */
const answerMs = 10_000;
/** A question for a lease that stands is asked again rather than waited for until it is over. */
const leaseAnswerMsMin = 2500;
const intervalMs = 500;
const backoffMaxMs = 2000;
const refusedMax = 1000;

type Prepared = {
  readonly request: AgentSyncRequest;
  readonly facts: Facts;
  /** From before the facts were read. */
  readonly sentMonoMs: number;
};

export class Sync {
  readonly #options: SyncOptions;
  readonly #loop: Loop;
  readonly #report: OwnershipReport;
  #refused: Refused[] = [];
  #fleet: string | undefined;
  #call: AbortController | undefined;
  /** What was last said of the control plane: each change once. */
  #said = "";
  #failures = 0;
  /** When the first of the questions that have no answer was due to have one. */
  #dueMonoMs: number | undefined;
  #unapplied = "";

  constructor(options: SyncOptions) {
    this.#options = options;
    this.#report = new OwnershipReport(options.stores.readKeys);
    this.#loop = startLoop({
      clock: options.clock,
      random: options.random,
      intervalMs,
      backoffMaxMs,
      turn: (signal) => this.#turn(signal),
      onError: () => {}, // Said where it is known what failed.
    });
  }

  connected(): boolean {
    return this.#said === "found";
  }
  failures(): number {
    return this.#failures;
  }
  /** For how long an answer is overdue; 0: none is. A refusal is an answer. */
  silentMs(): number {
    if (this.#dueMonoMs === undefined) return 0;
    return Math.max(0, this.#options.clock.monotonicMs() - this.#dueMonoMs);
  }
  /** Something happened that the control plane should hear now: the waiting call is given up. */
  interrupt(): void {
    this.#call?.abort();
    this.#loop.wake();
  }
  close(): Promise<void> {
    return this.#loop.close();
  }

  async #turn(stop: AbortSignal): Promise<"again" | "idle"> {
    const { client, clock, stores, stats, questions, standing } = this.#options;
    const call = new AbortController();
    this.#call = call;
    const prepared = await this.#prepare();
    if (prepared === undefined) return "idle";
    const { request } = prepared;
    const wasPrimary = request.primary;
    const dueMonoMs = clock.monotonicMs() + request.waitMs;
    this.#dueMonoMs = Math.min(dueMonoMs, this.#dueMonoMs ?? dueMonoMs);
    const answer = await client
      .call({
        method: "POST",
        path: "/v1/machine/agent/sync",
        body: request,
        schema: agentSyncResponseSchema,
        timeoutMs: request.waitMs + this.#patienceMs(request),
        signal: AbortSignal.any([stop, call.signal]),
      })
      .catch(async (error: unknown) => {
        // Given up for a better question; the control plane is where it was.
        if (call.signal.aborted && !stop.aborted) return undefined;
        if (!stop.aborted) this.#noteLost(error);
        if (isRefusal(error)) {
          this.#dueMonoMs = undefined;
          if (wasPrimary) await standing.refused();
        }
        throw error;
      });
    if (answer === undefined) return "again";
    this.#noteFound(answer);
    this.#options.onAnswer(answer);
    // Every agent opens its gate at once; only the primary tells the database.
    const { stage: goal, stageNumber: number = 0 } = answer;
    // The answer may have lain for long: it is compared with what the database says by now.
    if (stores.stage.wouldLeave(goal, number)) await stores.look();
    stores.stage.hear(goal, number);
    stats.reported(request.stats);
    this.#options.outcomes.reported(request.outcomes);
    stores.purges.reported(request.purged ?? []);
    if (request.ownership !== undefined) this.#report.sent();
    // What was refused has been told; the lock may have passed to another agent meanwhile.
    this.#refused = this.#refused.slice(request.refused.length);
    if (!wasPrimary || !stores.primary()) return "idle";
    questions.hear(answer.queries ?? []);
    return this.#follow(answer, prepared).catch((error: unknown) => {
      this.#noteUnapplied(error);
      throw error;
    });
  }

  async #follow(answer: AgentSyncResponse, prepared: Prepared): Promise<"again" | "idle"> {
    const { stores, standing } = this.#options;
    await standing.hear(answer);
    const { refused, busy } = await stores.obey(answer, prepared.facts, prepared.sentMonoMs);
    await standing.obeyed(answer);
    this.#unapplied = "";
    this.#refused = [...this.#refused, ...refused].slice(-refusedMax);
    if (answer.report === "ownership") this.#report.begin();
    else this.#report.end();
    // A writer in the way is asked again at the loop's pace, and so is a call that answered at once.
    const facts = prepared.facts.cell;
    const isNew = answer.revision > facts.appliedRevision || isStageNews(answer, facts);
    const worthAnswering = answer.more || isNew || answer.idRanges.length > 0 || this.#report.open;
    // A whole report that did not satisfy is sent again, but not at once.
    const unsatisfied = prepared.request.ownership?.last === true && this.#report.open;
    // Purges and questions are repeated until they are answered: such a call comes back at once.
    const repeated = answer.changes.length > 0 || (answer.queries ?? []).length > 0;
    if (busy || unsatisfied || (repeated && !worthAnswering)) return "idle";
    return worthAnswering || prepared.request.waitMs > 0 ? "again" : "idle";
  }

  async #prepare(): Promise<Prepared | undefined> {
    const { clock, stores, standing } = this.#options;
    const { lease } = stores;
    const sentMonoMs = clock.monotonicMs();
    const seen = await this.#look();
    // Nothing is known of the database yet, and nothing must be claimed about it.
    if (seen === undefined) return undefined;
    const primary = stores.primary() && seen.reachable;
    const wishes = primary && standing.wantsLease();
    const wantLease = wishes && (lease.isRenewalDue() || standing.wantsGrant());
    const atOnce = wantLease || seen.ids.low.length > 0 || this.#report.open || !seen.reachable;
    const renewalMs = wishes ? Math.floor(lease.msUntilRenewal()) : waitMsMax;
    const waitMs = atOnce ? 0 : Math.min(waitMsMax, renewalMs);
    return {
      request: this.#buildRequest(seen, primary, wantLease, waitMs),
      facts: seen.facts,
      sentMonoMs,
    };
  }

  /** Facts of this very moment: an older grant than was presented before would look like a clone. */
  async #look(): Promise<Seen | undefined> {
    const { stores } = this.#options;
    if (stores.connected()) {
      try {
        const facts = await stores.readFacts();
        const primary = stores.primary();
        const ids = primary ? await stores.readIdNeeds() : noIds;
        const page = primary ? await this.#report.page() : undefined;
        const unclassed = primary ? await stores.readUnclassed() : undefined;
        return { facts, reachable: true, ids, page, unclassed };
      } catch {
        // The sessions notice the same and say it; the control plane is told that it is so.
      }
    }
    const facts = stores.facts();
    return facts === undefined ? undefined : withoutSight(facts);
  }

  #buildRequest(
    seen: Seen,
    primary: boolean,
    wantLease: boolean,
    waitMs: number,
  ): AgentSyncRequest {
    const { cell, instance, endpoint, stats, appReachable, stores, wouldRefuse } = this.#options;
    const facts = seen.facts.cell;
    return {
      cell,
      ...(this.#fleet === undefined ? {} : { fleet: this.#fleet }),
      instance,
      primary,
      endpoint,
      release,
      schemaVersion: facts.schemaVersion ?? "",
      database: {
        systemIdentifier: facts.systemIdentifier,
        timeline: facts.timeline,
        boot: facts.boot,
        grant: facts.grant,
        reachable: seen.reachable,
      },
      appliedRevision: revisionSchema.parse(facts.appliedRevision),
      epochMax: facts.epochMax,
      refused: this.#refused,
      app: { reachable: appReachable() },
      services: [...this.#options.services],
      stage: {
        applied: facts.stage,
        number: facts.stageNumber,
        wouldRefuse: { ...facts.wouldRefuse, ...wouldRefuse.counts() },
        guardedTables: facts.guardedTables,
        ...(seen.unclassed === undefined ? {} : { unclassed: seen.unclassed }),
      },
      purged: primary ? stores.purges.due() : [],
      wantLease,
      leaseLeftMs: stores.lease.remainingMs(),
      leaseInPart: this.#options.standing.stopped() !== undefined,
      wantIdRanges: seen.ids.low.map(({ sequence, floor }) => ({ sequence, floor })),
      idRangesHeld: [...seen.ids.held],
      stats: primary ? stats.due() : [],
      // Every agent tells what came through its own gate.
      outcomes: this.#options.outcomes.due(),
      waitMs,
      ...this.#options.standing.report(seen.facts, seen.reachable),
      ...(primary && seen.page !== undefined ? { ownership: seen.page } : {}),
    };
  }

  /** Of a lease that runs out, as long as it lasts. */
  #patienceMs({ wantLease }: AgentSyncRequest): number {
    const leftMs = this.#options.stores.lease.remainingMs();
    if (!wantLease || leftMs === 0) return answerMs;
    return Math.ceil(Math.min(answerMs, Math.max(leaseAnswerMsMin, leftMs)));
  }

  #noteFound(answer: AgentSyncResponse): void {
    const { log, controlPlane } = this.#options;
    this.#failures = 0;
    if (this.#fleet !== undefined && this.#fleet !== answer.fleet) {
      const said = `fleet ${answer.fleet}`;
      if (this.#said !== said) {
        log.event("fleet.refused", { mine: this.#fleet, theirs: answer.fleet }, "error");
      }
      this.#said = said;
      throw new Error(`the control plane is of fleet ${answer.fleet}, this cell of ${this.#fleet}`);
    }
    this.#fleet = answer.fleet;
    this.#dueMonoMs = undefined;
    if (this.#said === "found") return;
    this.#said = "found";
    log.event("control-plane.found", { origin: controlPlane });
  }

  /** The database is in the way, not the control plane; the same answer will come again. */
  #noteUnapplied(error: unknown): void {
    const fields = errorFields(error);
    const said = String(fields["error"]);
    if (this.#unapplied !== said) this.#options.log.event("answer.failed", fields, "warn");
    this.#unapplied = said;
  }

  #noteLost(error: unknown): void {
    this.#failures += 1;
    const fields = errorFields(error);
    const said = `lost: ${fields["code"] ?? ""} ${fields["error"]}`;
    if (this.#said !== said) this.#options.log.event("control-plane.lost", fields, "warn");
    this.#said = said;
  }
}

/** It has heard, and does not want: no silence. Too much to do is no word on this cell. */
function isRefusal(error: unknown): boolean {
  if (!(error instanceof CellError)) return false;
  const { httpStatus } = errorTable[error.code];
  return httpStatus >= 400 && httpStatus < 500 && httpStatus !== 408 && httpStatus !== 429;
}

type Seen = {
  readonly facts: Facts;
  readonly reachable: boolean;
  readonly ids: IdNeeds;
  readonly page: ReportPage | undefined;
  readonly unclassed: Unclassed | undefined;
};

const noIds: IdNeeds = { low: [], held: [] };
const withoutSight = (facts: Facts): Seen => ({
  ...{ facts, reachable: false, ids: noIds, page: undefined, unclassed: undefined },
});

const isStageNews = (answer: AgentSyncResponse, facts: DatabaseFacts): boolean =>
  answer.stage !== undefined &&
  (answer.stage !== facts.stage || (answer.stageNumber ?? 0) > facts.stageNumber);
