/**
 * What partners promised is given back when nothing rests on it any more: a takeover would have to wait for
 * it. That goes also for promises that this process has not heard of, because their answers came too late or an
 * agent before it asked: a partner says by number what it has promised last.
 *
 * Always true: what is not known here is given back only when no lease of another agent can rest on it.
 */
import type { Partner } from "../../../contract/standby-api.ts";
import type { PartnerAnswer, Promised } from "./failsafe-state.ts";

/** All times are monotonic milliseconds. */
export type Moment = {
  readonly nowMonoMs: number;
  readonly ttlMs: number;
  /** The control plane grants, and this agent is the one that asks it. */
  readonly isGranted: boolean;
  readonly promises: ReadonlyMap<string, Promised>;
  /** Does nothing rest on what the annex is known to have promised? */
  readonly isFree: (annex: string) => boolean;
};

export type Around = {
  readonly partners: () => Promise<readonly Partner[]>;
  /** Asks with a number for the end of that promise, and is told the number of the last one. */
  readonly ask: (partner: Partner, number: number) => Promise<PartnerAnswer>;
};

export class GivingBack {
  #grantedMonoMs: number | undefined;
  #nextMonoMs = 0;
  /** A partner may have promised what was not heard here. */
  #mayOwe: boolean = true;

  /** Partners were asked for promises. */
  asked(): void {
    this.#mayOwe = true;
  }

  /** What is still promised, as far as it is known. */
  async turn(moment: Moment, around: Around): Promise<ReadonlyMap<string, Promised>> {
    const { nowMonoMs, ttlMs, isFree, promises } = moment;
    const isUnknownFree = this.#isUnknownFree(moment);
    const isDue = (annex: string): boolean => (promises.has(annex) ? isFree(annex) : isUnknownFree);
    const isKnownDue = [...promises.keys()].some(isFree);
    if ((!isKnownDue && !isUnknownFree) || nowMonoMs < this.#nextMonoMs) return promises;
    this.#nextMonoMs = nowMonoMs + (isKnownDue ? ttlMs / 3 : 2 * ttlMs);
    const partners = await around.partners();
    const left = new Map(promises);
    const owing = await Promise.all(
      partners.map(async (partner) => {
        const { annex } = partner;
        if (!isDue(annex)) return left.has(annex);
        const isOver = await giveBackTo(around, partner, left.get(annex), isUnknownFree);
        if (isOver) left.delete(annex);
        return !isOver;
      }),
    );
    for (const [annex, { untilMonoMs }] of left) {
      const isPartner = partners.some((one) => one.annex === annex);
      if (isFree(annex) && (!isPartner || untilMonoMs < nowMonoMs)) left.delete(annex);
    }
    if (isUnknownFree) this.#mayOwe = owing.includes(true);
    return left;
  }

  /**
   * A lease of an agent that asked before this one may rest on it for one TTL more, so two have to pass in which
   * the control plane grants without a break, and to this agent.
   */
  #isUnknownFree({ nowMonoMs, ttlMs, isGranted }: Moment): boolean {
    this.#grantedMonoMs = isGranted ? (this.#grantedMonoMs ?? nowMonoMs) : undefined;
    if (this.#grantedMonoMs === undefined || !this.#mayOwe) return false;
    return nowMonoMs - this.#grantedMonoMs >= 2 * ttlMs;
  }
}

/** True: the partner owes nothing any more. */
async function giveBackTo(
  { ask }: Around,
  partner: Partner,
  known: Promised | undefined,
  isUnknownFree: boolean,
): Promise<boolean> {
  const number = known?.number ?? 0;
  const end = await ask(partner, number);
  if (end.kind === "silent") return false;
  if (end.kind !== "promised" || end.number <= number) return true;
  // It has made a later one.
  return isUnknownFree && (await ask(partner, end.number)).kind !== "silent";
}
