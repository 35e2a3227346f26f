/** Overrides: tenant keys in keyspaces of slots or ranges, above their containers. */
import { and, asc, eq, gt, inArray, ne } from "drizzle-orm";
import type { Reader } from "./database.ts";
import type { PlacementRow } from "./placements.ts";
import { keyspace, placement } from "./schema.ts";

export async function listOverrides(
  reader: Reader,
  after: string,
  limit: number,
): Promise<PlacementRow[]> {
  // Asked for first: a directory of a million tenants must not be walked to find that it has none.
  const named = await reader
    .select({ name: keyspace.name })
    .from(keyspace)
    .where(ne(keyspace.strategy, "directory"));
  if (named.length === 0) return [];
  return reader
    .select()
    .from(placement)
    .where(
      and(
        inArray(
          placement.keyspace,
          named.map(({ name }) => name),
        ),
        eq(placement.kind, "tenant"),
        eq(placement.deleted, false),
        gt(placement.key, after),
      ),
    )
    .orderBy(asc(placement.key))
    .limit(limit);
}
