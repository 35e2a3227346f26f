/** POST /v1/cells/{id}/lease-mode: how the leases of a cell end (contract/lease-mode.ts). */
import { z } from "zod";
import { intentSchema } from "./control-api.ts";
import { cellIdSchema } from "./ids.ts";
import { leaseModes } from "./lease-mode.ts";

export const setLeaseModeSchema = intentSchema.extend({
  mode: z.enum(leaseModes),
  reason: z.string().min(1).max(500),
});

export const leaseModeSetSchema = z.object({
  id: cellIdSchema,
  mode: z.enum(leaseModes),
  /** False: the cell has not acknowledged it yet; until then it counts as manual. */
  settled: z.boolean(),
  next_steps: z.array(z.string()),
});
