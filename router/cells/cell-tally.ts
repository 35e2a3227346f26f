/**
 * What this router saw of each cell since it last told the control plane, and whether that should not wait:
 * a cell that served begins to fail, or serves again. Routers are one of the three kinds of witnesses of a
 * cell's death; what an application answers is no matter of theirs.
 */
import type { CellId } from "../../contract/ids.ts";
import type { PlacementKey } from "../../contract/placement-key.ts";
import { type Blame, type Blamed, BlamedKeys, isNobody } from "./blamed-keys.ts";

export type Seen = {
  readonly cell: CellId;
  readonly requests: number;
  readonly failures: number;
};
export type FreshSeen = Seen & {
  /** What was counted of this cell before is not in it, and says the opposite. */
  readonly anew: boolean;
  /** Whose requests went wrong in there since the last time; absent: nobody's. */
  readonly blamed?: Blamed;
};

/** As many as one report holds; cells come from the table, so there are no more in practice. */
const cellsMax = 1000;
/** In a row. One failure may be a connection that grew old; one success a last word. */
const failsAfter = 2;
const servesAfter = 3;
/** So long a cell that goes on failing is told at each turn; then it is known, and told in good time. */
const urgentMs = 10_000;
/** Without requests that are cut off; the next one is news. */
const quietMs = 5000;

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
  /** Since when requests are cut off now and then, and when one was last. */
  cutSinceMs: number;
  cutLastMs: number;
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

  /**
   * Of a request that was noted: whether it went wrong inside the cell, and whose it was. One that was cut off
   * is told soon: whoever takes keys over waits for it, and there may be no second one.
   */
  blame(cell: CellId, key: PlacementKey | undefined, how: Blame | undefined): void {
    const sight = this.#sights.get(cell);
    if (sight === undefined || key === undefined || how === undefined) return;
    sight.blamed ??= new BlamedKeys();
    sight.blamed.note(key, how, this.#monotonicMs());
    if (how === "open") this.#tellOfCut(sight);
  }

  /** Soon while it is news; where it goes on and on, in good time. */
  #tellOfCut(sight: Sight): void {
    const nowMs = this.#monotonicMs();
    if (nowMs - sight.cutLastMs > quietMs) sight.cutSinceMs = nowMs;
    sight.cutLastMs = nowMs;
    if (nowMs - sight.cutSinceMs < urgentMs) this.#onNews();
  }

  /** Reads and starts again. */
  take(): FreshSeen[] {
    const all: FreshSeen[] = [];
    for (const [cell, sight] of this.#sights) {
      const { requests, failures, anew } = sight;
      if (requests > 0) {
        const blamed = sight.blamed?.take(this.#monotonicMs());
        const isTold = blamed !== undefined && !isNobody(blamed);
        all.push({ cell, requests, failures, anew, ...(isTold ? { blamed } : {}) });
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
  ...{ cutSinceMs: 0, cutLastMs: Number.NEGATIVE_INFINITY },
});
