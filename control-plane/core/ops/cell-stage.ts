/**
 * The stages of an adopted cell. Adopting registers it in `pass-through`; from there each change is an
 * operation with a way back. Inward: first its agents (database, then gate), then the routers;
 * outward: first the routers, then its agents. So no part sees a request that a part behind it
 * refuses already and that it would have stopped itself.
 *
 * Going inward, the point of no return is telling the routers; before it an operation that is late, or
 * whose conditions no longer hold, takes the agents back to the former stage. Going outward nothing
 * new is refused, so what is late is said and stays asked for.
 */
import type { Plan } from "../../../contract/control-api.ts";
import { type CellStage, cellStages } from "../../../contract/routing-table.ts";
import type { CellView } from "../fleet.ts";
import { healthLimits } from "../health.ts";
import { type Condition, hasApplied, isInward, stageConditions, unmet } from "../stage.ts";
import { missingToServe } from "./cell-create.ts";
import {
  cellOf,
  type Decision,
  decidePublishing,
  type Failure,
  isLate,
  type Machine,
  type OpWorld,
  onePlan,
  routerWait,
  tooLate,
} from "./machine.ts";

export const cellStageSteps = [
  "starting",
  "agents-inward",
  "routers-inward",
  "routers-outward",
  "agents-outward",
  "done",
  "failed",
] as const;
type Step = (typeof cellStageSteps)[number];
type Event = "inward" | "outward" | "refused" | "applied" | "withdrawn" | "acked" | "late";

export const cellStage: Machine<Step, Event> = {
  steps: cellStageSteps,
  first: "starting",
  transitions: {
    starting: { inward: "agents-inward", outward: "routers-outward", refused: "failed" },
    "agents-inward": { applied: "routers-inward", withdrawn: "failed" },
    "routers-inward": { acked: "done", late: "failed" },
    "routers-outward": { acked: "agents-outward", withdrawn: "failed" },
    "agents-outward": { applied: "done", late: "failed" },
    done: {},
    failed: {},
  },
  pointOfNoReturn: "routers-inward",
  deadlinesMs: {
    "agents-inward": 60_000,
    "routers-inward": 60_000,
    "routers-outward": 60_000,
    "agents-outward": 60_000,
  },
  decide: (step, world) => {
    const asked = askedOf(world);
    if (asked === undefined)
      return refuse("its cell is gone, or the operation's input is not known here");
    switch (step) {
      case "starting":
        return decideStarting(world, asked);
      case "agents-inward":
        return decideAgentsInward(world, asked);
      case "routers-outward":
        return decideRoutersOutward(world, asked);
      case "agents-outward":
        return decideAgentsOutward(world, asked);
      default:
        return decidePublishing(world, `${asked.cell.id} is in stage ${asked.to}`);
    }
  },
};

export const cellAdoptSteps = [
  "publishing",
  "agents-inward",
  "routers-inward",
  "done",
  "failed",
] as const;
type AdoptStep = (typeof cellAdoptSteps)[number];
type AdoptEvent = "acked" | "late" | "observing" | "applied" | "withdrawn";

/** Adopt; with `observe` in its input, on to that stage when the agent has come. */
export const cellAdopt: Machine<AdoptStep, AdoptEvent> = {
  steps: cellAdoptSteps,
  first: "publishing",
  transitions: {
    publishing: { acked: "done", observing: "agents-inward", late: "failed" },
    "agents-inward": { applied: "routers-inward", withdrawn: "failed" },
    "routers-inward": { acked: "done", late: "failed" },
    done: {},
    failed: {},
  },
  pointOfNoReturn: "publishing",
  // Somebody may still have to start the agent.
  deadlinesMs: { publishing: 60_000, "agents-inward": 600_000, "routers-inward": 60_000 },
  decide: (step, world) => {
    const asked = askedOf(world);
    if (asked === undefined || step === "publishing") return decideAdopting(world);
    return step === "agents-inward"
      ? decideAgentsInward(world, asked)
      : decidePublishing(world, `${asked.cell.id} is in stage ${asked.to}`);
  },
};

function decideAdopting(world: OpWorld): Decision<"acked" | "late" | "observing"> {
  const cell = world.op.object;
  const decided = decidePublishing(world, `${cell} is adopted and takes everything (pass-through)`);
  const goesOn = world.op.input["to"] === "observe";
  if (decided.kind !== "go" || decided.event !== "acked" || !goesOn) return decided;
  return {
    kind: "go",
    event: "observing",
    headline: `${decided.headline}; waiting for its agent`,
    effects: [{ kind: "stage", cell, goal: "observe" }],
  };
}

