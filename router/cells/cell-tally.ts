/** What this router saw of each cell since it last told the control plane. */
import type { CellId } from "../../contract/ids.ts";

export type Seen = { readonly cell: CellId; readonly requests: number; readonly failures: number };

/** As many as one report holds; cells come from the table, so there are no more in practice. */
const cellsMax = 1000;

export class CellTally {
  #counts = new Map<CellId, { requests: number; failures: number }>();

  note(cell: CellId, failed: boolean): void {
    const count = this.#counts.get(cell) ?? { requests: 0, failures: 0 };
    if (this.#counts.size < cellsMax) this.#counts.set(cell, count);
    count.requests += 1;
    if (failed) count.failures += 1;
  }

  /** Reads and starts again. */
  take(): Seen[] {
    const counts = this.#counts;
    this.#counts = new Map();
    return [...counts].map(([cell, count]) => ({ cell, ...count }));
  }
}
