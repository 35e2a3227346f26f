/**
 * What every long operation is: a table of steps and events, and a pure function that looks at the
 * fleet and says what happens now. The shell applies it in one transaction with a compare-and-set on
 * the operation's version, so any process may stop between any two turns and another goes on.
 *
 * A decision is made from observed facts alone, never from what this process did before: that is why
 * repeating it is safe.
 */

import type { CellState, PlacementState, Plan } from "../../../contract/control-api.ts";
import type { ErrorCode } from "../../../contract/errors.ts";
import type { ProviderAction } from "../../../contract/provider-api.ts";
import type { CellStage } from "../../../contract/routing-table.ts";
import type { CellView, FleetSnapshot, OpView } from "../fleet.ts";
import { liveRouters } from "../fleet.ts";

/** Done in the transaction that advances the operation. Each is checked again there. */
export type Effect =
  | {
      readonly kind: "cell-state";
      readonly cell: string;
      readonly from: readonly CellState[];
      readonly to: CellState;
    }
  /** The cell owns nothing (checked under the lock), leaves the table, and its id is spent. */
  | { readonly kind: "retire-cell"; readonly cell: string }
  /** The provider has said that nothing of the cell runs: that is an observation, and counts at once. */
  | { readonly kind: "cell-down"; readonly cell: string; readonly reason: string }
  /** Placements of this operation that no cell has applied are taken back, with what they reserved. */
  | { readonly kind: "withdraw" }
  /**
   * What agents (`goal`) or routers (`now`) are told of an adopted cell's stage. `requires`: the
   * conditions of this stage hold, under the lock too.
   */
  | {
      readonly kind: "stage";
      readonly cell: string;
      readonly goal?: CellStage;
      readonly now?: CellStage;
      readonly requires?: { readonly to: CellStage; readonly acceptRefusals: boolean };
    }
  /** A placement of this operation, told to its cell and the routers under a new revision. */
  | {
      readonly kind: "key-state";
      readonly key: string;
      readonly from: PlacementState;
      readonly to: PlacementState;
    }
  /** Every cell that may hold rows of the key, and has not confirmed yet, is asked to remove them. */
  | { readonly kind: "ask-purge"; readonly key: string }
  /** All have confirmed: names, room and the tenant itself are given up; its id is spent. */
  | { readonly kind: "erase"; readonly key: string }
  /** From here on live routers must serve the fleet's revision as it is after this transaction. */
  | { readonly kind: "publish" };

export type Failure = {
  readonly code: ErrorCode;
  readonly message: string;
  readonly nextSteps: readonly string[];
};

export type Decision<Event extends string> =
  /** Nothing to do but look again; the headline says what is waited for. */
  | { readonly kind: "wait"; readonly headline: string }
  /** Ask the provider (`look`: only how it stands); the answer is in `op.result` at the next turn. */
  | {
      readonly kind: "call";
      readonly action: ProviderAction | "look";
      readonly cell: string;
      readonly headline: string;
    }
  | {
      readonly kind: "go";
      readonly event: Event;
      readonly headline: string;
      readonly effects: readonly Effect[];
      /** With it the operation ends as failed, whatever the step is called. */
      readonly failure?: Failure;
    };

export type OpWorld = {
  readonly op: OpView;
  readonly fleet: FleetSnapshot;
};

export type Machine<Step extends string, Event extends string> = {
  readonly steps: readonly Step[];
  readonly first: Step;
  readonly transitions: Readonly<Record<Step, Partial<Record<Event, Step>>>>;
  /** Entering this step commits the operation: before it a failure leaves no trace, after it only forward. */
  readonly pointOfNoReturn: Step;
  /** How long a step may take, in milliseconds; steps without a limit are ends. */
  readonly deadlinesMs: Partial<Record<Step, number>>;
  readonly decide: (step: Step, world: OpWorld) => Decision<Event>;
};

/** What the shell applies: the step is looked up in the table, so a machine cannot leave it. */
export type OpTurn =
  | Extract<Decision<string>, { kind: "wait" | "call" }>
  | {
      readonly kind: "go";
      readonly from: string;
      readonly event: string;
      readonly to: string;
      readonly state: "running" | "done" | "failed";
      readonly headline: string;
      readonly effects: readonly Effect[];
      readonly failure?: Failure;
      /** Of the step that is entered; absent for an end. */
      readonly deadlineMs?: number;
    };

