/**
 * Suspend and resume. Both are one row's state: recorded in the transaction that accepts the
 * operation, from where its cell and the routers learn it. The owner and the epoch stay.
 *
 * Suspended is said when the cell's database refuses the tenant and every live router does. On the way
 * back the routers hold the tenant's requests (`hold`) until its cell serves it again.
 */
import type { Plan } from "../../../contract/control-api.ts";
import type { PlacementView } from "../fleet.ts";
import {
  cellOf,
  type Decision,
  decidePublishing,
  isLate,
  type Machine,
  type OpWorld,
  onePlan,
  tooLate,
} from "./machine.ts";

export const tenantSuspendSteps = ["fencing", "publishing", "done", "failed"] as const;
type SuspendStep = (typeof tenantSuspendSteps)[number];

export const tenantSuspend: Machine<SuspendStep, "fenced" | "acked" | "late"> = {
  steps: tenantSuspendSteps,
  first: "fencing",
  transitions: {
    fencing: { fenced: "publishing", late: "failed" },
    publishing: { acked: "done", late: "failed" },
    done: {},
    failed: {},
  },
  pointOfNoReturn: "fencing",
  deadlinesMs: { fencing: 60_000, publishing: 60_000 },
  decide: (step, world) =>
    step === "fencing"
      ? decideFencing(world)
      : decidePublishing(world, `${world.op.object} is suspended`),
};

export const tenantResumeSteps = ["opening", "publishing", "done", "failed"] as const;
type ResumeStep = (typeof tenantResumeSteps)[number];

export const tenantResume: Machine<ResumeStep, "opened" | "withdrawn" | "acked" | "late"> = {
  steps: tenantResumeSteps,
  first: "opening",
  transitions: {
    opening: { opened: "publishing", withdrawn: "failed" },
    publishing: { acked: "done", late: "failed" },
    done: {},
    failed: {},
  },
  pointOfNoReturn: "publishing",
  deadlinesMs: { opening: 60_000, publishing: 60_000 },
  decide: (step, world) =>
    step === "opening"
      ? decideOpening(world)
      : decidePublishing(world, `${world.op.object} is served again`),
};

/** The placement that the operation is about; undefined when it is not in the database any more. */
export function placementOf({ op, fleet }: OpWorld): PlacementView | undefined {
  const { key } = op.input;
  return typeof key === "string" ? fleet.placements.get(key) : undefined;
}

/**
 * Undefined: the owner's database says what the row wants, as the row stands now (a refused change is
 * written again under a new revision). A cell that is retired is gone with its data.
 */
export function cellBehind(world: OpWorld): string | undefined {
  const placement = placementOf(world);
  if (placement === undefined) return undefined;
  const cell = cellOf(world.fleet, placement.cell);
  if (cell === undefined || cell.state === "retired") return undefined;
  return cell.appliedRevision >= placement.revision ? undefined : cell.id;
}

/** "cell-02 (down: its agent has not called for 40 s)". */
export function cellText({ fleet }: OpWorld, id: string): string {
  const cell = cellOf(fleet, id);
  return cell === undefined || cell.health === "healthy"
    ? id
    : `${id} (${cell.health}: ${cell.healthReason})`;
}

function decideFencing(world: OpWorld): Decision<"fenced" | "late"> {
  const { object } = world.op;
  const behind = cellBehind(world);
  if (behind === undefined) {
    const headline = `the database of its cell refuses ${object}; telling the routers`;
    return { kind: "go", event: "fenced", headline, effects: [{ kind: "publish" }] };
  }
  const waiting = `waiting until ${cellText(world, behind)} refuses ${object}`;
  if (!isLate(world)) return { kind: "wait", headline: waiting };
  const message = `Too late: ${waiting}. Routers refuse the tenant already; the cell does when it answers.`;
  return tooLate(message, [`cellctl cell get ${behind}`, `cellctl tenant resume ${object}`]);
}

function decideOpening(world: OpWorld): Decision<"opened" | "withdrawn"> {
  const { object } = world.op;
  const placement = placementOf(world);
  const behind = cellBehind(world);
  // A recovery may have written the row meanwhile: what it made of a held key is active when applied.
  const isHeld = placement?.state === "hold";
  if (placement !== undefined && behind === undefined && (isHeld || placement.state === "active")) {
    const { key } = placement;
    const open = { kind: "key-state", key, from: "hold", to: "active" } as const;
    return {
      kind: "go",
      event: "opened",
      headline: `its cell serves ${object} again; telling the routers`,
      effects: [...(isHeld ? [open] : []), { kind: "publish" }],
    };
  }
  const waiting = `waiting until ${cellText(world, behind ?? placement?.cell ?? "its cell")} serves ${object} again`;
  if (!isLate(world)) return { kind: "wait", headline: waiting };
  const message = `Too late: ${waiting}. The tenant stays suspended.`;
  return {
    kind: "go",
    event: "withdrawn",
    headline: message,
    effects: isHeld
      ? [{ kind: "key-state", key: placement.key, from: "hold", to: "suspended" }]
      : [],
    failure: {
      code: "OP_FAILED",
      message,
      nextSteps: [`cellctl cell get ${placement?.cell ?? ""}`, `cellctl tenant resume ${object}`],
    },
  };
}

export const planTenantSuspend = (tenant: string, cell: string): Plan =>
  onePlan("tenant.suspend", [
    { action: "fence", object: cell, text: `${cell} refuses reads and writes of ${tenant}` },
    {
      action: "publish",
      object: "routers",
      text: "all live routers answer its requests with 403 TENANT_SUSPENDED",
    },
  ]);

export const planTenantResume = (tenant: string, cell: string): Plan =>
  onePlan("tenant.resume", [
    { action: "open", object: cell, text: `${cell} serves ${tenant} again, at the same epoch` },
    { action: "publish", object: "routers", text: "wait until all live routers forward again" },
  ]);
