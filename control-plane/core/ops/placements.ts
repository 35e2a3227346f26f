/**
 * Many placements at once: the containers of a new keyspace, the tenants of an import. Forward only:
 * each cell's part becomes active as that cell applies it, so the point of no return is the record
 * itself. An operation that is late ends with the names of the cells that lag; their part still
 * becomes active when they answer.
 */
import {
  type Decision,
  decidePublishing,
  isLate,
  type Machine,
  type OpWorld,
  tooLate,
  unapplied,
} from "./machine.ts";

export const placementsSteps = ["applying", "publishing", "done", "failed"] as const;
type Step = (typeof placementsSteps)[number];
type Event = "applied" | "late" | "acked";

export const placements: Machine<Step, Event> = {
  steps: placementsSteps,
  first: "applying",
  transitions: {
    applying: { applied: "publishing", late: "failed" },
    publishing: { acked: "done", late: "failed" },
    done: {},
    failed: {},
  },
  pointOfNoReturn: "applying",
  deadlinesMs: { applying: 600_000, publishing: 60_000 },
  decide: (step, world) => {
    if (step === "applying") return decideApplying(world);
    return decidePublishing(world, `in place: ${world.op.object}`);
  },
};

function decideApplying(world: OpWorld): Decision<Event> {
  const { op, fleet } = world;
  const cells = unapplied(world);
  if (cells.length === 0) {
    const headline = `all cells have applied ${op.object}; telling the routers`;
    return { kind: "go", event: "applied", headline, effects: [{ kind: "publish" }] };
  }
  const parts = [...(fleet.pending.get(op.id) ?? [])].map(
    ([cell, keys]) => `${cell} (${keys} keys)`,
  );
  const waiting = `waiting until ${parts.join(", ")} applies ${op.object}`;
  if (!isLate(world)) return { kind: "wait", headline: waiting };
  const message = `Too late: ${waiting}. What is applied stays; the rest becomes active when the cell answers.`;
  return tooLate(
    message,
    cells.map((cell) => `cellctl cell get ${cell}`),
  );
}
