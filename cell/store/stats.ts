/** Rows and bytes per tenant. Large tables are sampled: a tenant with few rows there may be missed. */
import { z } from "zod";
import type { Queryable } from "./queryable.ts";

const tenantSizeSchema = z.object({
  keyspace: z.string(),
  tenant: z.string(),
  rows: z.number(),
  bytes: z.number(),
});
export type TenantSize = z.infer<typeof tenantSizeSchema>;

/** `pagesMax`: pages of 8 kB read per table; above it a sample is taken. */
export async function readTenantSizes(client: Queryable, pagesMax = 20_000): Promise<TenantSize[]> {
  const { rows } = await client.query<{ size: unknown }>(
    `select jsonb_build_object('keyspace', keyspace, 'tenant', tenant,
                               'rows', row_count, 'bytes', byte_count) as size
       from cellfleet.stats($1)`,
    [pagesMax],
  );
  return rows.map((row) => tenantSizeSchema.parse(row.size));
}
