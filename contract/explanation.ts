/**
 * The answer to "why is this tenant where it is, and where would it go?": every candidate, every rule,
 * yes or no. It is what the placing code itself computed, not a second opinion.
 */
import { z } from "zod";
import { keyMoveSchema } from "./key-move.ts";
import { ownerNoteSchema } from "./open-failover.ts";

export const deciderSchema = z.object({
  name: z.string(),
  decision: z.enum(["yes", "no", "throttle"]),
  reason: z.string(),
  text: z.string(),
});
export const explanationSchema = z.object({
  tenant: z.string(),
  keyspace: z.string(),
  /** Null for a tenant that does not exist yet (what-if). */
  current: z
    .object({
      key: z.string(),
      cell: z.string(),
      annex: ownerNoteSchema.shape.annex,
      epoch: z.number(),
      state: z.string(),
      revision: z.number(),
    })
    .nullable(),
  move: keyMoveSchema.optional(),
  unserved: ownerNoteSchema.shape.unserved,
  decision: z.enum(["stay", "place", "blocked"]),
  text: z.string(),
  candidates: z.array(
    z.object({
      cell: z.string(),
      decision: z.enum(["yes", "no"]),
      score: z.number(),
      deciders: z.array(deciderSchema),
    }),
  ),
  would_change_if: z.array(z.string()),
});
export type Explanation = z.infer<typeof explanationSchema>;
