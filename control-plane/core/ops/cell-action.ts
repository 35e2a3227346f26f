/**
 * What is done to a cell that exists: cordon, uncordon, kill, stop, start, destroy. One table each.
 * Kill, stop and start change what runs, not what is intended: the state stays, health is observed.
 */
import type { CellAction, CellState, Plan } from "../../../contract/control-api.ts";
import type { CellView } from "../fleet.ts";
import { missingToServe } from "./cell-create.ts";
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

type End = "done" | "failed";

/** Cordon and uncordon: intent alone; routers route by placement and need not hear of it. */
export const markSteps = ["marking", "done", "failed"] as const;
const mark = (from: CellState, to: CellState): Machine<"marking" | End, "marked"> => ({
  steps: markSteps,
  first: "marking",
  transitions: { marking: { marked: "done" }, done: {}, failed: {} },
  pointOfNoReturn: "done",
  deadlinesMs: {},
  decide: (_step, { op }) => ({
    kind: "go",
    event: "marked",
    headline: `${op.object} is ${to}`,
    effects: [{ kind: "cell-state", cell: op.object, from: [from, to], to }],
  }),
});
export const cellCordon = mark("active", "cordoned");
export const cellUncordon = mark("cordoned", "active");

/** Kill and stop: done when the provider says that nothing runs. */
export const haltSteps = ["calling", "done", "failed"] as const;
const halt = (action: "kill" | "stop"): Machine<"calling" | End, "provided" | "late"> => ({
  steps: haltSteps,
  first: "calling",
  transitions: { calling: { provided: "done", late: "failed" }, done: {}, failed: {} },
  pointOfNoReturn: "calling",
  deadlinesMs: { calling: 60_000 },
  decide: (_step, world) => {
    const cell = world.op.object;
    const decided = decideProviding(world, {
      cell,
      action,
      settled: (state) => state === "dead" || state === "stopped",
      nextSteps: [`cellctl cell ${action} ${cell}`],
    });
    if (decided.kind !== "go" || decided.event !== "provided") return decided;
    const reason = `${action} by ${world.op.id}: ${decided.headline}`;
    return { ...decided, effects: [{ kind: "cell-down", cell, reason }] };
  },
});
export const cellKill = halt("kill");
export const cellStop = halt("stop");

/** Start: done when the cell is seen to serve again, not when the provider says so. */
export const startSteps = ["calling", "opening", "done", "failed"] as const;
export const cellStart: Machine<"calling" | "opening" | End, "provided" | "opened" | "late"> = {
  steps: startSteps,
  first: "calling",
  transitions: {
    calling: { provided: "opening", late: "failed" },
    opening: { opened: "done", late: "failed" },
    done: {},
    failed: {},
  },
  pointOfNoReturn: "calling",
  deadlinesMs: { calling: 120_000, opening: 120_000 },
  decide: (step, world) =>
    step === "calling"
      ? decideProviding(world, {
          cell: world.op.object,
          action: "start",
          settled: (state) => state === "running",
          nextSteps: [`cellctl cell start ${world.op.object}`],
        })
      : decideBack(world),
};

function decideBack(world: OpWorld): Decision<"opened" | "late"> {
  const cell = world.op.object;
  const missing = missingSinceStart(world, cell);
  const { state, revoking } = cellOf(world.fleet, cell) ?? { state: "retired", revoking: false };
  if (missing !== agentMissing && (state === "quarantined" || revoking)) {
    const headline = `${cell} runs, quarantined: it has no lease and serves nobody`;
    return { kind: "go", event: "opened", headline, effects: [] };
  }
  if (missing === undefined) {
    return { kind: "go", event: "opened", headline: `${cell} serves again`, effects: [] };
  }
  if (!isLate(world)) return { kind: "wait", headline: `waiting for ${cell}: ${missing}` };
  const message = `${cell} was started but does not serve: ${missing}.`;
  return tooLate(message, [`cellctl cell get ${cell}`]);
}

