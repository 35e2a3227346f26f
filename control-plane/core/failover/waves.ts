/**
 * In which order a dead cell's keys are given to annexes: canaries of each annex first, then by tier, in
 * waves that grow while nothing goes wrong. A function of what is left, so whoever takes over plans anew
 * and gets the same order.
 *
 * What must always be true: every key that has an annex is in exactly one wave.
 */
import type { Tier } from "../fleet.ts";

export type AdoptableKey = {
  readonly key: string;
  readonly epoch: number;
  /** Where a whole copy of it is that may be used; null: nowhere. */
  readonly annex: string | null;
  /** Why nowhere. */
  readonly reason: string;
  readonly tier: Tier;
  /** Labelled as one that may be tried first. */
  readonly canary: boolean;
  readonly bytes: number;
};

export type WaveLimits = {
  readonly canariesPerAnnex: number;
  readonly first: number;
  readonly growth: number;
  readonly most: number;
};
/** Each wave waits for the one before, and tenants with it: what canaries did not show, traffic tells (suspects.ts). */
export const waveLimits: WaveLimits = { canariesPerAnnex: 2, first: 128, growth: 4, most: 5000 };

const tierOrder: readonly Tier[] = ["gold", "standard", "free"];

export type Placed = AdoptableKey & { readonly annex: string };

/** `done`: waves that were adopted already, canaries among them. */
export function planWaves(
  keys: readonly AdoptableKey[],
  done: number,
  limits: WaveLimits = waveLimits,
): readonly Placed[][] {
  const placed = keys.filter((one): one is Placed => one.annex !== null).toSorted(byTurn);
  if (placed.length === 0) return [];
  const canaries = done === 0 ? canariesOf(placed, limits.canariesPerAnnex) : [];
  const first = new Set(canaries.map(({ key }) => key));
  const rest = placed.filter(({ key }) => !first.has(key));
  const waves: Placed[][] = canaries.length === 0 ? [] : [canaries];
  // A takeover goes on at the size that had been reached.
  let size = limits.first * limits.growth ** Math.max(0, done - 1);
  for (let at = 0; at < rest.length; ) {
    const count = Math.max(1, Math.min(size, limits.most));
    waves.push(rest.slice(at, at + count));
    at += count;
    size = Math.min(size * limits.growth, limits.most);
  }
  return waves;
}

/** Of each annex those that are labelled, else the smallest. */
function canariesOf(placed: readonly Placed[], perAnnex: number): Placed[] {
  const byAnnex = Map.groupBy(placed, ({ annex }) => annex);
  return [...byAnnex.keys()].sort(compareNames).flatMap((annex) => {
    const own = byAnnex.get(annex) ?? [];
    const labelled = own.filter(({ canary }) => canary);
    const candidates = labelled.length > 0 ? labelled : own.toSorted(bySize);
    return candidates.slice(0, perAnnex);
  });
}

const bySize = (a: Placed, b: Placed): number => a.bytes - b.bytes || byKey(a, b);

function byTurn(a: Placed, b: Placed): number {
  return tierOrder.indexOf(a.tier) - tierOrder.indexOf(b.tier) || byKey(a, b);
}

const byKey = (a: Placed, b: Placed): number => Number(a.key > b.key) - Number(a.key < b.key);

const compareNames = (a: string, b: string): number => Number(a > b) - Number(a < b);