export function turnOp<Step extends string, Event extends string>(
  machine: Machine<Step, Event>,
  world: OpWorld,
): OpTurn {
  const step = machine.steps.find((one) => one === world.op.step);
  if (step === undefined) return broken(world.op, `its step ${world.op.step} is not known here`);
  const decision = machine.decide(step, world);
  if (decision.kind !== "go") return decision;
  const to = machine.transitions[step][decision.event];
  if (to === undefined) return broken(world.op, `${decision.event} does not follow ${step}`);
  const deadlineMs = machine.deadlinesMs[to];
  return {
    kind: "go",
    from: step,
    event: decision.event,
    to,
    state: decision.failure !== undefined ? "failed" : isEnd(machine, to) ? "done" : "running",
    headline: decision.headline,
    effects: decision.effects,
    ...(decision.failure === undefined ? {} : { failure: decision.failure }),
    ...(deadlineMs === undefined ? {} : { deadlineMs }),
  };
}

const isEnd = <Step extends string, Event extends string>(
  machine: Machine<Step, Event>,
  step: Step,
): boolean => Object.keys(machine.transitions[step]).length === 0;

/** A row that another release wrote: it fails in the open instead of waiting for ever. */
function broken(op: OpView, why: string): OpTurn {
  const message = `The operation ${op.id} cannot go on: ${why}.`;
  return {
    kind: "go",
    from: op.step,
    event: "broken",
    to: "failed",
    state: "failed",
    headline: message,
    effects: [],
    failure: { code: "OP_FAILED", message, nextSteps: [`cellctl op show ${op.id}`] },
  };
}

export const isLate = ({ op, fleet }: OpWorld): boolean =>
  op.deadlineAtMs !== null && fleet.nowMs >= op.deadlineAtMs;

/** Past its step's deadline: the operation ends as failed and says why, and what to do next. */
export const tooLate = (
  message: string,
  nextSteps: readonly string[],
  code: ErrorCode = "OP_FAILED",
): Decision<"late"> => ({
  kind: "go",
  event: "late",
  headline: message,
  effects: [],
  failure: { code, message, nextSteps },
});

export const cellOf = (fleet: FleetSnapshot, id: string): CellView | undefined =>
  fleet.cells.find((cell) => cell.id === id);

/** Which cells have not applied what this operation gave them. */
export function unapplied({ op, fleet }: OpWorld): readonly string[] {
  return [...(fleet.pending.get(op.id)?.keys() ?? [])];
}

/** Have all live routers acknowledged the operation's revision? */
export type RouterWait =
  | { readonly kind: "acked"; readonly text: string }
  | { readonly kind: "behind"; readonly routers: readonly string[]; readonly text: string };

export function routerWait({ op, fleet }: OpWorld): RouterWait {
  const wanted = op.revision ?? fleet.revision;
  const live = liveRouters(fleet);
  const behind = live.filter(({ revision }) => revision < wanted);
  if (live.length === 0) {
    return { kind: "acked", text: `no router is live to serve revision ${wanted}` };
  }
  if (behind.length === 0) {
    return {
      kind: "acked",
      text: `${live.length} of ${live.length} live routers serve revision ${wanted}`,
    };
  }
  const routers = behind.map(({ id, revision }) => `${id} (at ${revision})`);
  return {
    kind: "behind",
    routers,
    text: `waiting until ${routers.join(", ")} serves revision ${wanted}`,
  };
}

/** The last leg of most operations: `acked` ends well, `late` names the routers that lag. */
export function decidePublishing(world: OpWorld, what: string): Decision<"acked" | "late"> {
  const routers = routerWait(world);
  if (routers.kind === "acked") {
    return { kind: "go", event: "acked", headline: `${what}; ${routers.text}`, effects: [] };
  }
  if (!isLate(world)) return { kind: "wait", headline: `${what}; ${routers.text}` };
  const message = `${what}, but not everywhere: ${routers.text} took too long.`;
  return tooLate(message, ["cellctl router ls"]);
}

/** The way an operation's table reads in docs and tests: one line per transition. */
export function drawMachine<Step extends string, Event extends string>(
  machine: Machine<Step, Event>,
): string {
  return machine.steps
    .flatMap((step) => {
      const edges: Array<[string, unknown]> = Object.entries(machine.transitions[step]);
      const limit = machine.deadlinesMs[step];
      const mark = step === machine.pointOfNoReturn ? "  (point of no return)" : "";
      const head = `${step}${limit === undefined ? "" : ` [${limit / 1000} s]`}${mark}`;
      return edges.length === 0
        ? [`${head}: end`]
        : edges.map(([event, to], index) =>
            index === 0
              ? `${head}\n  --${event}--> ${String(to)}`
              : `  --${event}--> ${String(to)}`,
          );
    })
    .join("\n");
}

export const onePlan = (
  kind: string,
  steps: ReadonlyArray<{ readonly action: string; readonly object: string; readonly text: string }>,
): Plan => ({ kind, steps: [...steps], skipped: [] });
