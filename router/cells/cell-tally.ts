/**
 * What this router saw of each cell since it last told the control plane, and whether that should not wait:
 * a cell that served begins to fail, or serves again. Routers are one of the three kinds of witnesses of a
 * cell's death; what an application answers is no matter of theirs.
 */
import type { CellId } from "../../contract/ids.ts";
import type { PlacementKey } from "../../contract/placement-key.ts";
import { type Blame, type BlamedKey, BlamedKeys } from "./blamed-keys.ts";

export type Seen = {
  readonly cell: CellId;
  readonly requests: number;
  readonly failures: number;
  /** Whose requests went wrong in there; absent: nobody's. */
  readonly worst?: BlamedKey[];
};
/** `anew`: what was counted of this cell before is not in it, and says the opposite. `worst`: what is new. */
export type FreshSeen = Seen & { readonly anew: boolean };

/** As many as one report holds; cells come from the table, so there are no more in practice. */
const cellsMax = 1000;
/** In a row. One failure may be a connection that grew old; one success a last word. */
const failsAfter = 2;
const servesAfter = 3;
/** So long a cell that goes on failing is told at each turn; then it is known, and told in good time. */
const urgentMs = 10_000;

type Sight = {
  requests: number;
  failures: number;
  anew: boolean;
  failing: boolean;
  /** Observations in a row that say the opposite. */
  contrary: number;
  sinceMs: number;
  /** Made when the first is blamed. */
  blamed: BlamedKeys | undefined;
};

export class CellTally {
  readonly #monotonicMs: () => number;
  readonly #sights = new Map<CellId, Sight>();
  #onNews: () => void = () => {};

  constructor(monotonicMs: () => number) {
    this.#monotonicMs = monotonicMs;
  }

  /** Told when a report should not wait; also often while a cell begins to fail. */
  onNews(hear: () => void): void {
    this.#onNews = hear;
  }

  /** `failed`: it could not be reached, or did not answer as HTTP and in time. */
  note(cell: CellId, failed: boolean): void {
    const sight = this.#sights.get(cell) ?? fresh();
    if (this.#sights.size < cellsMax) this.#sights.set(cell, sight);
    sight.requests += 1;
    if (failed) sight.failures += 1;
    if (failed !== sight.failing) this.#noteContrary(sight, failed);
    else {
      sight.contrary = 0;
      if (failed && this.#monotonicMs() - sight.sinceMs < urgentMs) this.#onNews();
    }
  }

  /** Of a request that was noted: whether it went wrong inside the cell, and whose it was. */
  blame(cell: CellId, key: PlacementKey | undefined, how: Blame | undefined): void {
    const sight = this.#sights.get(cell);
    if (sight === undefined || key === undefined || how === undefined) return;
    sight.blamed ??= new BlamedKeys();
    sight.blamed.note(key, how, this.#monotonicMs());
  }

  /** Reads and starts again. */
  take(): FreshSeen[] {
    const all: FreshSeen[] = [];
    for (const [cell, sight] of this.#sights) {
      const { requests, failures, anew } = sight;
      if (requests > 0) {
        const worst = sight.blamed?.take() ?? [];
        all.push({ cell, requests, failures, anew, ...(worst.length === 0 ? {} : { worst }) });
      }
      Object.assign(sight, { requests: 0, failures: 0, anew: false });
    }
    return all;
  }

  #noteContrary(sight: Sight, failed: boolean): void {
    sight.contrary += 1;
    if (sight.contrary < (failed ? failsAfter : servesAfter)) return;
    // The share of failures is to say what is so now, not what was so until now.
    sight.requests = sight.contrary;
    sight.failures = failed ? sight.contrary : 0;
    Object.assign(sight, { anew: true, failing: failed, contrary: 0 });
    sight.sinceMs = this.#monotonicMs();
    this.#onNews();
  }
}

const fresh = (): Sight => ({
  ...{ requests: 0, failures: 0, anew: false },
  ...{ failing: false, contrary: 0, sinceMs: 0, blamed: undefined },
});
