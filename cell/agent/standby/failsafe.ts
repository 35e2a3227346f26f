/**
 * The origin's side of a failsafe: while the control plane is silent, the primary agent asks every annex for
 * a promise and gives the cell its next lease by them (rules in failsafe-state.ts). Where leases are manual
 * it asks them only whether they know better, and waits for none.
 *
 * Always true: it begins by silence alone, never after a refusal; buckets are stopped in every store before
 * a lease is stored that outlasts the promise for them; promises are given back only when every lease that
 * rested on them is over, because answers may be under way that were confirmed by it.
 */
import { manualLeaseMsMax } from "../../../contract/lease-mode.ts";
import type { Partner, PartnerList, PromiseRequest } from "../../../contract/standby-api.ts";
import { must } from "../../../runtime/assert.ts";
import type { Clock } from "../../../runtime/clock.ts";
import { errorFields } from "../../../runtime/log.ts";
import { type Loop, startLoop } from "../../../runtime/loop.ts";
import type { Random } from "../../../runtime/random.ts";
import { setLease } from "../../store/lease.ts";
import { setManualLease } from "../../store/lease-mode.ts";
import { noteRefused, readPartners, resumeBuckets, stopBuckets } from "../../store/standby.ts";
import type { AgentLog } from "../events.ts";
import type { Facts, Stores } from "../stores/stores.ts";
import {
  answerMsOf,
  type Failsafe as FailsafeState,
  type GrantPlan,
  hearPartner,
  isTimeForFailsafe,
  lookEveryMs,
  loseOfPromises,
  noPromises,
  type PartnerAnswer,
  planGrant,
} from "./failsafe-state.ts";
import { GivingBack } from "./giving-back.ts";
import type { PromiseClient } from "./promise-client.ts";

export type FailsafeOptions = {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: AgentLog;
  readonly cell: string;
  readonly instance: string;
  readonly stores: Stores;
  readonly client: PromiseClient;
  /** Since when a question to the control plane should have been answered; 0: it was. */
  readonly silentMs: () => number;
};

/** Until a control plane has said another one. */
const ttlMsDefault = 4000;
/** Asked for where leases are manual: an annex looks at who asks before it promises anything. */
const manualPromiseMs = 1;
/** Of the wall clock against the monotonic one. */
const stepMsMin = 500;

type Round = {
  readonly facts: Facts;
  /** From before and after they were read: the database's clock lies between. */
  readonly sentMonoMs: number;
  readonly readMonoMs: number;
  readonly list: PartnerList | undefined;
};

export class Failsafe {
  readonly #options: FailsafeOptions;
  readonly #loop: Loop;
  #state: FailsafeState = noPromises;
  #ttlMs = ttlMsDefault;
  /** Since when the cell lives by promises; undefined: it does not. */
  #sinceMonoMs: number | undefined;
  #lastMs = 0;
  /** Every lease that rests on promises is over by then. */
  #boundMonoMs = 0;
  /** Of annexes whose buckets are stopped: every lease that rested on their promise is over by then. */
  readonly #freeMonoMs = new Map<string, number>();
  #nextMonoMs = 0;
  /** The round before this one waited for a partner. */
  #isAgain: boolean = false;
  readonly #givingBack = new GivingBack();
  #wallAheadMs: number;
  #said = "";

