/** What is done at each step. A step without an effect is an end. */
import type { FailoverStep } from "../../../../contract/failover-api.ts";
import type { Step } from "../world.ts";
import { adopting } from "./adopting.ts";
import { reprotecting, routing, verifying } from "./aftermath.ts";
import { confirmed, evacuating, halted, restoring } from "./asides.ts";
import { revoking, severing } from "./stopping.ts";

export const steps: Readonly<Partial<Record<FailoverStep, Step>>> = {
  ...{ confirmed, revoking, severing, adopting, routing, verifying, reprotecting },
  ...{ evacuating, halted, restoring },
};
