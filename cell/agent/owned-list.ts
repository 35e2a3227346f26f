/**
 * The keys that are active here, a page at a time, for workers in any language that have no access
 * to the database: `GET /owned` on the admin port.
 *
 * Answered from memory, in no order: sorting a million keys would hold up every request at the gate.
 * A list that spans a reconnection to the database begins again: it may repeat keys, and leaves none out
 * that was active all the while.
 */

import { parsePlacementKey } from "../../contract/placement-key.ts";
import type { OwnershipCache } from "./ownership-cache.ts";

/** Of one store, or of all stores of the cell together. */
export type OwnedKeys = Pick<OwnershipCache, "get" | "order" | "generation">;

export type OwnedPage = {
  readonly items: readonly {
    readonly key: string;
    readonly keyspace: string;
    /** Of a key that is a tenant; absent for ranges and slots. */
    readonly tenant?: string;
    readonly epoch: number;
  }[];
  readonly next: string | null;
};

export const pageDefault = 1000;
export const pageMax = 10_000;
/** Keys looked at for one page, so that a cell whose tenants have left does not block the process. */
const scanMax = 100_000;

/** Undefined: `cursor` is none of ours. */
export function listOwned(
  cache: OwnedKeys,
  asked: { readonly keyspace: string | undefined; readonly cursor: string; readonly limit: number },
): OwnedPage | undefined {
  const from = parseCursor(asked.cursor, cache);
  if (from === undefined) return undefined;
  const prefix = asked.keyspace === undefined ? "" : `${asked.keyspace}/`;
  const { order } = cache;
  const end = Math.min(order.length, from + scanMax);
  const items: OwnedPage["items"][number][] = [];
  let at = from;
  for (; at < end && items.length < asked.limit; at += 1) {
    const key = order[at] ?? "";
    const placement = cache.get(key);
    if (placement?.state !== "active" || !key.startsWith(prefix)) continue;
    const parts = parsePlacementKey(key);
    if (parts === undefined) continue;
    items.push({
      key,
      keyspace: parts.keyspace,
      ...(parts.kind === "tenant" ? { tenant: parts.tenant } : {}),
      epoch: placement.epoch,
    });
  }
  return { items, next: at < order.length ? `${cache.generation}.${at}` : null };
}

/** Where to go on; the start for a cursor of an earlier connection. */
function parseCursor(cursor: string, cache: OwnedKeys): number | undefined {
  if (cursor === "") return 0;
  const [, generation, at] = /^(\d{1,12})\.(\d{1,12})$/.exec(cursor) ?? [];
  if (generation === undefined || at === undefined) return undefined;
  return Number(generation) === cache.generation ? Number(at) : 0;
}
