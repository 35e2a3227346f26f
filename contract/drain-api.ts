/** Draining a cell: its tenants leave by live moves, all of them or a share by stable hash. */
import { z } from "zod";
import { intentSchema } from "./control-api.ts";
import { cellIdSchema } from "./ids.ts";
import { overrideSafetySchema } from "./safety-api.ts";

export const drainCellSchema = z.strictObject({
  /** Of its keys, by a hash that never changes: 10 percent are a part of 20 percent. */
  percent: z.number().int().min(1).max(100).default(100),
  /** Only there; absent: each key goes where placement would put it. */
  to: cellIdSchema.optional(),
  /** Moves at the same time. */
  parallelMax: z.number().int().min(1).max(32).default(4),
  /** After so long no further move is begun and the drain ends as failed; absent: it takes its time. */
  deadlineMs: z
    .number()
    .int()
    .min(1000)
    .max(30 * 24 * 3_600_000)
    .optional(),
  override: overrideSafetySchema,
  ...intentSchema.shape,
});
