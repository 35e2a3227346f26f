/**
 * A tenant's first placement: reserved and `pending` in the transaction that records the operation;
 * `active` when its cell has applied it; said to be done when all live routers serve it.
 *
 * The point of no return is the cell's acknowledgement: from then on the tenant is routed. Before it,
 * an operation that is late takes the tenant back and leaves nothing but a tombstone.
 */
import {
  type Decision,
  decidePublishing,
  isLate,
  type Machine,
  type OpWorld,
  unapplied,
} from "./machine.ts";

export const tenantCreateSteps = ["applying", "publishing", "done", "failed"] as const;
type Step = (typeof tenantCreateSteps)[number];
type Event = "applied" | "withdrawn" | "acked" | "late";

export const tenantCreate: Machine<Step, Event> = {
  steps: tenantCreateSteps,
  first: "applying",
  transitions: {
    applying: { applied: "publishing", withdrawn: "failed" },
    publishing: { acked: "done", late: "failed" },
    done: {},
    failed: {},
  },
  pointOfNoReturn: "publishing",
  deadlinesMs: { applying: 60_000, publishing: 60_000 },
  decide: (step, world) => {
    if (step === "applying") return decideApplying(world);
    return decidePublishing(world, `${world.op.object} is active`);
  },
};

function decideApplying(world: OpWorld): Decision<Event> {
  const { op } = world;
  const cells = unapplied(world);
  if (cells.length === 0) {
    const headline = `${op.object} is active in its cell; telling the routers`;
    return { kind: "go", event: "applied", headline, effects: [{ kind: "publish" }] };
  }
  const names = cells.join(", ");
  if (!isLate(world))
    return { kind: "wait", headline: `waiting until ${names} applies the placement` };
  const message = `${names} did not apply the placement of ${op.object} in time; it was taken back.`;
  return {
    kind: "go",
    event: "withdrawn",
    headline: message,
    effects: [{ kind: "withdraw" }],
    failure: {
      code: "OP_FAILED",
      message,
      nextSteps: [...cells.map((cell) => `cellctl cell get ${cell}`), "cellctl check"],
    },
  };
}
