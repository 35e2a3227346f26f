/** The routing rules, as an operator reads and replaces them. */
import { z } from "zod";
import { intentSchema } from "./control-api.ts";
import { cellIdSchema } from "./ids.ts";
import { globalServicesSchema } from "./routing-table.ts";
import { serviceRouteSchema } from "./service-route.ts";
import { tenantSourceSchema } from "./tenant-source.ts";
import { featureFlagSchema, policyNameSchema, trafficPolicySchema } from "./traffic-policy.ts";

export const routingSchema = z.strictObject({
  tenantSources: z.array(tenantSourceSchema).min(1),
  serviceRoutes: z.array(serviceRouteSchema),
  /** Absent means as they are. */
  globalServices: globalServicesSchema.optional(),
  /** Limits of tenants, feature flags, rings; absent means as they are. */
  policy: trafficPolicySchema.optional(),
  ...intentSchema.shape,
});

export const flagSchema = z.object({ id: policyNameSchema, ...featureFlagSchema.shape });

export const ringSchema = z.object({ id: policyNameSchema, cells: z.array(cellIdSchema) });
