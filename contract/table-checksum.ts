/**
 * The checksum of a routing table: 64 bits, independent of order, kept up to date change by change.
 *
 * It finds drift (a router that missed a change, a publisher that lost one); it is no protection
 * against an attacker, that is what signatures are for. A cryptographic digest would have to be
 * computed over the whole table after each change, a second for a million placements; a sum of small
 * mixes costs the changed entries alone. Two lanes of 32 bits, because JavaScript multiplies 32-bit
 * integers exactly and fast. Sums, not XOR: an entry counted twice must not cancel itself.
 */
import { z } from "zod";
import { routerKeysSchema } from "./router-key.ts";
import {
  aliasingSchema,
  globalServicesSchema,
  routedCellSchema,
  routedKeyspaceSchema,
  type SnapshotHead,
} from "./routing-table.ts";
import { serviceRouteSchema } from "./service-route.ts";
import { tenantSourceSchema } from "./tenant-source.ts";
import { trafficPolicySchema } from "./traffic-policy.ts";

/** Two lanes, each a 32-bit integer. */
export type Sum = readonly [number, number];
export const emptySum: Sum = [0, 0];

export const addSums = (a: Sum, b: Sum): Sum => [(a[0] + b[0]) | 0, (a[1] + b[1]) | 0];
export const subtractSums = (a: Sum, b: Sum): Sum => [(a[0] - b[0]) | 0, (a[1] - b[1]) | 0];

const hex = (lane: number): string => (lane >>> 0).toString(16).padStart(8, "0");
export const sumText = (sum: Sum): string => hex(sum[0]) + hex(sum[1]);

/** The finaliser of MurmurHash3: each input bit flips each output bit with probability one half. */
function finish(lane: number): number {
  let h = lane;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return h ^ (h >>> 16);
}

/**
 * Sums texts that begin alike: what is the same for a whole group of placements is mixed once. Two lanes
 * with different seeds and multipliers, so that a collision in one is none in the other.
 */
export function createMixer(prefix: string): (rest: string) => Sum {
  const a = mixA(0x2545f491, prefix);
  const b = mixB(0x6c078965, prefix);
  return (rest) => [finish(mixA(a, rest) ^ rest.length), finish(mixB(b, rest))];
}

function mixA(start: number, text: string): number {
  let a = start;
  for (let index = 0; index < text.length; index += 1) {
    a = Math.imul(a ^ text.charCodeAt(index), 0x9e3779b1);
    a ^= a >>> 15;
  }
  return a;
}

function mixB(start: number, text: string): number {
  let b = start;
  for (let index = 0; index < text.length; index += 1) {
    b = Math.imul(b + text.charCodeAt(index), 0x5f356495) ^ (b >>> 13);
  }
  return b;
}

/** The lists of a table that always travel whole. */
export type TableLists = Pick<
  SnapshotHead,
  | "tenantSources"
  | "serviceRoutes"
  | "keyspaces"
  | "cells"
  | "globalServices"
  | "aliasing"
  | "policy"
  | "routerKeys"
>;

const listsSchema = z.object({
  tenantSources: z.array(tenantSourceSchema),
  serviceRoutes: z.array(serviceRouteSchema),
  keyspaces: z.array(routedKeyspaceSchema),
  cells: z.array(routedCellSchema),
  globalServices: globalServicesSchema.optional(),
  aliasing: aliasingSchema.optional(),
  policy: trafficPolicySchema.optional(),
  routerKeys: routerKeysSchema.optional(),
});

/**
 * Lists are read through their schemas first: a publisher that holds more fields than the wire
 * carries must arrive at the same sum as a router that only saw the wire.
 */
export function mixLists(lists: TableLists): Sum {
  const parsed = listsSchema.parse(lists);
  const { globalServices = {}, policy = {}, routerKeys = [], ...rest } = parsed;
  const byName = {
    ...rest,
    // None is as good as an empty list: tables from before there were any keep their sum.
    ...(Object.keys(globalServices).length === 0 ? {} : { globalServices }),
    ...(Object.keys(policy).length === 0 ? {} : { policy }),
    ...(routerKeys.length === 0 ? {} : { routerKeys }),
    keyspaces: [...parsed.keyspaces].sort((a, b) => compare(a.name, b.name)),
    // A hint, newer than some routers: who does not know it must arrive at the same sum.
    cells: parsed.cells.map(({ handover: _, ...cell }) => cell).sort((a, b) => compare(a.id, b.id)),
  };
  return createMixer("lists ")(canonical(byName));
}

const compare = (a: string, b: string): number => Number(a > b) - Number(a < b);

/** JSON with sorted keys, so that the order in which an object was built does not show. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_key, inner: unknown) =>
    typeof inner === "object" && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => compare(a, b)))
      : inner,
  );
}
