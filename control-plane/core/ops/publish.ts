/** A change that only routers must hear of: routing rules. Recorded is decided; what is left is telling. */
import { decidePublishing, type Machine } from "./machine.ts";

export const publishSteps = ["publishing", "done", "failed"] as const;
type Step = (typeof publishSteps)[number];

export const publish: Machine<Step, "acked" | "late"> = {
  steps: publishSteps,
  first: "publishing",
  transitions: { publishing: { acked: "done", late: "failed" }, done: {}, failed: {} },
  pointOfNoReturn: "publishing",
  deadlinesMs: { publishing: 60_000 },
  decide: (_step, world) => decidePublishing(world, `${world.op.object} is changed`),
};
