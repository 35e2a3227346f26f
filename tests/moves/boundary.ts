/** What harness and stopping control plane say to each other. */
import { z } from "zod";
import { moveSteps } from "../../contract/move-api.ts";

export const boundarySchema = z.object({
  op: z.string(),
  step: z.enum(moveSteps),
  when: z.enum(["before", "after"]),
});
export type Boundary = z.infer<typeof boundarySchema>;

export const orderSchema = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("stop-at"), at: boundarySchema.omit({ op: true }) }),
  z.object({ kind: z.literal("go-on") }),
]);
export type Order = z.infer<typeof orderSchema>;

export const reportSchema = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("started") }),
  z.object({ kind: z.literal("standing"), at: boundarySchema }),
]);
