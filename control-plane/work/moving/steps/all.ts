/** What is done at each step. A step without an effect is an end, or waits for its turn. */
import type { MoveStep } from "../../../../contract/move-api.ts";
import type { Step } from "../world.ts";
import { activating, cleaning, reversing, routing, soaking } from "./aftermath.ts";
import { catchingUp, copying, preflight, preparing, verifying } from "./opening.ts";
import { closing, committing, draining, fencing, holding, ready } from "./switching.ts";
import { aborting, releasing } from "./way-back.ts";

export const steps: Readonly<Partial<Record<MoveStep, Step>>> = {
  preflight,
  preparing,
  copying,
  "catching-up": catchingUp,
  verifying,
  ready,
  holding,
  closing,
  fencing,
  draining,
  committing,
  activating,
  routing,
  reversing,
  soaking,
  diverged: soaking,
  cleaning,
  releasing,
  aborting,
};