  constructor(options: FailsafeOptions) {
    this.#options = options;
    const { clock, random } = options;
    this.#wallAheadMs = clock.nowMs() - clock.monotonicMs();
    this.#loop = startLoop({
      ...{ clock, random, intervalMs: lookEveryMs, backoffMaxMs: 1000 },
      turn: () => this.#turn(),
      onError: (error) => this.#say("failsafe.failed", errorFields(error)),
    });
  }

  /** How long the cell lives, or lived when it last did, without the control plane. */
  lastedMs(): number {
    if (this.#sinceMonoMs === undefined) return this.#lastMs;
    return Math.max(0, this.#options.clock.monotonicMs() - this.#sinceMonoMs);
  }

  /** The control plane granted, and the stores have it: what was stopped goes on. */
  async granted(grant: number, ttlMs: number): Promise<void> {
    // Leases that somebody chose long are not needed in a failsafe.
    this.#ttlMs = Math.min(ttlMs, manualLeaseMsMax);
    const { stores, log } = this.#options;
    const isStopped = stores.facts()?.each.some(({ standby }) => standby.stopped.length > 0);
    if (isStopped === true) {
      await stores.inAll((pool) => resumeBuckets(pool, grant));
      await stores.look();
    }
    if (this.#sinceMonoMs === undefined) return;
    this.#lastMs = this.lastedMs();
    this.#sinceMonoMs = undefined;
    this.#said = "";
    this.#freeMonoMs.clear();
    this.#state = { ...this.#state, lost: new Set(), unanswered: new Map() };
    log.event("failsafe.over", { afterMs: Math.round(this.#lastMs) });
  }

  /** Its silence from now on is no reason to go on, also not for another agent. */
  async refused(): Promise<void> {
    const { stores } = this.#options;
    if (this.#sinceMonoMs !== undefined) this.#lastMs = this.lastedMs();
    this.#sinceMonoMs = undefined;
    if (stores.facts()?.each.every(({ standby }) => standby.refused) === true) return;
    await stores.inAll((pool) => noteRefused(pool));
    await stores.look();
  }

  close(): Promise<void> {
    return this.#loop.close();
  }

  async #turn(): Promise<"idle"> {
    this.#noteSteps();
    const { clock, stores } = this.#options;
    const isPrimary = stores.primary();
    const nowMonoMs = clock.monotonicMs();
    if (isPrimary && this.#isDue(nowMonoMs)) {
      this.#nextMonoMs = nowMonoMs + this.#ttlMs / 3;
      await this.#round();
    }
    await this.#giveBack(clock.monotonicMs(), isPrimary);
    return "idle";
  }

  #isDue(nowMonoMs: number): boolean {
    const { stores, silentMs } = this.#options;
    if (nowMonoMs < this.#nextMonoMs) return false;
    const leaseLeftShare = stores.lease.leftShare();
    if (this.#sinceMonoMs !== undefined && silentMs() > 0) return true;
    return isTimeForFailsafe({ leaseLeftShare, silentMs: silentMs(), ttlMs: this.#ttlMs });
  }

  async #round(): Promise<void> {
    const { clock, stores } = this.#options;
    const sentMonoMs = clock.monotonicMs();
    const facts = await stores.readFacts();
    const readMonoMs = clock.monotonicMs();
    if (facts.each.some(({ standby }) => standby.refused)) return;
    const list = await readPartners(stores.first.pool);
    const round: Round = { facts, sentMonoMs, readMonoMs, list };
    const foreign = list === undefined ? undefined : await this.#askAll(round, list);
    const plan = this.#plan(round, foreign);
    // Promises that this very moment rest on; the control plane may have spoken while they were asked for.
    if (this.#options.silentMs() === 0) return;
    this.#isAgain = plan.kind === "wait";
    switch (plan.kind) {
      case "none":
        for (const annex of this.#state.lost) {
          if (!this.#freeMonoMs.has(annex)) this.#freeMonoMs.set(annex, this.#boundMonoMs);
        }
        this.#say("failsafe.refused", { reason: plan.reason });
        return;
      case "wait":
        this.#nextMonoMs = 0;
        return;
      case "grant":
        await this.#grant(round, plan);
    }
  }

  #plan({ facts, list, readMonoMs }: Round, foreign: string | undefined): GrantPlan {
    const { stores } = this.#options;
    return planGrant(this.#state, {
      partners: list?.partners,
      refused: facts.each.some(({ standby }) => standby.refused),
      foreign,
      manual: isManual(facts) ? { sameTimeline: facts.each.every(isOnItsTimeline) } : undefined,
      boot: bootOf(facts),
      leased:
        facts.each.every(({ standby }) => standby.leased) ||
        stores.lease.knowsAll(facts.each.map(({ boot }) => boot)),
      stopped: stoppedAnnexes(facts),
      ttlMs: this.#ttlMs,
      leaseLeftMs: stores.lease.remainingMs(),
      nowMonoMs: readMonoMs,
    });
  }

  /** Why a partner takes the database for another one, if one does, twice. */
  async #askAll({ facts }: Round, list: PartnerList): Promise<string | undefined> {
    const stopped = stoppedAnnexes(facts);
    this.#givingBack.asked();
    const nowMonoMs = this.#options.clock.monotonicMs();
    // While one that does not answer is waited for, the others need not write the same again.
    const isFresh = ({ annex }: Partner): boolean =>
      this.#isAgain &&
      (this.#state.promises.get(annex)?.untilMonoMs ?? 0) - nowMonoMs > list.promiseMs / 2;
    const asked = list.partners.filter((one) => !stopped.has(one.annex) && !isFresh(one));
    const promiseMs = isManual(facts) ? manualPromiseMs : list.promiseMs;
    const ends = await Promise.all(
      asked.map(async (partner) => {
        let answer = await this.#ask(partner, facts, promiseMs);
        if (answer.kind === "foreign") {
          // A heartbeat may have overtaken the question.
          const fresh = await this.#options.stores.readFacts();
          answer = await this.#ask(partner, fresh, promiseMs);
        }
        this.#state = hearPartner(this.#state, partner.annex, answer, bootOf(facts));
        // Leases will rest on it again.
        if (answer.kind === "promised") this.#freeMonoMs.delete(partner.annex);
        return answer.kind === "foreign" ? `${partner.annex} says ${answer.text}` : undefined;
      }),
    );
    return ends.find((text) => text !== undefined);
  }

  #ask(partner: Partner, facts: Facts, forMs: number, number?: number): Promise<PartnerAnswer> {
    const { cell, instance, client } = this.#options;
    const first = must(facts.each[0], "facts of the first store");
    const body: Omit<PromiseRequest, "annex"> = {
      origin: cell as PromiseRequest["origin"],
      ...{ forMs, instance, boot: first.boot, lsn: first.standby.lsn, grant: first.grant },
      ...{ systemIdentifier: first.systemIdentifier, timeline: first.timeline },
      ...(number === undefined ? {} : { number }),
    };
    return client.ask(partner, body, answerMsOf(this.#ttlMs));
  }

  async #grant(round: Round, plan: GrantPlan & { kind: "grant" }): Promise<void> {
    const { stores, instance, log, clock } = this.#options;
    for (const partner of plan.stop) {
      await stores.inAll((pool) => stopBuckets(pool, partner));
      log.event(
        "buckets.stopped",
        { annex: partner.annex, lo: partner.lo, hi: partner.hi },
        "warn",
      );
    }
    // The gate knows of the stop before it hears of a longer lease.
    if (plan.stop.length > 0) await stores.look();
    const known = stoppedAnnexes(must(stores.facts(), "facts that were read"));
    if (plan.stop.some(({ annex }) => !known.has(annex))) return;
    for (const { annex } of plan.stop) this.#freeMonoMs.set(annex, this.#boundMonoMs);
    const { facts, sentMonoMs, readMonoMs } = round;
    this.#boundMonoMs = Math.max(this.#boundMonoMs, readMonoMs + plan.forMs);
    const grant = Math.max(...facts.each.map((one) => one.grant)) + 1;
    const outcomes = await stores.inAll(async (pool, at) => {
      const { clock: readClock, boot } = must(facts.each[at], "facts of the store");
      const lease = { grant, ttlMs: plan.forMs, boot };
      const own = { ...lease, clock: readClock, holder: instance };
      const outcome = isManual(facts)
        ? await setManualLease(pool, own)
        : await setLease(pool, { ...own, own: true });
      if (outcome === "set") stores.takeLease(at, { ...lease, sentMonoMs });
      return outcome;
    });
    if (outcomes.some((outcome) => outcome !== "set")) return;
    this.#sinceMonoMs ??= clock.monotonicMs();
    const partners = round.list?.partners.length ?? 0;
    this.#say("failsafe.began", { partners, mode: isManual(facts) ? "manual" : "timed" });
  }

  /**
   * Promises on which no lease rests any more: all of them when the control plane grants again, else those
   * of annexes that a takeover has taken away, so that it need not wait for them.
   */
  async #giveBack(nowMonoMs: number, isPrimary: boolean): Promise<void> {
    const { stores, silentMs } = this.#options;
    const isGranted = isPrimary && this.#sinceMonoMs === undefined && silentMs() === 0;
    const isFree = (annex: string): boolean => {
      if (!isPrimary) return false;
      if (isGranted) return nowMonoMs >= this.#boundMonoMs;
      return this.#state.lost.has(annex) && nowMonoMs >= (this.#freeMonoMs.get(annex) ?? Infinity);
    };
    const { promises } = this.#state;
    let facts: Promise<Facts> | undefined;
    const left = await this.#givingBack.turn(
      { nowMonoMs, ttlMs: this.#ttlMs, isGranted, promises, isFree },
      {
        partners: async () => (await readPartners(stores.first.pool))?.partners ?? [],
        ask: async (partner, number) => {
          facts ??= stores.readFacts();
          return this.#ask(partner, await facts, 0, number);
        },
      },
    );
    if (left !== promises) this.#state = { ...this.#state, promises: left };
  }

  #noteSteps(): void {
    const { clock } = this.#options;
    const aheadMs = clock.nowMs() - clock.monotonicMs();
    const stepMs = aheadMs - this.#wallAheadMs;
    if (Math.abs(stepMs) < stepMsMin) return;
    this.#wallAheadMs = aheadMs;
    this.#state = loseOfPromises(this.#state, stepMs);
  }

  /** Each change of state once, not each attempt. */
  #say(
    name: "failsafe.began" | "failsafe.refused" | "failsafe.failed",
    fields: Readonly<Record<string, unknown>>,
  ): void {
    const said = `${name} ${JSON.stringify(fields)}`;
    if (this.#said !== said) this.#options.log.event(name, fields, "warn");
    this.#said = said;
  }
}

const bootOf = ({ each }: Facts): string => each.map(({ boot }) => boot).join(" ");

/** Of several stores all, or one could be taken for what the others are not. */
const isManual = ({ each }: Facts): boolean => each.every(({ standby }) => standby.manual);

const isOnItsTimeline = ({ timeline, standby }: Facts["each"][number]): boolean =>
  standby.leaseTimeline === timeline;

const stoppedAnnexes = ({ each }: Facts): ReadonlySet<string> => {
  // What one store does not know as stopped is not stopped everywhere.
  const [first, ...others] = each.map(
    ({ standby }) => new Set(standby.stopped.map(({ annex }) => annex)),
  );
  return new Set([...(first ?? [])].filter((annex) => others.every((one) => one.has(annex))));
};
