/**
 * The recent past of the routing log, bounded: from it a router that is a little behind gets one
 * delta. Who is further behind than the window reaches takes a snapshot.
 */
import { type ChangeRow, identityOf } from "../core/routing-view.ts";

export type DeltaWindow = {
  /** Rows must come in order of revision. */
  readonly add: (rows: readonly ChangeRow[]) => void;
  /** The last row of each key and name above `revision`; undefined when the window does not reach back there. */
  readonly since: (revision: number) => readonly ChangeRow[] | undefined;
  /** Rows above `revision`; undefined when the window does not reach back there. */
  readonly countSince: (revision: number) => number | undefined;
  /** Forgets everything: deltas begin at `revision`. */
  readonly restart: (revision: number) => void;
};

export function createDeltaWindow(rowsMax: number): DeltaWindow {
  let rows: ChangeRow[] = [];
  /** Every change above this revision is in `rows`. */
  let floor = Number.POSITIVE_INFINITY;

  function trim(): void {
    // Half a window at a time, so that the cost of moving the rest is spread.
    if (rows.length <= rowsMax) return;
    const keep = Math.floor(rowsMax / 2);
    const last = rows[rows.length - keep - 1];
    if (last === undefined) return;
    floor = last.revision;
    // A revision is dropped whole, or its key changes would be half known.
    rows = rows.slice(-keep).filter(({ revision }) => revision > floor);
  }

  return {
    add: (added) => {
      for (const row of added) rows.push(row);
      trim();
    },
    since: (revision) => {
      if (revision < floor) return undefined;
      const byKey = new Map<string, ChangeRow>();
      for (let index = firstAbove(rows, revision); index < rows.length; index += 1) {
        const row = rows[index];
        if (row !== undefined) byKey.set(identityOf(row), row);
      }
      return [...byKey.values()];
    },
    countSince: (revision) =>
      revision < floor ? undefined : rows.length - firstAbove(rows, revision),
    restart: (revision) => {
      rows = [];
      floor = revision;
    },
  };
}

function firstAbove(rows: readonly ChangeRow[], revision: number): number {
  let low = 0;
  let high = rows.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((rows[middle]?.revision ?? 0) <= revision) low = middle + 1;
    else high = middle;
  }
  return low;
}
