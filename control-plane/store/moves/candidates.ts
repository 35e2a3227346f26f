/** What can be moved, as it is asked for: tenants by id or label, keys, and what they weigh. */
import { and, asc, eq, inArray, sql } from "drizzle-orm";
import type { Reader } from "../database.ts";
import { placement, tenant } from "../schema.ts";

type PlacementRow = typeof placement.$inferSelect;
export type FoundTenant = { readonly id: string; readonly placement: PlacementRow };

const found = { id: tenant.id, placement };

export const tenantsById = (
  reader: Reader,
  ids: readonly string[],
  keyspaceName: string | undefined,
): Promise<FoundTenant[]> =>
  reader
    .select(found)
    .from(tenant)
    .innerJoin(placement, eq(placement.key, tenant.placementKey))
    .where(
      and(
        inArray(tenant.id, [...ids]),
        keyspaceName === undefined ? undefined : eq(tenant.keyspace, keyspaceName),
      ),
    )
    .orderBy(asc(tenant.id));

export type TenantChoice = {
  /** By name: `tier` and `region` are the tenant's own, all others are labels. */
  readonly labels: ReadonlyMap<string, string>;
  readonly keyspace: string | undefined;
  readonly from: string | undefined;
  readonly limit: number;
};

export function tenantsLabelled(reader: Reader, choice: TenantChoice): Promise<FoundTenant[]> {
  const { tier, region, ...labels } = Object.fromEntries(choice.labels);
  return reader
    .select(found)
    .from(tenant)
    .innerJoin(placement, eq(placement.key, tenant.placementKey))
    .where(
      and(
        tier === undefined ? undefined : sql`${tenant.tier} = ${tier}`,
        region === undefined ? undefined : eq(tenant.region, region),
        Object.keys(labels).length === 0
          ? undefined
          : sql`${tenant.labels} @> ${JSON.stringify(labels)}::jsonb`,
        choice.keyspace === undefined ? undefined : eq(tenant.keyspace, choice.keyspace),
        choice.from === undefined ? undefined : eq(placement.cell, choice.from),
      ),
    )
    .orderBy(asc(tenant.id))
    .limit(choice.limit);
}

/** Placements that are not tombstones. */
export const placementsByKey = (
  reader: Reader,
  keys: readonly string[],
): Promise<PlacementRow[]> =>
  keys.length === 0
    ? Promise.resolve([])
    : reader
        .select()
        .from(placement)
        .where(and(inArray(placement.key, [...keys]), eq(placement.deleted, false)));

export type KeyLoad = {
  readonly key: string;
  readonly tier: (typeof tenant.$inferSelect)["tier"];
  readonly region: string | null;
  readonly tenants: number;
  readonly bytes: number;
  readonly rps: number;
  readonly bytesLargest: number;
  readonly rpsLargest: number;
};

/** What stands under each key, by tier and region; a key without tenants has no line. */
export const loadsUnder = (reader: Reader, keys: readonly string[]): Promise<KeyLoad[]> =>
  keys.length === 0
    ? Promise.resolve([])
    : reader
        .select({
          ...{ key: tenant.placementKey, tier: tenant.tier, region: tenant.region },
          tenants: sql<number>`count(*)::int`,
          bytes: sql<number>`sum(greatest(${tenant.sizeBytes}, ${tenant.measuredBytes}))::float8`,
          rps: sql<number>`sum(greatest(${tenant.sizeRps}, ${tenant.measuredRps}))::float8`,
          bytesLargest: sql<number>`max(greatest(${tenant.sizeBytes}, ${tenant.measuredBytes}))::float8`,
          rpsLargest: sql<number>`max(greatest(${tenant.sizeRps}, ${tenant.measuredRps}))::float8`,
        })
        .from(tenant)
        .where(inArray(tenant.placementKey, [...keys]))
        .groupBy(tenant.placementKey, tenant.tier, tenant.region);
