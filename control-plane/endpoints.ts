/** Every endpoint of the control plane, in the order in which `/docs` lists them. */
import { auditEndpoints } from "./api/audit.ts";
import { cellStageEndpoints } from "./api/cell-stage.ts";
import { cellStoreEndpoints } from "./api/cell-stores.ts";
import { cellEndpoints } from "./api/cells.ts";
import { claimEndpoints } from "./api/claims.ts";
import type { ApiContext } from "./api/context.ts";
import { drainEndpoints } from "./api/drain.ts";
import type { Endpoint } from "./api/endpoint.ts";
import { failoverEndpoints } from "./api/failover.ts";
import { flagEndpoints } from "./api/flags.ts";
import { keyspaceEndpoints } from "./api/keyspaces.ts";
import { leaseModeEndpoints } from "./api/lease-mode.ts";
import { machineAgentEndpoints } from "./api/machine-agent.ts";
import { machineRouterEndpoints } from "./api/machine-router.ts";
import { moveEndpoints } from "./api/moves.ts";
import { opEndpoints } from "./api/ops.ts";
import { overrideEndpoints } from "./api/overrides.ts";
import { queryEndpoints } from "./api/queries.ts";
import { rebalanceEndpoints } from "./api/rebalance.ts";
import { recoveryEndpoints } from "./api/recovery.ts";
import { routingEndpoints } from "./api/routing.ts";
import type { RoutingFeed } from "./api/routing-feed.ts";
import { safetyEndpoints } from "./api/safety.ts";
import { salvageEndpoints } from "./api/salvage.ts";
import { sloEndpoints } from "./api/slo.ts";
import { standbyEndpoints } from "./api/standbys.ts";
import { statusEndpoints } from "./api/status.ts";
import { tenantImportEndpoints } from "./api/tenant-import.ts";
import { tenantLifeEndpoints } from "./api/tenant-life.ts";
import { tenantEndpoints } from "./api/tenants.ts";
import { tokenEndpoints } from "./api/tokens.ts";

export const controlEndpoints = (context: ApiContext, feed: RoutingFeed): readonly Endpoint[] => [
  ...statusEndpoints(context),
  ...cellStageEndpoints(context),
  ...cellEndpoints(context),
  ...cellStoreEndpoints(context),
  ...drainEndpoints(context),
  ...leaseModeEndpoints(context),
  ...tenantEndpoints(context),
  ...tenantImportEndpoints(context),
  ...tenantLifeEndpoints(context),
  ...keyspaceEndpoints(context),
  ...overrideEndpoints(context),
  ...routingEndpoints(context),
  ...flagEndpoints(context),
  ...claimEndpoints(context),
  ...queryEndpoints(context),
  ...moveEndpoints(context),
  ...standbyEndpoints(context),
  ...failoverEndpoints(context),
  ...salvageEndpoints(context),
  ...safetyEndpoints(context),
  ...sloEndpoints(context),
  ...rebalanceEndpoints(context),
  ...opEndpoints(context),
  ...auditEndpoints(context),
  ...tokenEndpoints(context),
  ...recoveryEndpoints(context),
  ...machineRouterEndpoints(context, feed),
  ...machineAgentEndpoints(context, feed),
];
