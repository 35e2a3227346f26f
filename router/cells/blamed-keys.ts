/**
 * Whose requests went wrong inside a cell: which were open when the exchange was cut off, and which the
 * application answered as a failure of its own. A request that was never let in says nothing of its key.
 * Who takes keys over looks here for the one that brought the application down.
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

/** Of one cell; later ones are not counted, so that a dead cell cannot fill the memory. */
const keysMax = 500;
const toldMax = 20;
/** What happened longer ago says nothing of what is wrong now. */
const keptMs = 30_000;

export class BlamedKeys {
  readonly #keys = new Map<PlacementKey, { open: number; failed: number; atMs: number }>();

  note(key: PlacementKey, how: Blame, nowMs: number): void {
    this.add([{ key, open: how === "open" ? 1 : 0, failed: how === "failed" ? 1 : 0 }], nowMs);
  }

  add(more: readonly BlamedKey[], nowMs: number): void {
    for (const { key, open, failed } of more) {
      const known = this.#keys.get(key);
      if (known === undefined && this.#keys.size >= keysMax) this.#forget(nowMs);
      if (known === undefined && this.#keys.size >= keysMax) continue;
      const before = known ?? { open: 0, failed: 0 };
      this.#keys.set(key, {
        ...{ open: before.open + open, failed: before.failed + failed, atMs: nowMs },
      });
    }
  }

  /** The worst of the last while, worst first. */
  worst(nowMs: number): BlamedKey[] {
    this.#forget(nowMs);
    return [...this.#keys]
      .map(([key, { open, failed }]) => ({ key, open, failed }))
      .sort((a, b) => b.open - a.open || b.failed - a.failed)
      .slice(0, toldMax);
  }

  /** Everything, once. */
  take(): BlamedKey[] {
    const all = [...this.#keys].map(([key, { open, failed }]) => ({
      ...{ key, open, failed },
    }));
    this.#keys.clear();
    return all;
  }

  get size(): number {
    return this.#keys.size;
  }

  #forget(nowMs: number): void {
    for (const [key, { atMs }] of this.#keys) if (nowMs - atMs > keptMs) this.#keys.delete(key);
  }
}

/** In the thread that reports: of every cell, what all threads noted. */
export class BlamedByCell {
  readonly #cells = new Map<CellId, BlamedKeys>();

  /** What is new, and back what is to be told; undefined: nobody is blamed. */
  worstOf(cell: CellId, fresh: readonly BlamedKey[], nowMs: number): BlamedKey[] | undefined {
    const known = this.#cells.get(cell) ?? new BlamedKeys();
    known.add(fresh, nowMs);
    const worst = known.worst(nowMs);
    if (worst.length === 0) this.#cells.delete(cell);
    else this.#cells.set(cell, known);
    return worst.length === 0 ? undefined : worst;
  }
}
