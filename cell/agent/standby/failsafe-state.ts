/**
 * What a cell may do while the control plane is silent (rule R1, corrections A1, A3, A18, A19): pure, all
 * times monotonic milliseconds of this process.
 *
 * The argument. Nobody but the annexes of the acknowledged list can take the cell's keys over, so for as
 * long as each of them has promised not to, the cell is their only owner. A promise counts here from before
 * it was asked for, one percent short; the annex counts from when it answered, one percent long. What one
 * partner does not promise any more, only its own buckets stop for: durably, before the lease is
 * extended past the end of its promise. A database that was started anew is believed only when a partner
 * that has seen its rows vouches for it: then it is no older copy.
 */
import type { Partner } from "../../../contract/standby-api.ts";
import { rateError } from "../lease.ts";

/** Kept per annex. `number` gives the promise back. */
export type Promised = {
  readonly untilMonoMs: number;
  readonly number: number;
};
export type Failsafe = {
  readonly promises: ReadonlyMap<string, Promised>;
  /** Starts of the database that a partner has vouched for. */
  readonly vouchedBoot: string | undefined;
  /** Annexes that refused because a takeover has begun: what they keep stops now. */
  readonly lost: ReadonlySet<string>;
  /** Asked in vain, since the last answer. */
  readonly unanswered: ReadonlyMap<string, number>;
};

export const noPromises: Failsafe = {
  promises: new Map(),
  vouchedBoot: undefined,
  lost: new Set(),
  unanswered: new Map(),
};

export type PartnerAnswer =
  | {
      readonly kind: "promised";
      readonly promisedMs: number;
      readonly number: number;
      /** From before it was asked. */
      readonly sentMonoMs: number;
    }
  | { readonly kind: "takeover" }
  /** It has seen a later state of this cell's database, or another one: this one must not serve. */
  | { readonly kind: "foreign"; readonly text: string }
  | { readonly kind: "silent" };

export function hearPartner(
  state: Failsafe,
  annex: string,
  answer: PartnerAnswer,
  boot: string,
): Failsafe {
  const unanswered = new Map(state.unanswered);
  switch (answer.kind) {
    case "silent":
      unanswered.set(annex, (unanswered.get(annex) ?? 0) + 1);
      return { ...state, unanswered };
    case "foreign":
      return state;
    case "takeover":
      unanswered.delete(annex);
      return { ...state, unanswered, lost: new Set([...state.lost, annex]) };
    case "promised": {
      unanswered.delete(annex);
      const lost = new Set(state.lost);
      lost.delete(annex);
      const until = answer.sentMonoMs + answer.promisedMs * (1 - rateError);
      const promises = new Map(state.promises);
      // An earlier, longer promise binds the annex all the same.
      const untilMonoMs = Math.max(until, promises.get(annex)?.untilMonoMs ?? until);
      promises.set(annex, { untilMonoMs, number: answer.number });
      return { ...state, unanswered, lost, promises, vouchedBoot: boot };
    }
  }
}

/** The wall clock ran ahead of the monotonic one: the machine may have slept, and the promises with it. */
export function loseOfPromises(state: Failsafe, ms: number): Failsafe {
  if (ms <= 0) return state;
  const promises = new Map(
    [...state.promises].map(([annex, one]) => [
      annex,
      { ...one, untilMonoMs: one.untilMonoMs - ms },
    ]),
  );
  return { ...state, promises };
}

export type GrantView = {
  /** As durably stored; undefined: never told, so anybody might be one. */
  readonly partners: readonly Partner[] | undefined;
  /** The control plane's last word was no. */
  readonly refused: boolean;
  /** A partner said in this round that the database is not the one it knows. */
  readonly foreign: string | undefined;
  readonly boot: string;
  /** This start of the database has had a lease. */
  readonly leased: boolean;
  /** Undefined: leases are timed. Else whether the database is still on the timeline that was granted to. */
  readonly manual: { readonly sameTimeline: boolean } | undefined;
  /** Annexes whose buckets are stopped already, durably. */
  readonly stopped: ReadonlySet<string>;
  readonly ttlMs: number;
  /** Of the lease that stands; 0: none. */
  readonly leaseLeftMs: number;
  /** From after the database's clock was read, which the lease counts from. */
  readonly nowMonoMs: number;
};

