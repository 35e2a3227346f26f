/**
 * A cell, from nothing to open: the provider starts its processes, its agent reports, its database
 * takes the lease, and only then it is `active`. An operation that fails leaves the cell
 * `provisioning`: `cell create` again goes on from there, `cell destroy` clears it away.
 */
import type { CellView } from "../fleet.ts";
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
import { decideProviding } from "./provided.ts";

export const cellCreateSteps = ["creating", "opening", "publishing", "done", "failed"] as const;
type Step = (typeof cellCreateSteps)[number];
type Event = "provided" | "opened" | "acked" | "late";

export const cellCreate: Machine<Step, Event> = {
  steps: cellCreateSteps,
  first: "creating",
  transitions: {
    creating: { provided: "opening", late: "failed" },
    opening: { opened: "publishing", late: "failed" },
    publishing: { acked: "done", late: "failed" },
    done: {},
    failed: {},
  },
  pointOfNoReturn: "publishing",
  deadlinesMs: { creating: 180_000, opening: 180_000, publishing: 60_000 },
  decide: (step, world) => {
    const cell = world.op.object;
    if (step === "creating") return decideCreating(world, cell);
    if (step === "opening") return decideOpening(world, cell);
    return decidePublishing(world, `${cell} is active`);
  },
};

function decideCreating(world: OpWorld, cell: string): Decision<Event> {
  if (cellOf(world.fleet, cell)?.provider === "none") {
    const headline = `${cell} runs already, or is started by hand; waiting for its agent`;
    return { kind: "go", event: "provided", headline, effects: [] };
  }
  return decideProviding(world, {
    cell,
    action: "create",
    settled: (state) => state === "running",
    nextSteps: afterFailure(cell),
  });
}

function decideOpening(world: OpWorld, cell: string): Decision<Event> {
  const missing = missingToServe(cellOf(world.fleet, cell), world.fleet.nowMs);
  if (missing === undefined) {
    return {
      kind: "go",
      event: "opened",
      headline: `${cell} serves and holds its lease; telling the routers`,
      effects: [
        { kind: "cell-state", cell, from: ["provisioning"], to: "active" },
        { kind: "publish" },
      ],
    };
  }
  if (!isLate(world)) return { kind: "wait", headline: `waiting for ${cell}: ${missing}` };
  const message = `${cell} did not come up in time: ${missing}.`;
  return tooLate(message, afterFailure(cell));
}

const afterFailure = (cell: string): readonly string[] => [
  `cellctl cell create ${cell}   (goes on from here)`,
  `cellctl cell destroy ${cell}`,
];

/** What a cell still lacks before it may be given traffic; undefined when it lacks nothing. */
export function missingToServe(cell: CellView | undefined, nowMs: number): string | undefined {
  if (cell === undefined) return "it is not in the database";
  if (!cell.agents.some(({ primary }) => primary)) return "its agent has not reported as primary";
  if (cell.health !== "healthy") return cell.healthReason;
  if (cell.leaseUntilMs <= nowMs) return "its database holds no lease yet";
  return undefined;
}

export function planCellCreate(cell: string, provider: string) {
  const begin =
    provider === "none"
      ? { action: "register", object: cell, text: `register ${cell}, which is run by hand` }
      : {
          action: "create",
          object: cell,
          text: `provider ${provider} starts database, application and agent`,
        };
  return onePlan("cell.create", [
    begin,
    { action: "open", object: cell, text: `grant the lease and open ${cell} for placement` },
    { action: "publish", object: "routers", text: "wait until all live routers know the cell" },
  ]);
}
