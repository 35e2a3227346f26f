/** Overrides: tenant keys in keyspaces of slots or ranges, above their containers. */
import { and, asc, eq, gt, ne } from "drizzle-orm";
import type { Reader } from "./database.ts";
import type { PlacementRow } from "./placements.ts";
import { keyspace, placement } from "./schema.ts";

export async function listOverrides(
  reader: Reader,
  after: string,
  limit: number,
): Promise<PlacementRow[]> {
  const rows = await reader
    .select({ placement })
    .from(placement)
    .innerJoin(keyspace, eq(keyspace.name, placement.keyspace))
    .where(
      and(
        ne(keyspace.strategy, "directory"),
        eq(placement.kind, "tenant"),
        eq(placement.deleted, false),
        gt(placement.key, after),
      ),
    )
    .orderBy(asc(placement.key))
    .limit(limit);
  return rows.map((row) => row.placement);
}
