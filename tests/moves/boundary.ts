/** What harness and stopping control plane say to each other. */
import { z } from "zod";
import { failoverSteps } from "../../contract/failover-api.ts";
import { moveSteps } from "../../contract/move-api.ts";

const when = z.enum(["before", "after"]);
/** Before or after the effect of a step of any operation of its kind. */
export const boundarySchema = z.discriminatedUnion("of", [
  z.object({ of: z.literal("move"), step: z.enum(moveSteps), when }),
  z.object({ of: z.literal("failover"), step: z.enum(failoverSteps), when }),
]);
export type Boundary = z.infer<typeof boundarySchema>;

export const orderSchema = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("stop-at"), at: boundarySchema }),
  z.object({ kind: z.literal("go-on") }),
]);
export type Order = z.infer<typeof orderSchema>;

export const reportSchema = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("started") }),
  z.object({ kind: z.literal("standing"), at: boundarySchema }),
]);
