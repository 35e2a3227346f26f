/** Events: one sentence each about what happened in the fleet, for people who watch. */
import { z } from "zod";

export const eventSchema = z.object({
  id: z.number(),
  at: z.string().max(40),
  kind: z.string(),
  object: z.string(),
  /** Of an object that is a standby: whose, and where. */
  standby: z.object({ origin: z.string(), host: z.string() }).optional(),
  text: z.string(),
});
export type FleetEvent = z.infer<typeof eventSchema>;
