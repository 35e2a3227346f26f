/**
 * What a fleet is born with: its own id, the keyspace `default`, a vacant leader's seat. Repeating
 * it changes nothing: a fleet keeps its id for ever.
 */
import { defaultKeyspace } from "../../contract/ids.ts";
import type { TenantSource } from "../../contract/routing-table.ts";
import type { Random } from "../../runtime/random.ts";
import type { Tx } from "./database.ts";
import { fleet, keyspace, leader } from "./schema.ts";

/** A header, then a subdomain; `PUT /v1/routing` says otherwise. */
const defaultTenantSources: readonly TenantSource[] = [
  { header: "x-tenant-id" },
  { host: "{tenant}.localhost" },
];

export async function bootstrapFleet(tx: Tx, random: Random): Promise<void> {
  await tx
    .insert(fleet)
    .values({
      id: `fleet-${random.hex(8)}`,
      tenantSources: defaultTenantSources,
      serviceRoutes: [],
    })
    .onConflictDoNothing();
  await tx.insert(leader).values({}).onConflictDoNothing();
  await tx
    .insert(keyspace)
    .values({ name: defaultKeyspace, strategy: "directory", guardMode: "strict" })
    .onConflictDoNothing();
}
