/**
 * All keys of this cell's database, in memory, and how old that knowledge is.
 *
 * Why a bound on its age, and why this one. What the gate confirms must not depend on this memory
 * alone: a write that an admitted request made was checked by PostgreSQL against the rows themselves,
 * and only an agent of this same cell changes those rows. So old knowledge cannot let a fenced
 * write through; it can make the gate pass reads, or answers of applications that use the database
 * little, for a key that has left. `staleMaxMs` bounds that time. It is several times the interval
 * of reading, so that one slow reading closes nothing, and far below any lease.
 */
import type { OwnershipState } from "../../contract/cell-protocol.ts";
import { ownershipStates } from "../../contract/cell-protocol.ts";
import { compareBytes } from "../../contract/placement-key.ts";
import type { Placement } from "./placement.ts";

export type OwnedRow = {
  readonly key: string;
  readonly state: OwnershipState;
  readonly epoch: number;
  /** Grows with every change in the database. */
  readonly change: number;
};
export type OwnedEntry = { readonly key: string } & Placement;

export const staleMaxMs = 10_000;

export class OwnershipCache {
  #keys = new Map<string, Placement>();
  #change = 0;
  #freshMonoMs = Number.NEGATIVE_INFINITY;

  /** Everything up to this change number is in here. */
  get change(): number {
    return this.#change;
  }
  get size(): number {
    return this.#keys.size;
  }
  get(key: string): Placement | undefined {
    return this.#keys.get(key);
  }

  /** All there is, of one snapshot; what is known is forgotten. */
  replace(rows: readonly OwnedRow[]): void {
    this.#keys = new Map();
    this.#change = 0;
    this.put(rows);
  }

  put(rows: readonly OwnedRow[]): void {
    for (const { key, state, epoch, change } of rows) {
      this.#keys.set(key, { state, epoch });
      this.#change = Math.max(this.#change, change);
    }
  }

  /** Of the time before the reading was asked for. */
  markRead(askedMonoMs: number): void {
    this.#freshMonoMs = Math.max(this.#freshMonoMs, askedMonoMs);
  }
  isFresh(nowMonoMs: number): boolean {
    return nowMonoMs - this.#freshMonoMs <= staleMaxMs;
  }

  countByState(): Record<OwnershipState, number> {
    const counts = Object.fromEntries(ownershipStates.map((state) => [state, 0]));
    for (const { state } of this.#keys.values()) counts[state] = (counts[state] ?? 0) + 1;
    return counts as Record<OwnershipState, number>;
  }

  /** A list that does not change while it is sent page by page. In byte order, as the contract says. */
  sorted(): readonly OwnedEntry[] {
    return [...this.#keys]
      .map(([key, placement]) => ({ key, ...placement }))
      .sort((a, b) => compareBytes(a.key, b.key));
  }
}