/** What was seen of it before it was started says nothing about now. */
function missingSinceStart({ op, fleet }: OpWorld, id: string): string | undefined {
  const cell = cellOf(fleet, id);
  const sinceMs = op.provider?.askedAtMs ?? 0;
  const isBack = cell?.agents.some(({ primary, seenAtMs }) => primary && seenAtMs > sinceMs);
  return isBack === true ? missingToServe(cell, fleet.nowMs) : agentMissing;
}

const agentMissing = "its agent has not called since it was started";

/**
 * Destroy: the cell leaves the table first, then its processes and data go. Retiring is the point of no
 * return, and it is checked under the lock that the cell owns nothing.
 */
export const destroySteps = ["retiring", "publishing", "calling", "done", "failed"] as const;
type DestroyStep = (typeof destroySteps)[number];
type DestroyEvent = "retired" | "acked" | "late" | "provided";
export const cellDestroy: Machine<DestroyStep, DestroyEvent> = {
  steps: destroySteps,
  first: "retiring",
  transitions: {
    retiring: { retired: "publishing" },
    publishing: { acked: "calling", late: "failed" },
    calling: { provided: "done", late: "failed" },
    done: {},
    failed: {},
  },
  pointOfNoReturn: "publishing",
  deadlinesMs: { publishing: 60_000, calling: 120_000 },
  decide: (step, world) => decideDestroy(step, world),
};

function decideDestroy(step: DestroyStep, world: OpWorld): Decision<DestroyEvent> {
  const cell = world.op.object;
  if (step === "retiring") {
    const kept = keptFor(cellOf(world.fleet, cell));
    if (kept !== undefined) return { kind: "wait", headline: `${cell} ${kept}` };
    return {
      kind: "go",
      event: "retired",
      headline: `${cell} owns nothing and has left the routing table`,
      effects: [{ kind: "retire-cell", cell }, { kind: "publish" }],
    };
  }
  if (step === "publishing") return decidePublishing(world, `${cell} is retired`);
  if (cellOf(world.fleet, cell)?.provider === "none") {
    const headline = `${cell} is retired; stop its processes by hand`;
    return { kind: "go", event: "provided", headline, effects: [] };
  }
  return decideProviding(world, {
    cell,
    action: "destroy",
    settled: (state) => state === "absent",
    nextSteps: [`cellctl cell destroy ${cell}   (asks the provider again)`],
  });
}

/** Others would lose with it what could be taken over: it goes when that stands elsewhere. */
function keptFor(cell: CellView | undefined): string | undefined {
  if (cell === undefined || cell.reserve === null) return undefined;
  const { keeps, hosted } = cell.reserve;
  if (hosted.tenants > 0) {
    return `serves ${hosted.tenants} tenants that it has taken over; waiting until they are moved into whole cells`;
  }
  const origins = keeps.map(({ origin }) => origin).toSorted((a, b) => (a < b ? -1 : 1));
  return origins.length === 0
    ? undefined
    : `keeps standbys of ${origins.join(", ")}; waiting until others do   (cellctl standby ls)`;
}

const planTexts: Readonly<Record<CellAction, (cell: string) => string>> = {
  cordon: (cell) => `${cell} takes no new tenants; its tenants stay and are served`,
  uncordon: (cell) => `${cell} takes new tenants again`,
  kill: (cell) =>
    `crash the database and application of ${cell} at once; its tenants get errors until it is started`,
  stop: (cell) => `stop ${cell} in order; its tenants get errors until it is started`,
  start: (cell) => `start ${cell} on its own data and wait until it serves`,
  destroy: (cell) =>
    `retire ${cell} for good, take it out of the routing table; what a provider runs of it is removed with its data`,
};

export const planCellAction = (action: CellAction, cell: string): Plan =>
  onePlan(`cell.${action}`, [{ action, object: cell, text: planTexts[action](cell) }]);
