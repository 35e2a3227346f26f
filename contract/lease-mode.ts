/**
 * How a cell's leases end. `timed`: by themselves, and whoever takes over waits them out. `manual`: the cell
 * gives itself the next one for as long as the control plane is silent, so only an operator who has seen its
 * machine powered off may let others take its keys.
 *
 * A change is numbered: what a cell's database knows is never replaced by an older word, and a cell counts
 * as manual until it has acknowledged the word that says `timed`.
 */
import { z } from "zod";

export const leaseModes = ["timed", "manual"] as const;
export type LeaseMode = (typeof leaseModes)[number];

export const leaseModeWordSchema = z.object({
  mode: z.enum(leaseModes),
  /** 0: nobody has said anything; it is timed. */
  number: z.number().int().min(0).max(1_000_000_000_000),
});
export type LeaseModeWord = z.infer<typeof leaseModeWordSchema>;

/** Of a cell that was told nothing, and of an agent of an earlier release. */
export const timedFromBirth: LeaseModeWord = { mode: "timed", number: 0 };

/** No lease that a cell gives itself lasts longer, and none that it is granted while it counts as manual. */
export const manualLeaseMsMax = 10_000;
