/** What is told of a failover where its cell and its keys are told. */
import { z } from "zod";

/** Of a cell, while it is open. */
export const openFailoverSchema = z.object({ id: z.string(), step: z.string(), mode: z.string() });

export const cellFailoverSchema = z.object({ cell: z.string(), ...openFailoverSchema.shape });

/** A place that is named by its host: the annex itself, and whose standby it is (contract/annex.ts). */
export const annexNoteSchema = z.object({ id: z.string(), origin: z.string() });

/** Beside the ends of a move, each of which may be an annex. */
export const moveEndsNoteSchema = z.object({
  sourceAnnex: annexNoteSchema.optional(),
  targetAnnex: annexNoteSchema.optional(),
});

/** Beside the owner of a key. */
export const ownerNoteSchema = z.object({
  /** `cell` is the host of this annex (contract/annex.ts). */
  annex: z.string().optional(),
  /** Nobody serves it now: why, and what can be done. */
  unserved: z.object({ reason: z.string(), next_steps: z.array(z.string()) }).optional(),
});
