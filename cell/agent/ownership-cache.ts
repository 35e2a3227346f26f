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
import type { Placement } from "./placement.ts";

export type OwnedRow = {
  readonly key: string;
  readonly state: OwnershipState;
  readonly epoch: number;
  /** Grows with every change in the database. */
  readonly change: number;
};
export const staleMaxMs = 10_000;

export class OwnershipCache {
  #keys = new Map<string, Placement>();
  /** A million keys share a handful of states and epochs, and so of objects. */
  #shapes = new Map<string, Placement>();
  #counts = noKeys();
  #change = 0;
  /** Every key once, as it first came: a place in it stays the same key's until `replace`. */
  #order: string[] = [];
  #generation = 0;
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
  get order(): readonly string[] {
    return this.#order;
  }
  /** Another one after each `replace`. */
  get generation(): number {
    return this.#generation;
  }
  countByState(): Readonly<Record<OwnershipState, number>> {
    return this.#counts;
  }

  /** All there is, of one snapshot; what is known is forgotten. */
  replace(rows: readonly OwnedRow[]): void {
    this.#keys = new Map();
    this.#shapes = new Map();
    this.#counts = noKeys();
    this.#change = 0;
    this.#order = [];
    this.#generation += 1;
    this.put(rows);
  }

  put(rows: readonly OwnedRow[]): void {
    for (const { key, state, epoch, change } of rows) {
      const before = this.#keys.get(key);
      if (before !== undefined) this.#counts[before.state] -= 1;
      else this.#order.push(key);
      this.#counts[state] += 1;
      this.#keys.set(key, this.#shapeOf(state, epoch));
      this.#change = Math.max(this.#change, change);
    }
  }

  #shapeOf(state: OwnershipState, epoch: number): Placement {
    const name = `${state} ${epoch}`;
    const shape = this.#shapes.get(name) ?? { state, epoch };
    this.#shapes.set(name, shape);
    return shape;
  }

  /** Of the time before the reading was asked for. */
  markRead(askedMonoMs: number): void {
    this.#freshMonoMs = Math.max(this.#freshMonoMs, askedMonoMs);
  }
  isFresh(nowMonoMs: number): boolean {
    return nowMonoMs - this.#freshMonoMs <= staleMaxMs;
  }
}

const noKeys = (): Record<OwnershipState, number> => ({
  active: 0,
  fenced: 0,
  importing: 0,
  moved: 0,
  dropped: 0,
});
