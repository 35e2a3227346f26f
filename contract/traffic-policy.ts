/** How traffic is treated beyond where it goes: limits of tenants, feature flags, rings of cells. */
import { z } from "zod";
import { cellIdSchema } from "./ids.ts";

/** What one tenant may take of one router; absent fields are not limited. */
export const tenantLimitSchema = z.strictObject({
  /** Requests of the tenant that are under way in a router. */
  inFlightMax: z.number().int().min(0).max(1_000_000).optional(),
  /** On average, per router; `burst` may come at once (default: as many as in one second). */
  perSecond: z.number().min(0.01).max(1_000_000).optional(),
  burst: z.number().int().min(1).max(1_000_000).optional(),
});
export type TenantLimit = z.infer<typeof tenantLimitSchema>;

export const policyNameSchema = z.string().regex(/^[a-z0-9][a-z0-9._-]{0,62}$/);

/** A feature flag: on for the tenants, cells and rings that it names, or everywhere. */
export const featureFlagSchema = z.strictObject({
  everywhere: z.boolean().optional(),
  /** `acme` of the default keyspace, or `KEYSPACE/acme`. */
  tenants: z.array(z.string().min(1).max(170)).max(10_000).optional(),
  cells: z.array(cellIdSchema).max(1000).optional(),
  rings: z.array(policyNameSchema).max(100).optional(),
});
export type FeatureFlag = z.infer<typeof featureFlagSchema>;

/** How traffic is treated beyond where it goes: limits of tenants, feature flags, rings of cells. */
export const trafficPolicySchema = z.strictObject({
  tenantLimits: z
    .strictObject({
      /** Of each tenant that is not named below. */
      default: tenantLimitSchema.optional(),
      /** By `acme` of the default keyspace, or `KEYSPACE/acme`. */
      tenants: z.record(z.string().min(1).max(170), tenantLimitSchema).optional(),
    })
    .optional(),
  /** The application reads the names of those that are on in one header, `x-cellfleet-flags`. */
  flags: z.record(policyNameSchema, featureFlagSchema).optional(),
  /** Groups of cells that get changes one after the other. */
  rings: z.record(policyNameSchema, z.array(cellIdSchema).max(1000)).optional(),
});
export type TrafficPolicy = z.infer<typeof trafficPolicySchema>;