type Asked = {
  readonly cell: CellView;
  readonly from: CellStage;
  readonly to: CellStage;
  readonly accept: boolean;
};

function askedOf({ op, fleet }: OpWorld): Asked | undefined {
  const cell = cellOf(fleet, op.object);
  const from = cellStages.find((stage) => stage === op.input["from"]);
  const to = cellStages.find((stage) => stage === op.input["to"]);
  if (cell === undefined || from === undefined || to === undefined) return undefined;
  return { cell, from, to, accept: op.input["acceptRefusals"] === true };
}

const refuse = (why: string): Extract<Decision<"refused" | "withdrawn">, { kind: "go" }> => ({
  kind: "go",
  event: "refused",
  headline: why,
  effects: [],
  failure: { code: "STATE_CONFLICT", message: why, nextSteps: ["cellctl cell ls"] },
});

const unmetOf = ({ fleet }: OpWorld, { cell, to, accept }: Asked): readonly Condition[] =>
  unmet(stageConditions({ ...fleet, cell }, to, accept));

export const unmetText = (to: CellStage, cell: string, missing: readonly Condition[]): string =>
  `${cell} cannot go to ${to} now: ${missing.map(({ text }) => text).join("; ")}.`;

/** What a person types next, for the first condition that does not hold. */
export function unmetSteps(cell: string, to: CellStage, missing: readonly Condition[]): string[] {
  switch (missing[0]?.name) {
    case "agent":
      return [...agentSteps(cell), `cellctl cell get ${cell}`];
    case "guard":
      return ["cellctl schema check", "cellctl schema install"];
    case "coverage":
      return [
        "cellctl schema check   (names each, with its line for the manifest)",
        "cellctl schema install   (puts them under the guard, and records the manifest)",
      ];
    case "placements":
      return [
        `cellctl tenant import FILE   (tenants of ${cell})`,
        `cellctl tenant ls --cell ${cell}`,
      ];
    case "refusals":
      return [
        `cellctl cell get ${cell}   (what would be refused, and how often)`,
        `cellctl cell stage ${cell} ${to} --accept-refusals`,
      ];
    case "deletions":
      return ["cellctl op ls   (tenant.delete: wait for each, its cells must confirm)"];
    case "suspensions":
      return ["cellctl tenant ls   (who is suspended)", "cellctl tenant resume ID"];
    default:
      return ["cellctl cell ls"];
  }
}

/** How the agent of a cell that is run by hand is started. */
export const agentSteps = (cell: string): readonly string[] => [
  `cellctl token create ${cell}-agent --role agent --subject ${cell}`,
  `cellctl agent --cell ${cell} --upstream URL --database-url REF --token REF`,
];

function refusal(asked: Asked, missing: readonly Condition[]): Failure {
  const { cell, to } = asked;
  return {
    code: "SAFETY_RULE",
    message: unmetText(to, cell.id, missing),
    nextSteps: unmetSteps(cell.id, to, missing),
  };
}

function decideStarting(world: OpWorld, asked: Asked): Decision<"inward" | "outward" | "refused"> {
  const { cell, from, to, accept } = asked;
  const missing = unmetOf(world, asked);
  if (missing.length > 0) {
    const failure = refusal(asked, missing);
    return { kind: "go", event: "refused", headline: failure.message, effects: [], failure };
  }
  const requires = { to, acceptRefusals: accept };
  return isInward(from, to)
    ? {
        kind: "go",
        event: "inward",
        headline: `telling the agents of ${cell.id}: ${to}`,
        effects: [{ kind: "stage", cell: cell.id, goal: to, requires }],
      }
    : {
        kind: "go",
        event: "outward",
        headline: `telling the routers: ${cell.id} is in stage ${to}`,
        effects: [{ kind: "stage", cell: cell.id, now: to, requires }, { kind: "publish" }],
      };
}

function decideAgentsInward(world: OpWorld, asked: Asked): Decision<"applied" | "withdrawn"> {
  const { cell, to, accept } = asked;
  const applied = hasApplied(cell.stage, to);
  const missing = applied ? unmetOf(world, asked) : [];
  if (applied && missing.length === 0) {
    const requires = { to, acceptRefusals: accept };
    return {
      kind: "go",
      event: "applied",
      headline: `the database and the agents of ${cell.id} are in stage ${to}; telling the routers`,
      effects: [{ kind: "stage", cell: cell.id, now: to, requires }, { kind: "publish" }],
    };
  }
  // An adoption waits for an agent that nobody has started yet; a change of stage began with one.
  const mayWait = !applied || world.op.kind === "cell.adopt";
  const waiting = applied
    ? missing.map(({ text }) => text).join("; ")
    : (missingToServe(cell, world.fleet.nowMs) ?? `its database is still in ${cell.stage.applied}`);
  if (mayWait && !isLate(world)) {
    return { kind: "wait", headline: `waiting for the agent of ${cell.id}: ${waiting}` };
  }
  return withdraw(asked, waiting, { goal: asked.from });
}

