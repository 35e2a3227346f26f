/**
 * Recovery after a restore, as the control API shows it: what is waited for, and the one thing that
 * an operator may decide.
 */
import { z } from "zod";
import { intentSchema } from "./control-api.ts";
import { cellIdSchema } from "./ids.ts";

export const recoverySchema = z.object({
  mode: z.enum(["normal", "recovering"]),
  step: z.enum(["none", "collecting", "fencing"]),
  /** What is waited for, in one sentence. */
  text: z.string(),
  cells: z.array(
    z.object({
      cell: z.string(),
      /** Of a standby, which stands in `cell`: its id. */
      annex: z.string().optional(),
      /**
       * `frozen`: recovery goes, or went, on without it; its keys are unavailable, and so are those of cells that
       * it may have taken over from. `lost`: it was given up, and those are their former owners' again.
       */
      state: z.enum(["awaited", "reported", "frozen", "lost"]),
      /** Keys reported. */
      claims: z.number(),
      reason: z.string(),
    }),
  ),
  next_steps: z.array(z.string()),
});

/**
 * `freeze`: go on without a cell that does not return. Its keys stay unavailable until it does. `give-up`: of one
 * that is frozen: what it, and the standbys in it, may have acknowledged since the backup is given up.
 */
export const resolveRecoverySchema = intentSchema.extend({
  cell: cellIdSchema,
  action: z.enum(["freeze", "give-up"]),
  reason: z.string().min(1).max(500),
});

/**
 * Lets a quarantined cell back, `cordoned`: a person has looked at its database and vouches for it as
 * it is. What was known of its incarnation is forgotten; ownership is told to it anew.
 */
export const readmitCellSchema = intentSchema.extend({
  reason: z.string().min(1).max(500),
  /** Of a cell with manual leases, which do not end by themselves: every other copy is powered off. */
  otherCopiesOff: z.boolean().optional(),
});
export const readmittedSchema = z.object({
  id: cellIdSchema,
  state: z.literal("cordoned"),
  next_steps: z.array(z.string()),
});
