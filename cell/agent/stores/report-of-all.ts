/**
 * A page of all keys of a cell with several stores, for the report that a restored control plane asks
 * for (corrections A5).
 *
 * Always true: a key that any store has is told once, with the highest epoch that any store has of it,
 * and at that epoch with the state that is furthest along.
 */
import type { OwnershipState } from "../../../contract/cell-protocol.ts";
import type { OwnedKey } from "../../store/ownership.ts";

export type ReadKeys = (afterKey: string, limit: number) => Promise<readonly OwnedKey[]>;

/** As databases order the states of one command (cell/sql/060-ownership.sql). */
const order: readonly OwnershipState[] = ["importing", "active", "fenced", "moved", "dropped"];

export async function readKeysOfAll(
  stores: readonly ReadKeys[],
  afterKey: string,
  limit: number,
): Promise<readonly OwnedKey[]> {
  const pages = await Promise.all(stores.map((read) => read(afterKey, limit)));
  const [first] = pages;
  if (first !== undefined && pages.length === 1) return first;
  const keys = new Map<string, OwnedKey>();
  for (const row of pages.flat()) {
    const known = keys.get(row.key);
    if (known === undefined || isLater(row, known)) keys.set(row.key, row);
  }
  // The first `limit` of all lie within the first `limit` of each, so no page's end is passed.
  return [...keys.values()].toSorted(byBytes).slice(0, limit);
}

function isLater(a: OwnedKey, b: OwnedKey): boolean {
  if (a.epoch !== b.epoch) return a.epoch > b.epoch;
  return order.indexOf(a.state) > order.indexOf(b.state);
}

/** Keys are ASCII: UTF-16 units compare as the database's bytes do. */
const byBytes = (a: OwnedKey, b: OwnedKey): number => (a.key < b.key ? -1 : Number(a.key > b.key));
