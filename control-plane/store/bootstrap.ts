/**
 * What a fleet is born with: its own id, the keyspace `default`, kinds of names, a vacant leader's
 * seat. Repeating it changes nothing: a fleet keeps its id for ever.
 */
import { defaultKeyspace } from "../../contract/ids.ts";
import type { TenantSource } from "../../contract/tenant-source.ts";
import type { Random } from "../../runtime/random.ts";
import { insertFirstNamespaces } from "./claim-namespaces.ts";
import type { Tx } from "./database.ts";
import { changeRouting } from "./routing-change.ts";
import { fleet, keyspace, leader } from "./schema.ts";

/** A header, then a subdomain; `PUT /v1/routing` says otherwise. */
const defaultTenantSources: readonly TenantSource[] = [
  { header: "x-tenant-id" },
  { host: "{tenant}.localhost" },
];

export async function bootstrapFleet(tx: Tx, random: Random): Promise<void> {
  const born = await tx
    .insert(fleet)
    .values({
      id: `fleet-${random.hex(8)}`,
      tenantSources: defaultTenantSources,
      serviceRoutes: [],
    })
    .onConflictDoNothing()
    .returning({ id: fleet.id });
  await tx.insert(leader).values({}).onConflictDoNothing();
  await tx
    .insert(keyspace)
    .values({ name: defaultKeyspace, strategy: "directory", guardMode: "strict" })
    .onConflictDoNothing();
  // Routers of a fleet that is older than names learn how names are hashed.
  if ((await insertFirstNamespaces(tx)) && born.length === 0) {
    await changeRouting(tx, { config: true });
  }
}
