/**
 * Which rows of a table belong to a range of buckets, as a condition that PostgreSQL accepts as the row
 * filter of a publication. Pure.
 *
 * What must always be true: it agrees with `bucketOf` of the placement key that a row belongs to, whatever
 * the key's kind; over all partners of a cell each row is in exactly one filter. A filter never changes
 * while its stream lives: rows that a wider one took in would not be copied by anybody.
 */
import { bucketCount, bucketsOf, slotOf } from "../contract/placement-key.ts";
import type { RoutedKeyspace } from "../contract/routing-table.ts";
import { type FilterColumn, slotNumber } from "../moving/filters.ts";
import type { BucketRange } from "./ports.ts";

/** `all`: of ranges, whose bounds move, the whole keyspace goes to one partner. */
export type BucketFilter =
  | { readonly kind: "all" }
  | { readonly kind: "none" }
  | { readonly kind: "some"; readonly where: string };

type Split = Pick<RoutedKeyspace, "name" | "strategy" | "slotCount">;

export function bucketFilter(
  keyspace: Split,
  { lo, hi }: BucketRange,
  column: FilterColumn,
): BucketFilter {
  if (keyspace.strategy === "range") {
    const bucket = slotOf(keyspace.name, bucketCount);
    return bucket >= lo && bucket <= hi ? { kind: "all" } : { kind: "none" };
  }
  const count = bucketsOf(keyspace);
  if (lo >= count || hi < lo) return { kind: "none" };
  if (lo === 0 && hi >= count - 1) return { kind: "all" };
  return { kind: "some", where: `${slotNumber(count, column)} between ${lo} and ${hi}` };
}
