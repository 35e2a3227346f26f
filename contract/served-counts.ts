/** What routers and agents count of requests, for service level objectives. */
import { z } from "zod";
import { cellIdSchema, keyspaceNameSchema, tenantIdSchema } from "./ids.ts";

export const serviceNameSchema = z.string().min(1).max(40);

/**
 * What a router has counted of one service of a cell since its process began: the last one says all, so none
 * that is lost or comes twice does harm.
 */
export const servedCountSchema = z.object({
  /** As people count cells: an annex is part of its host. */
  cell: cellIdSchema,
  service: serviceNameSchema,
  requests: z.number().int().min(0),
  failures: z.number().int().min(0),
});
export type ServedCount = z.infer<typeof servedCountSchema>;
export const servedCountsMax = 2000;

/** Tenants of a batch; those above it are in the next. */
export const outcomesMax = 2000;

/** What an agent let in since its last report; the same batch again until it is answered. */
export const outcomeBatchSchema = z.object({
  /** Of this instance, from 1: each counts once. */
  number: z.number().int().min(1),
  tenants: z
    .array(
      z.object({
        keyspace: keyspaceNameSchema,
        tenant: tenantIdSchema,
        service: serviceNameSchema,
        requests: z.number().int().min(1),
        failures: z.number().int().min(0),
      }),
    )
    .max(outcomesMax),
});
export type OutcomeBatch = z.infer<typeof outcomeBatchSchema>;
