/** Ranges of standby buckets (contract/placement-key.ts): split evenly, and what of them is covered. */
import { bucketCount } from "../../../contract/placement-key.ts";

/** Both belong to it. */
export type Buckets = { readonly lo: number; readonly hi: number };

/** `parts` contiguous ranges over all buckets, in order, equal to within one bucket. */
export const splitBuckets = (parts: number): readonly Buckets[] =>
  Array.from({ length: parts }, (_, part) => ({
    lo: Math.ceil((part * bucketCount) / parts),
    hi: Math.ceil(((part + 1) * bucketCount) / parts) - 1,
  }));

export const isSameRange = (a: Buckets, b: Buckets): boolean => a.lo === b.lo && a.hi === b.hi;

export const bucketsIn = ({ lo, hi }: Buckets): number => hi - lo + 1;

/** Part of a cell's keys that lie in the range, where keys spread evenly. */
export const shareOf = (range: Buckets): number => bucketsIn(range) / bucketCount;

export type Coverage = ReadonlySet<number>;

export function coverageOf(ranges: readonly Buckets[]): Coverage {
  const covered = new Set<number>();
  for (const { lo, hi } of ranges) {
    for (let bucket = lo; bucket <= hi; bucket += 1) covered.add(bucket);
  }
  return covered;
}

export function isCovered({ lo, hi }: Buckets, coverage: Coverage): boolean {
  for (let bucket = lo; bucket <= hi; bucket += 1) if (!coverage.has(bucket)) return false;
  return true;
}
