/**
 * A tenant placed on its own, above its container. In the container's own cell it is a split of
 * ownership: the new key starts above its container's epoch, is held at the routers while it is
 * `pending`, and `active` when the cell has split it off under the container's lock. Taking it away
 * is the reverse: the key is dropped, and the container serves the tenant again.
 */
import type { Plan } from "../../../contract/control-api.ts";
import {
  type Decision,
  decidePublishing,
  isLate,
  type Machine,
  type OpWorld,
  onePlan,
  tooLate,
} from "./machine.ts";
import { tenantCreate } from "./tenant-create.ts";

/** The same way as a tenant's first placement, withdrawal included. */
export const overrideCreate = tenantCreate;

export const overrideDeleteSteps = ["dropping", "publishing", "done", "failed"] as const;
type Step = (typeof overrideDeleteSteps)[number];
type Event = "dropped" | "acked" | "late";

/** The tombstone is the record itself: routers learn of it at once, its cell when it calls. */
export const overrideDelete: Machine<Step, Event> = {
  steps: overrideDeleteSteps,
  first: "dropping",
  transitions: {
    dropping: { dropped: "publishing", late: "failed" },
    publishing: { acked: "done", late: "failed" },
    done: {},
    failed: {},
  },
  pointOfNoReturn: "dropping",
  deadlinesMs: { dropping: 60_000, publishing: 60_000 },
  decide: (step, world) =>
    step === "dropping"
      ? decideDropping(world)
      : decidePublishing(world, `${world.op.object} is back in its container`),
};

function decideDropping(world: OpWorld): Decision<"dropped" | "late"> {
  const { op, fleet } = world;
  const cell = fleet.cells.find(({ id }) => id === op.input["cell"]);
  const wanted = op.revision ?? fleet.revision;
  if (cell === undefined || cell.appliedRevision >= wanted) {
    return { kind: "go", event: "dropped", headline: `${op.object} is dropped`, effects: [] };
  }
  const waiting = `waiting until ${cell.id} drops ${op.object}`;
  if (!isLate(world)) return { kind: "wait", headline: waiting };
  const message = `Too late: ${waiting}. It drops the key when it answers; until then it refuses the tenant.`;
  return tooLate(message, [`cellctl cell get ${cell.id}`]);
}

export const planOverride = (key: string, cell: string, container: string): Plan =>
  onePlan("override.create", [
    { action: "split", object: key, text: `split ${key} off ${container} in ${cell}` },
    { action: "publish", object: "routers", text: "wait until all live routers serve it" },
  ]);

export const planOverrideDelete = (key: string, container: string): Plan =>
  onePlan("override.delete", [
    { action: "drop", object: key, text: `drop ${key}; ${container} serves the tenant again` },
    { action: "publish", object: "routers", text: "wait until all live routers serve it" },
  ]);
