/**
 * Hands in what was acknowledged for a failed-over cell, when the control plane asks: in pages, every
 * thread's list, once per failover.
 *
 * What must always be true: a list is taken only after everybody here serves a table that lets nothing of
 * that cell be acknowledged any more; a failover is told as collected only after its last page was taken; what was
 * not taken is handed in again, whole, when it is asked for again.
 */
import type { AckedWrite, RouterAcks, RouterSyncResponse } from "../../contract/cell-protocol.ts";
import type { CellId } from "../../contract/ids.ts";
import type { AckedList } from "./acked-writes.ts";

export type Wanted = NonNullable<RouterSyncResponse["collect"]>;

export type HandInOptions = {
  readonly router: string;
  readonly nowMs: () => number;
  /** Of every thread, as it is now; rejects where one does not answer. */
  readonly listsOf: (cell: CellId) => Promise<readonly AckedList[]>;
  readonly send: (page: RouterAcks) => Promise<void>;
  /** The control plane should hear now what is collected. */
  readonly onCollected: () => void;
  readonly onTrouble: (failover: string, error: unknown) => void;
};

const pageEntriesMax = 5000;
/** As many as one report to the control plane names. */
const rememberedMax = 100;

export class HandIn {
  readonly #options: HandInOptions;
  readonly #startedMs: number;
  readonly #collected = new Set<string>();
  readonly #running = new Set<string>();
  #lostMs = 0;

  constructor(options: HandInOptions) {
    this.#options = options;
    this.#startedMs = options.nowMs();
  }

  /** Somebody's list is gone: nothing is complete from before now. */
  lost(): void {
    this.#lostMs = this.#options.nowMs();
  }

  /** For every report to the control plane. */
  collected(): readonly string[] {
    return [...this.#collected];
  }

  /** What an answer asks for, once its table is served everywhere here. `instance`: of this process. */
  hear(wanted: Wanted, instance: string): void {
    for (const { failover, cell } of wanted) {
      if (this.#collected.has(failover) || this.#running.has(failover)) continue;
      this.#running.add(failover);
      void this.#handIn(failover, cell, instance)
        .catch((error: unknown) => this.#options.onTrouble(failover, error))
        .finally(() => this.#running.delete(failover));
    }
  }

  async #handIn(failover: string, cell: CellId, instance: string): Promise<void> {
    const { router, nowMs, listsOf, send, onCollected } = this.#options;
    const lists = await listsOf(cell);
    const entries = lists.flatMap((list) => list.entries).sort((a, b) => a.atMs - b.atMs);
    const evictedMs = Math.max(0, ...lists.map((list) => list.evictedMs));
    // Of what was dropped at that instant something may be missing, so it begins after it.
    const completeSinceMs = Math.max(this.#startedMs, this.#lostMs, evictedMs + 1);
    for (let at = 0; ; at += pageEntriesMax) {
      const page: AckedWrite[] = entries.slice(at, at + pageEntriesMax);
      const last = at + pageEntriesMax >= entries.length;
      const about = { router, instance, failover, cell, completeSinceMs, nowMs: nowMs() };
      await send({ ...about, entries: page, last });
      if (last) break;
    }
    this.#collected.add(failover);
    const [oldest] = this.#collected;
    if (this.#collected.size > rememberedMax && oldest !== undefined) {
      this.#collected.delete(oldest);
    }
    onCollected();
  }
}
