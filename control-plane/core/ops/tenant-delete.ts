/**
 * The end of a tenant. It is fenced and the routers forget it; then every cell that may hold rows of
 * it is asked to remove them and to count what is left; then its names are released, its id becomes
 * a tombstone, and the receipt says what was removed where.
 *
 * There is no way back from the record on, and no deadline after which it counts as done: a cell that
 * is down is named and waited for (decision 37). It ends by itself when the cell is back, or destroyed.
 */
import type { Plan } from "../../../contract/control-api.ts";
import {
  cellOf,
  type Decision,
  decidePublishing,
  isLate,
  type Machine,
  type OpWorld,
  onePlan,
  routerWait,
} from "./machine.ts";
import { cellBehind, cellText } from "./tenant-life.ts";

export const tenantDeleteSteps = ["fencing", "purging", "publishing", "done", "failed"] as const;
type Step = (typeof tenantDeleteSteps)[number];
type Event = "fenced" | "again" | "purged" | "acked" | "late";

export const tenantDelete: Machine<Step, Event> = {
  steps: tenantDeleteSteps,
  first: "fencing",
  transitions: {
    fencing: { fenced: "purging" },
    purging: { purged: "publishing", again: "purging" },
    publishing: { acked: "done", late: "failed" },
    done: {},
    failed: {},
  },
  pointOfNoReturn: "fencing",
  // Of purging: after this a cell that obeys but has not confirmed is asked anew, at a new epoch.
  deadlinesMs: { purging: 1_800_000, publishing: 60_000 },
  decide: (step, world) => {
    if (step === "fencing") return decideFencing(world);
    if (step === "purging") return decidePurging(world);
    return decidePublishing(world, `${world.op.object} is deleted`);
  },
};

const keyOf = ({ op }: OpWorld): string => String(op.input["key"]);

function decideFencing(world: OpWorld): Decision<"fenced"> {
  const { object } = world.op;
  const behind = cellBehind(world);
  if (behind !== undefined) {
    return { kind: "wait", headline: `waiting until ${cellText(world, behind)} refuses ${object}` };
  }
  const routers = routerWait(world);
  if (routers.kind === "behind") return { kind: "wait", headline: routers.text };
  return {
    kind: "go",
    event: "fenced",
    headline: `nobody serves ${object} any more; asking every cell to remove its rows`,
    effects: [{ kind: "ask-purge", key: keyOf(world) }, { kind: "publish" }],
  };
}

function decidePurging(world: OpWorld): Decision<"purged" | "again"> {
  const { op, fleet } = world;
  const waiting = (fleet.purges.get(op.id) ?? []).filter((id) => {
    const cell = cellOf(fleet, id);
    // Destroyed with its storage meanwhile: the receipt says so.
    return cell !== undefined && cell.state !== "retired";
  });
  if (waiting.length === 0) {
    return {
      kind: "go",
      event: "purged",
      headline: `no row of ${op.object} is left; its id is spent`,
      effects: [{ kind: "erase", key: keyOf(world) }, { kind: "publish" }],
    };
  }
  const names = waiting.map((id) => cellText(world, id)).join(", ");
  const headline = `waiting until no row of ${op.object} is left in ${names}`;
  const obeys = (id: string) =>
    (cellOf(fleet, id)?.appliedRevision ?? 0) >= (op.revision ?? fleet.revision);
  if (isLate(world) && waiting.some(obeys)) {
    const effects = [{ kind: "ask-purge", key: keyOf(world) }, { kind: "publish" }] as const;
    return { kind: "go", event: "again", headline: `${headline}; asking again`, effects };
  }
  return { kind: "wait", headline };
}

export const planTenantDelete = (tenant: string, cell: string, cells: readonly string[]): Plan =>
  onePlan("tenant.delete", [
    {
      action: "fence",
      object: cell,
      text: `${cell} refuses ${tenant}, and all live routers forget it`,
    },
    ...cells.map((id) => ({
      action: "purge",
      object: id,
      text: `${id} removes every row of ${tenant} and counts that none is left`,
    })),
    { action: "release", object: tenant, text: "its claimed names are released" },
    {
      action: "spend",
      object: tenant,
      text: `the id ${tenant} is spent for good; the receipt stays`,
    },
  ]);
