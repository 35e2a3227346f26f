/** Tenants as rows: found, listed page by page, created. */
import { and, asc, eq, gt, gte, like, lt, sql } from "drizzle-orm";
import { type Tenant, tenantSchema } from "../../contract/control-api.ts";
import { CellError } from "../../contract/errors.ts";
import { didYouMean } from "../core/did-you-mean.ts";
import type { Candidate } from "../core/filters.ts";
import type { Reader, Tx } from "./database.ts";
import { placement, tenant } from "./schema.ts";
import { tombstone } from "./schema-adoption.ts";

export type TenantRow = typeof tenant.$inferSelect;
export type PlacedTenant = {
  readonly tenant: TenantRow;
  readonly placement: typeof placement.$inferSelect;
};

export async function findTenant(
  reader: Reader,
  id: string,
  keyspaceName?: string,
): Promise<PlacedTenant | undefined> {
  const [row] = await reader
    .select({ tenant, placement })
    .from(tenant)
    .innerJoin(placement, eq(placement.key, tenant.placementKey))
    .where(
      and(
        eq(tenant.id, id),
        keyspaceName === undefined ? undefined : eq(tenant.keyspace, keyspaceName),
      ),
    );
  return row;
}

/** TENANT_UNKNOWN, with the ids nearest to it. */
export async function tenantUnknown(reader: Reader, id: string): Promise<CellError> {
  const prefix = id.slice(0, 3);
  const rows = await reader
    .select({ id: tenant.id })
    .from(tenant)
    .where(and(gte(tenant.id, prefix), lt(tenant.id, `${prefix}\u{10FFFF}`)))
    .orderBy(asc(tenant.id))
    .limit(500);
  const near = didYouMean(
    id,
    rows.map((row) => row.id),
  );
  const isSpent = (await reader.$count(tombstone, eq(tombstone.tenant, id))) > 0;
  return new CellError(
    "TENANT_UNKNOWN",
    isSpent ? `The tenant ${id} was deleted.` : `There is no tenant ${id}.`,
    {
      nextSteps: isSpent
        ? [`cellctl tenant receipt ${id}`]
        : [...near.map((other) => `Did you mean ${other}?`), `cellctl tenant create ${id}`],
    },
  );
}

export type TenantFilter = {
  /** Tenants with an id above this. */
  readonly after: string;
  readonly limit: number;
  readonly cell?: string | undefined;
  readonly keyspace?: string | undefined;
  readonly prefix?: string | undefined;
  readonly label?: { readonly name: string; readonly value: string } | undefined;
};

export async function listTenants(reader: Reader, filter: TenantFilter): Promise<Tenant[]> {
  const { cell, keyspace, prefix, label } = filter;
  const rows = await reader
    .select({ tenant, placement })
    .from(tenant)
    .innerJoin(placement, eq(placement.key, tenant.placementKey))
    .where(
      and(
        gt(tenant.id, filter.after),
        cell === undefined ? undefined : servedBy(cell),
        keyspace === undefined ? undefined : eq(tenant.keyspace, keyspace),
        prefix === undefined ? undefined : like(tenant.id, `${likeText(prefix)}%`),
        label === undefined
          ? undefined
          : sql`${tenant.labels} @> ${JSON.stringify({ [label.name]: label.value })}::jsonb`,
      ),
    )
    .orderBy(asc(tenant.id))
    .limit(filter.limit);
  return rows.map(toTenant);
}

/** By the cell itself, or by an annex that is a part of it. */
const servedBy = (cell: string) =>
  sql`(${placement.cell} = ${cell} or ${placement.cell} in
        (select c.id from cellfleet_control.cell as c where c.annex_host = ${cell}))`;

const likeText = (raw: string): string => raw.replace(/[\\%_]/g, "\\$&");

export const insertTenant = (tx: Tx, row: typeof tenant.$inferInsert): Promise<unknown> =>
  tx.insert(tenant).values(row);

export const setPlacementKey = (tx: Tx, id: string, key: string): Promise<unknown> =>
  tx.update(tenant).set({ placementKey: key }).where(eq(tenant.id, id));

/** What placement weighs: the larger of declared and measured. */
export const candidateOf = (row: TenantRow): Candidate => ({
  tenant: row.id,
  tier: row.tier,
  region: row.region,
  bytes: Math.max(row.sizeBytes, row.measuredBytes),
  rps: Math.max(row.sizeRps, row.measuredRps),
  cell: null,
});

export const toTenant = (row: PlacedTenant): Tenant =>
  tenantSchema.parse({
    ...row.tenant,
    size: { bytes: row.tenant.sizeBytes, rps: row.tenant.sizeRps },
    measured: {
      rows: row.tenant.measuredRows,
      bytes: row.tenant.measuredBytes,
      rps: row.tenant.measuredRps,
    },
    placement: row.placement,
    createdAt: row.tenant.createdAt.toISOString(),
  });
