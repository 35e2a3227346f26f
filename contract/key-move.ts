/** What is told of a running move where its keys are told. */
import { z } from "zod";
import { cellIdSchema, opIdSchema } from "./ids.ts";
import { moveEndsNoteSchema } from "./open-failover.ts";

/** The move that a key is part of, while it is open. */
export const keyMoveSchema = z.object({
  id: opIdSchema,
  step: z.string(),
  source: cellIdSchema,
  target: cellIdSchema,
  ...moveEndsNoteSchema.shape,
});
