/**
 * Holds the lease of one agent process: moves its state by the rules of `lease.ts`, watches for a wall
 * clock that runs ahead of the monotonic one, and says when a grant has to be ended in the database.
 */

import type { Clock } from "../../runtime/clock.ts";
import type { DatabaseFacts } from "../store/facts.ts";
import type { AgentLog } from "./events.ts";
import {
  expireIfOver,
  grantOf,
  type LeaseState,
  leftShare,
  loseTime,
  noLease,
  observeReading,
  remainingMs,
  renewalDueAt,
  takeGrant,
} from "./lease.ts";

/** Smaller differences are how clocks are kept in step, not a jump. */
const stepMsMin = 500;

export class LeaseKeeper {
  readonly #clock: Clock;
  readonly #log: AgentLog;
  #state: LeaseState = noLease;
  #wallAheadMs: number;
  #endedGrant = 0;
  #grantMax = 0;

  constructor(clock: Clock, log: AgentLog) {
    this.#clock = clock;
    this.#log = log;
    this.#wallAheadMs = clock.nowMs() - clock.monotonicMs();
  }

  get grant(): number {
    return grantOf(this.#state);
  }
  /** The highest ever heard of, also by the database alone: above 0 a lease was there once. */
  get grantMax(): number {
    return Math.max(this.#grantMax, this.grant);
  }
  /** Has there been a lease in this life of the database? */
  knows(boot: string): boolean {
    return this.#state.kind !== "none" && this.#state.boot === boot;
  }
  /** Of the whole lease, how much is left: 0 without one, else up to 1. */
  leftShare(): number {
    return leftShare(this.#state, this.#clock.monotonicMs());
  }
  /** 0 without a live lease. */
  remainingMs(): number {
    return remainingMs(this.#state, this.#clock.monotonicMs());
  }
  isRenewalDue(): boolean {
    return this.#clock.monotonicMs() >= renewalDueAt(this.#state);
  }
  /** Milliseconds until something has to be done about the lease; 0 when it is due. */
  msUntilRenewal(): number {
    return Math.max(0, renewalDueAt(this.#state) - this.#clock.monotonicMs());
  }

  take(grant: Parameters<typeof takeGrant>[1]): void {
    this.#move(takeGrant(this.#state, grant));
  }

  observe(facts: DatabaseFacts, beforeMonoMs: number, afterMonoMs: number): void {
    this.#grantMax = Math.max(this.#grantMax, facts.grant);
    this.#move(
      observeReading(this.#state, {
        serverBoot: facts.boot,
        live: facts.lease.live,
        grant: facts.lease.grant,
        grantSeen: facts.grant,
        remainingMs: facts.lease.remainingMs,
        beforeMonoMs,
        afterMonoMs,
      }),
    );
  }

  /** Called often: notices steps of the clock and the end of the lease. */
  tick(): void {
    const nowMonoMs = this.#clock.monotonicMs();
    const aheadMs = this.#clock.nowMs() - nowMonoMs;
    const stepMs = aheadMs - this.#wallAheadMs;
    if (Math.abs(stepMs) >= stepMsMin) {
      this.#wallAheadMs = aheadMs;
      this.#state = loseTime(this.#state, stepMs);
    }
    this.#move(expireIfOver(this.#state, nowMonoMs));
  }

  /**
   * A grant that is over for this process and that the database may still take for valid, because its
   * clock fell back: it is to be ended there, and then reported with `noteEnded`.
   */
  grantToEnd(): number | undefined {
    const { grant } = this;
    return this.#state.kind === "expired" && this.#endedGrant < grant ? grant : undefined;
  }
  noteEnded(grant: number): void {
    this.#endedGrant = grant;
  }

  #move(next: LeaseState): void {
    const before = this.#state;
    this.#state = next;
    if (next.kind === before.kind) return;
    if (next.kind === "held") {
      this.#log.event("lease.held", { grant: next.grant, forMs: Math.round(this.remainingMs()) });
    } else if (before.kind === "held") {
      this.#log.event("lease.lost", { reason: next.reason }, "warn");
    }
  }
}