function withdraw(
  { cell, from, to }: Asked,
  why: string,
  back: { readonly goal: CellStage } | { readonly now: CellStage },
): Decision<"withdrawn"> {
  const message = `${cell.id} did not come to stage ${to}: ${why}. It is back in stage ${from}.`;
  return {
    kind: "go",
    event: "withdrawn",
    headline: message,
    effects: [{ kind: "stage", cell: cell.id, ...back }],
    failure: {
      code: "OP_FAILED",
      message,
      nextSteps: [`cellctl cell get ${cell.id}`, `cellctl cell stage ${cell.id} ${to}`],
    },
  };
}

function decideRoutersOutward(world: OpWorld, asked: Asked): Decision<"acked" | "withdrawn"> {
  const { cell, to, accept } = asked;
  const missing = unmetOf(world, asked);
  if (missing.length > 0) {
    return withdraw(asked, missing.map(({ text }) => text).join("; "), { now: asked.from });
  }
  const routers = routerWait(world);
  if (routers.kind === "acked") {
    const requires = { to, acceptRefusals: accept };
    return {
      kind: "go",
      event: "acked",
      headline: `${routers.text}; telling the agents of ${cell.id}: ${to}`,
      effects: [{ kind: "stage", cell: cell.id, goal: to, requires }],
    };
  }
  if (!isLate(world)) return { kind: "wait", headline: routers.text };
  return withdraw(asked, `${routers.text} took too long`, { now: asked.from });
}

function decideAgentsOutward(world: OpWorld, asked: Asked): Decision<"applied" | "late"> {
  const { cell, to } = asked;
  if (hasApplied(cell.stage, to)) {
    const headline = `${cell.id} is in stage ${to}: routers, gates and database`;
    return { kind: "go", event: "applied", headline, effects: [] };
  }
  // Between these two stages a database refuses nothing: nobody needs to wait for an agent that is gone.
  if (cell.stage.applied !== "enforce" && !hasLiveAgent(cell, world.fleet.nowMs)) {
    const headline = `${cell.id} is in stage ${to}; no agent runs there that could be told`;
    return { kind: "go", event: "applied", headline, effects: [] };
  }
  if (!isLate(world)) {
    return { kind: "wait", headline: `waiting until the database of ${cell.id} is in stage ${to}` };
  }
  const message = `The routers treat ${cell.id} as ${to}, but its database is still in ${cell.stage.applied}: its agent did not answer. It obeys when it does.`;
  return tooLate(message, [`cellctl cell get ${cell.id}`]);
}

const hasLiveAgent = (cell: CellView, nowMs: number): boolean =>
  cell.agents.some(({ primary, seenAtMs }) => primary && nowMs - seenAtMs <= healthLimits.silentMs);

export function planCellAdopt(cell: string, guardMode: string, observe: boolean): Plan {
  return onePlan("cell.adopt", [
    {
      action: "register",
      object: cell,
      text: `register ${cell} as it runs, in stage pass-through: routers send it every request; nothing is copied or installed`,
    },
    {
      action: "guard-mode",
      object: "default",
      text: `set guard mode ${guardMode} for the keyspace default, which owns nothing yet`,
    },
    { action: "publish", object: "routers", text: "wait until all live routers know the cell" },
    ...(observe
      ? [
          {
            action: "agents",
            object: cell,
            text: `wait up to 10 min for the agent of ${cell}, and until its database counts (stage observe)`,
          },
          { action: "publish", object: "routers", text: "send its requests through its agents" },
        ]
      : []),
  ]);
}

/** The plan says each condition and how it stands, so that a dry run tells whether it would begin. */
export function planCellStage(
  cell: string,
  from: CellStage,
  to: CellStage,
  conditions: readonly Condition[],
): Plan {
  const agents = {
    action: "agents",
    object: cell,
    text: `bring the database of ${cell}, then its gates, to stage ${to}`,
  };
  const routers = {
    action: "publish",
    object: "routers",
    text: `wait until all live routers treat ${cell} as ${to}`,
  };
  return onePlan("cell.stage", [
    ...conditions.map(({ name, ok, text }) => ({
      action: "condition",
      object: name,
      text: `${ok ? "ok" : "NOT MET"}: ${text}`,
    })),
    ...(isInward(from, to) ? [agents, routers] : [routers, agents]),
  ]);
}
