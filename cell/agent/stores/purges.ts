/**
 * Purges of a cell with several stores: each store removes its own rows; a purge is told as finished
 * when every store has counted itself empty.
 */
import type { Purged, Purger } from "../purger.ts";
import { nameInCell } from "./names.ts";

export type PurgesOfStore = {
  readonly name: string;
  readonly purger: Pick<Purger, "due" | "reported">;
};

/** For the next call; the same until `reported`. */
export function duePurges(stores: readonly PurgesOfStore[]): Purged[] {
  const done = stores.map(({ name, purger }) => ({ name, purges: purger.due() }));
  const [first, ...others] = done;
  return (first?.purges ?? []).flatMap((purge) => {
    const same = others.map(({ name, purges }) => ({
      name,
      found: purges.find((other) => isSame(other, purge)),
    }));
    if (same.some(({ found }) => found === undefined)) return [];
    const more = same.flatMap(({ name, found }) =>
      Object.entries(found?.rows ?? {}).map(([table, rows]) => [nameInCell(name, table), rows]),
    );
    return [{ ...purge, rows: { ...purge.rows, ...Object.fromEntries(more) } }];
  });
}

export function purgesReported(stores: readonly PurgesOfStore[], purged: readonly Purged[]): void {
  for (const { purger } of stores) purger.reported(purged);
}

const isSame = (a: Purged, b: Purged): boolean =>
  a.key === b.key && a.op === b.op && a.attempt === b.attempt;