export type GrantPlan =
  | { readonly kind: "none"; readonly reason: string }
  /** A partner has not answered yet and the lease lasts: ask again at once. */
  | { readonly kind: "wait" }
  /** Stop first, durably; then the lease may last so long from `nowMonoMs`. */
  | { readonly kind: "grant"; readonly forMs: number; readonly stop: readonly Partner[] };

const bucketMax = 255;
/** A promise that ends sooner than this share of a lease is as good as over. */
const shortShare = 1 / 2;
/** With so little of the lease left nobody is waited for any more. */
const lastShare = 1 / 5;
const unansweredMax = 2;

export function planGrant(state: Failsafe, view: GrantView): GrantPlan {
  const { partners, ttlMs, nowMonoMs, stopped } = view;
  if (view.refused) return none("the control plane has refused the lease");
  if (view.foreign !== undefined) return none(view.foreign);
  if (view.manual !== undefined) return planManual(state, view.manual, ttlMs);
  if (partners === undefined) return none("the cell was never told of its partners");
  const asked = partners.filter(({ annex }) => !stopped.has(annex));
  const leftOf = ({ annex }: Partner): number =>
    state.lost.has(annex) ? 0 : (state.promises.get(annex)?.untilMonoMs ?? nowMonoMs) - nowMonoMs;
  const stop = asked.filter((one) => leftOf(one) < ttlMs * shortShare);
  if (!view.leased && state.vouchedBoot !== view.boot) {
    return none("no partner vouches for the database since it was started");
  }
  if (stop.some(({ annex }) => isWorthAsking(state, annex, view))) return { kind: "wait" };
  const kept = asked.filter((one) => !stop.includes(one));
  if (kept.length === 0 && covers(partners)) return none("no partner promises anything any more");
  return { kind: "grant", forMs: Math.min(ttlMs, ...kept.map(leftOf)), stop };
}

/**
 * Nobody takes over before an operator has said that this cell is powered off: no promise is waited for, and
 * no bucket stops. A partner that was told to take over knows of such a word, whoever was wrong in it.
 */
function planManual(
  { lost }: Failsafe,
  { sameTimeline }: { readonly sameTimeline: boolean },
  ttlMs: number,
): GrantPlan {
  if (!sameTimeline) {
    return none("the database was promoted or restored since the control plane granted to it");
  }
  const [annex] = lost;
  return annex === undefined
    ? { kind: "grant", forMs: ttlMs, stop: [] }
    : none(`${annex} was told to take over`);
}

function isWorthAsking(state: Failsafe, annex: string, view: GrantView): boolean {
  if (state.lost.has(annex)) return false;
  const tries = state.unanswered.get(annex) ?? 0;
  return tries < unansweredMax || view.leaseLeftMs > view.ttlMs * lastShare;
}

/** Do they keep every bucket? What nobody keeps nobody can take over. */
function covers(partners: readonly Partner[]): boolean {
  if (partners.length === 0) return false;
  let next = 0;
  for (const { lo, hi } of partners.toSorted((a, b) => a.lo - b.lo)) {
    if (lo > next) return false;
    next = Math.max(next, hi + 1);
  }
  return next > bucketMax;
}

const none = (reason: string): GrantPlan => ({ kind: "none", reason });

/** After a third of the lease it is asked for anew; from here on its answer does not come in time. */
const silentShare = 2 / 5;
export const lookEveryMs = 100;

/**
 * How long one question to a partner may take: two of them, to one that hangs, end before the lease does,
 * with time left to stop what it keeps. The others are not stopped for its sake.
 */
export const answerMsOf = (ttlMs: number): number => Math.ceil(ttlMs / 8);

/** Has the control plane been silent for so long that the partners are to be asked? */
export function isTimeForFailsafe(view: {
  /** 0 without a lease, else below 1. */
  readonly leaseLeftShare: number;
  /** Since when a question that should have been answered was not; 0: none is open. */
  readonly silentMs: number;
  readonly ttlMs: number;
}): boolean {
  return view.leaseLeftShare <= silentShare && view.silentMs >= view.ttlMs / 5;
}
