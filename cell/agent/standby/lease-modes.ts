/**
 * How the cell's leases end, kept in step with what the control plane says (contract/lease-mode.ts).
 *
 * Always true: what is reported every store has stored; `timed` is stored only where the lease that stands
 * is the control plane's, so that an acknowledgement means that what it has recorded bounds the cell again.
 */
import { type LeaseModeWord, timedFromBirth } from "../../../contract/lease-mode.ts";
import { takeLeaseMode } from "../../store/lease-mode.ts";
import type { AgentLog } from "../events.ts";
import type { Facts, Stores } from "../stores/stores.ts";

/** Of several stores the earliest word: what one of them has not heard the cell has not. */
export function leaseModeOf({ each }: Facts): LeaseModeWord {
  const words = each.map(({ standby }): LeaseModeWord => {
    return { mode: standby.manual ? "manual" : "timed", number: standby.modeNumber };
  });
  return words.toSorted((a, b) => a.number - b.number)[0] ?? timedFromBirth;
}

export class LeaseModes {
  readonly #stores: Stores;
  readonly #log: AgentLog;
  readonly #onNews: () => void;
  /** A lease that the cell gave itself is live: the next grant of the control plane is wanted now. */
  #pending = false;

  constructor(stores: Stores, log: AgentLog, onNews: () => void) {
    this.#stores = stores;
    this.#log = log;
    this.#onNews = onNews;
  }

  wantsGrant(): boolean {
    return this.#pending;
  }

  /** Before an answer is obeyed, and after: only then its grant stands. */
  async hear(word: LeaseModeWord | undefined): Promise<void> {
    const known = this.#stores.facts();
    if (word === undefined || known === undefined) return;
    if (known.each.every(({ standby }) => standby.modeNumber >= word.number)) return;
    const outcomes = await this.#stores.inAll((pool) => takeLeaseMode(pool, word));
    this.#pending = outcomes.includes("pending");
    if (!outcomes.includes("set")) return;
    this.#log.event("lease.mode-changed", { mode: word.mode, number: word.number });
    await this.#stores.look();
    this.#onNews();
  }
}
