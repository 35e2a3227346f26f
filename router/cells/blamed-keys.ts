/**
 * Whose requests went wrong inside a cell: which were open when an exchange was cut off, and which the
 * application answered as a failure of its own. A request that was never let in says nothing of its key.
 * Who takes keys over looks here for the one that brought the application down.
 *
 * What must always be true: where not all keys are named it is said, because whoever is not named would be
 * spared; a cell that fails for everybody fills no memory.
 */
import type { CellId } from "../../contract/ids.ts";
import type { PlacementKey } from "../../contract/placement-key.ts";

/** `open`: it was asked, and the exchange was cut off or never came to an end. `failed`: it answered 5xx. */
export type Blame = "open" | "failed";
export type BlamedKey = {
  readonly key: PlacementKey;
  readonly open: number;
  readonly failed: number;
};
/** `partial`: there are others. */
export type Blamed = { readonly worst: readonly BlamedKey[]; readonly partial: boolean };

/** Of one cell. */
const keysMax = 200;
const cellsMax = 100;
/** As the contract takes them: few, because every report has them again. */
const toldMax = 50;
/** What happened longer ago says nothing of what is wrong now. */
const keptMs = 30_000;

export class BlamedKeys {
  readonly #keys = new Map<PlacementKey, { open: number; failed: number; atMs: number }>();
  /** When somebody was left out for want of room. */
  #leftOutMs = Number.NEGATIVE_INFINITY;

  note(key: PlacementKey, how: Blame, nowMs: number): void {
    this.#add({ key, open: how === "open" ? 1 : 0, failed: how === "failed" ? 1 : 0 }, nowMs);
  }

  /** What another thread has noted. */
  add({ worst, partial }: Blamed, nowMs: number): void {
    if (partial) this.#leftOutMs = nowMs;
    for (const one of worst) this.#add(one, nowMs);
  }

  /** Of the last while, worst first. */
  worst(nowMs: number): Blamed {
    this.#forget(nowMs);
    const all = this.#all();
    const partial = all.length > toldMax || this.#isPartial(nowMs);
    return { worst: all.slice(0, toldMax), partial };
  }

  /** Everything, once. */
  take(nowMs: number): Blamed {
    const taken = { worst: this.#all(), partial: this.#isPartial(nowMs) };
    this.#keys.clear();
    this.#leftOutMs = Number.NEGATIVE_INFINITY;
    return taken;
  }

  get size(): number {
    return this.#keys.size;
  }

  #isPartial(nowMs: number): boolean {
    return nowMs - this.#leftOutMs <= keptMs;
  }

  #all(): BlamedKey[] {
    return [...this.#keys]
      .map(([key, { open, failed }]) => ({ key, open, failed }))
      .sort((a, b) => b.open - a.open || b.failed - a.failed);
  }

  #add({ key, open, failed }: BlamedKey, nowMs: number): void {
    const before = this.#keys.get(key);
    if (before === undefined && !this.#hasRoom(open > 0, nowMs)) {
      this.#leftOutMs = nowMs;
      return;
    }
    const sum = { open: (before?.open ?? 0) + open, failed: (before?.failed ?? 0) + failed };
    this.#keys.set(key, { ...sum, atMs: nowMs });
  }

  /** Whoever had a request open is kept rather than who was answered: that may be everybody. */
  #hasRoom(isOpen: boolean, nowMs: number): boolean {
    if (this.#keys.size < keysMax) return true;
    this.#forget(nowMs);
    if (this.#keys.size < keysMax) return true;
    const lesser = isOpen ? [...this.#keys].find(([, { open }]) => open === 0)?.[0] : undefined;
    if (lesser === undefined) return false;
    this.#keys.delete(lesser);
    this.#leftOutMs = nowMs;
    return true;
  }

  #forget(nowMs: number): void {
    for (const [key, { atMs }] of this.#keys) if (nowMs - atMs > keptMs) this.#keys.delete(key);
  }
}

/** What threads have told until somebody asks, which may be hours: no more than one of them may hold. */
export function blamedTogether(a: Blamed | undefined, b: Blamed | undefined): Blamed | undefined {
  if (a === undefined || b === undefined) return a ?? b;
  const both = new BlamedKeys();
  both.add(a, 0);
  both.add(b, 0);
  return both.take(0);
}

/** In the thread that reports: of every cell, what all threads noted. */
export class BlamedByCell {
  readonly #cells = new Map<CellId, BlamedKeys>();

  /** What is new, and back what is to be told; undefined: nobody is blamed. */
  worstOf(cell: CellId, fresh: Blamed | undefined, nowMs: number): Blamed | undefined {
    const known = this.#cells.get(cell) ?? (fresh && this.#begin(cell, nowMs));
    if (known === undefined) return fresh && { worst: [], partial: true };
    if (fresh !== undefined) known.add(fresh, nowMs);
    const now = known.worst(nowMs);
    if (!isNobody(now)) return now;
    this.#cells.delete(cell);
    return undefined;
  }

  get size(): number {
    return this.#cells.size;
  }

  #begin(cell: CellId, nowMs: number): BlamedKeys | undefined {
    if (this.#cells.size >= cellsMax) {
      // Nobody has asked for those that have no requests any more.
      for (const [id, one] of this.#cells) {
        if (isNobody(one.worst(nowMs))) this.#cells.delete(id);
      }
    }
    if (this.#cells.size >= cellsMax) return undefined;
    const fresh = new BlamedKeys();
    this.#cells.set(cell, fresh);
    return fresh;
  }
}

export const isNobody = ({ worst, partial }: Blamed): boolean => worst.length === 0 && !partial;
