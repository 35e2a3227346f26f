/**
 * What of the routing table always travels whole: where requests name their tenant, keyspaces, cells
 * and their services, how names are hashed.
 */
import type pg from "pg";
import { z } from "zod";
import { keyspaceNameSchema } from "../../contract/ids.ts";
import { type RouterKey, routerKeySchema, routerKeysMax } from "../../contract/router-key.ts";
import { globalServicesSchema, guardModes, strategies } from "../../contract/routing-table.ts";
import { serviceRouteSchema } from "../../contract/service-route.ts";
import type { TableLists } from "../../contract/table-checksum.ts";
import { tenantSourceSchema } from "../../contract/tenant-source.ts";
import { trafficPolicySchema } from "../../contract/traffic-policy.ts";
import { handoverSteps } from "../core/failover/failover-state.ts";
import { type AgentRow, type CellRow, routedCells } from "../core/routing-view.ts";

const fleetListsSchema = z.object({
  tenant_sources: z.array(tenantSourceSchema),
  service_routes: z.array(serviceRouteSchema),
  global_services: globalServicesSchema,
  policy: trafficPolicySchema,
  alias_salt: z.string(),
});
const keyspacesSchema = z.array(
  z
    .object({
      name: keyspaceNameSchema,
      strategy: z.enum(strategies),
      slot_count: z.number().nullable(),
      guard_mode: z.enum(guardModes),
    })
    .transform(({ name, strategy, slot_count, guard_mode }) => ({
      name,
      strategy,
      guardMode: guard_mode,
      ...(slot_count === null ? {} : { slotCount: slot_count }),
    })),
);

/** In an order of their own: when a router called last must not show in the table. */
const readKeys = (rows: readonly unknown[]): RouterKey[] =>
  z
    .array(routerKeySchema)
    .parse(rows)
    .sort((a, b) => Number(a.id > b.id) - Number(a.id < b.id));

export async function readLists(client: pg.PoolClient): Promise<TableLists> {
  const fleet = await client.query(
    "select tenant_sources, service_routes, global_services, policy, alias_salt from cellfleet_control.fleet",
  );
  const keyspaces = await client.query(
    "select name, strategy, slot_count, guard_mode from cellfleet_control.keyspace order by name",
  );
  const cells = await client.query<CellRow>(
    `select c.id, c.region, c.services, c.stage, c.annex_host as host, c.halted,
            c.halted and exists (
              select from cellfleet_control.failover f join cellfleet_control.op o on o.id = f.op
               where f.cell = c.id and o.state = 'running' and o.step = any($1)) as handover
       from cellfleet_control.cell c where c.state <> 'retired' order by c.id`,
    [handoverSteps],
  );
  const agents = await client.query<AgentRow>(
    "select cell, endpoint, services from cellfleet_control.agent order by cell, instance",
  );
  const namespaces = await client.query<{ name: string; fold: boolean }>(
    "select name, fold from cellfleet_control.claim_namespace where routed order by name",
  );
  const routers = await client.query(
    `select r.id as router, k ->> 'id' as id, k ->> 'spki' as spki
       from cellfleet_control.router as r, jsonb_array_elements(r.keys) with ordinality as e(k, nth)
      order by r.seen_at desc, r.id, nth limit $1`,
    [routerKeysMax],
  );
  const { tenant_sources, service_routes, global_services, policy, alias_salt } =
    fleetListsSchema.parse(fleet.rows[0]);
  return {
    tenantSources: tenant_sources,
    serviceRoutes: service_routes,
    keyspaces: keyspacesSchema.parse(keyspaces.rows),
    cells: [...routedCells(cells.rows, agents.rows)],
    // Also when it is empty: that is how a delta says that the last one is gone.
    globalServices: global_services,
    policy,
    routerKeys: readKeys(routers.rows),
    aliasing: { salt: alias_salt, namespaces: namespaces.rows },
  };
}
