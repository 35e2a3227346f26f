/**
 * Writes that this router has acknowledged, by cell: the last of them, so that a failover can say which of
 * them the new owner does not have.
 *
 * What must always be true: a write is noted before the first byte of its answer goes to the client; what
 * is dropped for room or age moves `evictedMs`, so that a list never passes for complete when it is not.
 * Age is told by the next write of the same cell: the list of a cell that has died stays as it is.
 */
import type { AckedWrite } from "../../contract/cell-protocol.ts";
import type { CellId } from "../../contract/ids.ts";
import type { TableState } from "../../contract/table-state.ts";

export type AckedLimits = {
  readonly perCellMax: number;
  readonly totalMax: number;
  readonly keepMs: number;
};

/** One cell's list, oldest first. */
export type AckedList = {
  readonly entries: readonly AckedWrite[];
  /** Of what was acknowledged up to here something may be missing; 0: nothing is. Wall clock. */
  readonly evictedMs: number;
};

export const nothingAcked: AckedList = { entries: [], evictedMs: 0 };

type Ring = { entries: AckedWrite[]; from: number; evictedMs: number };

/** So many places of dropped entries stay, at least, before the rest is moved down. */
const slackMin = 1024;

export class AckedWrites {
  readonly #limits: AckedLimits;
  readonly #rings = new Map<CellId, Ring>();
  #size = 0;
  #lists: TableState["lists"] | undefined;

  constructor(limits: AckedLimits) {
    this.#limits = limits;
  }

  get size(): number {
    return this.#size;
  }

  note(cell: CellId, write: AckedWrite): void {
    const ring = this.#rings.get(cell) ?? { entries: [], from: 0, evictedMs: 0 };
    if (ring.entries.length === 0) this.#rings.set(cell, ring);
    const { perCellMax, totalMax, keepMs } = this.#limits;
    ring.entries.push(write);
    this.#size += 1;
    while (lengthOf(ring) > perCellMax) this.#drop(ring);
    for (;;) {
      const oldest = ring.entries[ring.from];
      if (oldest === undefined || write.atMs - oldest.atMs <= keepMs) break;
      this.#drop(ring);
    }
    while (this.#size > totalMax) this.#drop(this.#longest());
  }

  list(cell: CellId): AckedList {
    const ring = this.#rings.get(cell);
    if (ring === undefined) return nothingAcked;
    return { entries: ring.entries.slice(ring.from), evictedMs: ring.evictedMs };
  }

  /** All of them, for who takes them over. */
  lists(): ReadonlyArray<readonly [CellId, AckedList]> {
    return [...this.#rings.keys()].map((cell) => [cell, this.list(cell)] as const);
  }

  /** What somebody else has noted, who is no more. */
  adopt(cell: CellId, { entries, evictedMs }: AckedList): void {
    for (const write of entries) this.note(cell, write);
    const ring = this.#rings.get(cell);
    if (ring !== undefined) ring.evictedMs = Math.max(ring.evictedMs, evictedMs);
    else if (evictedMs > 0) this.#rings.set(cell, { entries: [], from: 0, evictedMs });
  }

  /** Forgets cells that the table does not name any more. */
  follow({ lists }: TableState): void {
    if (lists === this.#lists) return;
    this.#lists = lists;
    const named = new Set(lists.cells.map(({ id }) => id));
    for (const [cell, ring] of this.#rings) {
      if (named.has(cell)) continue;
      this.#rings.delete(cell);
      this.#size -= lengthOf(ring);
    }
  }

  #drop(ring: Ring): void {
    const oldest = ring.entries[ring.from];
    if (oldest === undefined) return;
    ring.evictedMs = Math.max(ring.evictedMs, oldest.atMs);
    ring.from += 1;
    this.#size -= 1;
    if (ring.from < slackMin || ring.from * 2 < ring.entries.length) return;
    ring.entries = ring.entries.slice(ring.from);
    ring.from = 0;
  }

  /** A busy cell gives way before a quiet one. */
  #longest(): Ring {
    let longest: Ring = { entries: [], from: 0, evictedMs: 0 };
    for (const ring of this.#rings.values()) {
      if (lengthOf(ring) > lengthOf(longest)) longest = ring;
    }
    return longest;
  }
}

const lengthOf = ({ entries, from }: Ring): number => entries.length - from;
