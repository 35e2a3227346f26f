/**
 * The cell's lease as one agent process knows it: pure transitions, all times monotonic milliseconds.
 *
 * The argument (design notes: R1, corrections A18). The control plane counts the TTL from when it
 * granted; this process counts from before it read the database's clock and asked, and keeps one
 * percent back for clocks of different rates: so the holder always stops first, and nobody compares
 * two machines' time. The row in the database ends at its own clock's c0 + TTL; whichever of the two
 * ends earlier counts. A known lease only ever gets shorter: a stepped clock, a second reading, a
 * suspended machine can take time away and never give it. Only a greater grant begins anew.
 */

export type LeaseState =
  | { readonly kind: "none"; readonly reason: string }
  | {
      readonly kind: "held";
      readonly grant: number;
      /** Of the database process that the row is bound to. */
      readonly boot: string;
      readonly fromMonoMs: number;
      readonly untilMonoMs: number;
    }
  /** Kept, so that a row that seems alive again (its clock fell back) cannot revive this grant. */
  | {
      readonly kind: "expired";
      readonly grant: number;
      readonly boot: string;
      readonly reason: string;
    };

/** The lease row and the server it lies in, read in one statement. */
export type LeaseReading = {
  readonly serverBoot: string;
  /** Whether the database itself takes it for valid: bound to this boot, and its clock is before the end. */
  readonly live: boolean;
  /** Of the row; 0 without a row. */
  readonly grant: number;
  /** The highest grant ever stored durably: tells a row that is lost from one not yet written. */
  readonly grantSeen: number;
  readonly remainingMs: number;
  /** Monotonic time before the statement was sent and after its answer was there. */
  readonly beforeMonoMs: number;
  readonly afterMonoMs: number;
};

/** Clocks of two machines differ in rate by less than this. */
export const rateError = 0.01;
const renewAtShare = 1 / 3;
const renewEveryMaxMs = 60_000;

export const noLease: LeaseState = { kind: "none", reason: "no lease has been granted yet" };

/** A grant that this process asked for, once its row is stored. `sentMonoMs` is from before c0 was read. */
export function takeGrant(
  state: LeaseState,
  grant: {
    readonly grant: number;
    readonly ttlMs: number;
    readonly boot: string;
    readonly sentMonoMs: number;
  },
): LeaseState {
  const held: LeaseState = {
    kind: "held",
    grant: grant.grant,
    boot: grant.boot,
    fromMonoMs: grant.sentMonoMs,
    untilMonoMs: grant.sentMonoMs + grant.ttlMs * (1 - rateError),
  };
  if (state.kind === "none" || state.boot !== grant.boot || grant.grant > state.grant) return held;
  if (state.kind === "expired" || state.grant > grant.grant) return state;
  // The row was read before its writer came here: the earlier end counts.
  return { ...held, untilMonoMs: Math.min(held.untilMonoMs, state.untilMonoMs) };
}

export function observeReading(state: LeaseState, reading: LeaseReading): LeaseState {
  const known = state.kind === "none" || state.boot !== reading.serverBoot ? undefined : state;
  if (!reading.live) return observeDead(known, reading);
  if (known === undefined || reading.grant > known.grant) return takeReading(reading);
  // An answer that overtook a newer grant, or one that is over for this process: neither revives.
  if (reading.grant < known.grant || known.kind === "expired") return known;
  // The row certainly ends before this instant, so neither does this process serve longer.
  const until = Math.min(known.untilMonoMs, reading.afterMonoMs + reading.remainingMs);
  return expireIfOver({ ...known, untilMonoMs: until }, reading.afterMonoMs);
}

function observeDead(
  known: Exclude<LeaseState, { kind: "none" }> | undefined,
  reading: LeaseReading,
): LeaseState {
  if (known === undefined) {
    const reason = "the database has no lease since it was started";
    return { kind: "none", reason };
  }
  // A reading from before a grant that this process stored meanwhile says nothing about it.
  if (reading.grantSeen < known.grant) return known;
  if (reading.grant >= known.grant) return expired(reading.grant, known.boot);
  // A backend crashed: PostgreSQL set its unlogged tables back under the same postmaster.
  return expired(known.grant, known.boot, "the database lost it when it recovered from a crash");
}

const expired = (grant: number, boot: string, reason = "its time is over"): LeaseState => ({
  kind: "expired",
  grant,
  boot,
  reason,
});

/** Another agent's grant, or one from before this process began: counted from before the reading. */
function takeReading(reading: LeaseReading): LeaseState {
  const held: LeaseState = {
    kind: "held",
    grant: reading.grant,
    boot: reading.serverBoot,
    fromMonoMs: reading.beforeMonoMs,
    untilMonoMs: reading.beforeMonoMs + reading.remainingMs * (1 - rateError),
  };
  return expireIfOver(held, reading.afterMonoMs);
}

/**
 * The wall clock ran ahead of the monotonic one by so much: the machine slept, or the clock was set.
 * Either way the time may really have passed.
 */
export function loseTime(state: LeaseState, ms: number): LeaseState {
  return state.kind === "held" && ms > 0
    ? { ...state, untilMonoMs: state.untilMonoMs - ms }
    : state;
}

export function expireIfOver(state: LeaseState, nowMonoMs: number): LeaseState {
  if (state.kind !== "held" || nowMonoMs < state.untilMonoMs) return state;
  return expired(state.grant, state.boot);
}

export const remainingMs = (state: LeaseState, nowMonoMs: number): number =>
  state.kind === "held" ? Math.max(0, state.untilMonoMs - nowMonoMs) : 0;

export function leftShare(state: LeaseState, nowMonoMs: number): number {
  if (state.kind !== "held") return 0;
  const whole = state.untilMonoMs - state.fromMonoMs;
  return whole <= 0 ? 0 : remainingMs(state, nowMonoMs) / whole;
}

/** Monotonic time from which a new grant should be asked for; in the past when it is due. */
export function renewalDueAt(state: LeaseState): number {
  if (state.kind !== "held") return Number.NEGATIVE_INFINITY;
  const whole = state.untilMonoMs - state.fromMonoMs;
  return state.fromMonoMs + Math.min(whole * renewAtShare, renewEveryMaxMs);
}

export const grantOf = (state: LeaseState): number => (state.kind === "none" ? 0 : state.grant);
