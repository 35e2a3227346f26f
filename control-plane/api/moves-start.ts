/**
 * A plan of moves, and their beginning. The plan is what was looked at and what is recorded; begun is
 * only what nothing stands against, checked again under the fleet's lock: all of a request, or none.
 */
import { CellError } from "../../contract/errors.ts";
import type {
  MoveCheck,
  MoveOptions,
  MovePlan,
  MovePlans,
  PlanMoves,
  StartMoves,
} from "../../contract/move-api.ts";
import { parsePlacementKey } from "../../contract/placement-key.ts";
import { must } from "../../runtime/assert.ts";
import { refusedChecks } from "../core/move/move-plan.ts";
import { type Room, roomOf } from "../core/move/move-target.ts";
import { onePlan } from "../core/ops/machine.ts";
import { insertMove } from "../store/moves/ask.ts";
import { findMove, toMove } from "../store/moves/read.ts";
import { reserve } from "../store/placements.ts";
import { lockNormalFleet } from "../store/routing-change.ts";
import { freshOpId } from "./accept.ts";
import type { ApiContext } from "./context.ts";
import type { Answer } from "./endpoint.ts";
import { type Looks, lookAtAll, lookOf, toPlan } from "./moves-look.ts";
import { type MoveGroup, type Selected, type Selection, selectMoves } from "./moves-select.ts";
import type { Work } from "./mutation.ts";
import { requireSafe } from "./require-safe.ts";

/** Changes nothing: what stands against a move is a verdict in its plan, not an error. */
export async function planMoves(
  context: ApiContext,
  asked: PlanMoves,
  signal: AbortSignal,
): Promise<MovePlans> {
  const selected = await context.database.snapshot((tx) => selectMoves(tx, asked));
  const looks = await lookAtAll(context, selected.groups, signal);
  const items = selected.groups.map((group) =>
    toPlan(group, must(lookOf(looks, group), "look at a group"), asked.options),
  );
  return { items, next: null, skipped: [...selected.skipped] };
}

/** Before the transaction. What is wrong with the selection is said inside it, and audited there. */
export async function lookBefore(
  context: ApiContext,
  asked: Selection,
  signal: AbortSignal,
): Promise<Looks> {
  let selected: Selected;
  try {
    selected = await context.database.snapshot((tx) => selectMoves(tx, asked));
  } catch (error) {
    if (error instanceof CellError) return new Map();
    throw error;
  }
  return firstRefusal(selected.groups) === undefined
    ? lookAtAll(context, selected.groups, signal)
    : new Map();
}

const firstRefusal = (groups: readonly MoveGroup[]): CellError | undefined =>
  groups.flatMap(({ findings }) => findings).find(({ refusal }) => refusal !== undefined)?.refusal;

/** Throws what `selectMoves` throws, CAPACITY_EXHAUSTED, SAFETY_RULE, MOVE_UNFIT. */
export async function startMoves(
  context: ApiContext,
  work: Work,
  asked: StartMoves,
  looks: Looks,
): Promise<Answer> {
  const { tx } = work;
  await lockNormalFleet(tx);
  const { groups, skipped } = await selectMoves(tx, asked);
  requireSomething(groups, skipped, asked.to);
  const refusal = firstRefusal(groups);
  if (refusal !== undefined) throw refusal;
  const planned = groups.map((group) => ({ group, plan: fitPlan(group, looks, asked.options) }));
  const tenants = groups.reduce((sum, { loads }) => sum + roomOf(loads).tenants, 0);
  await requireSafe(work, { kind: "move.start", tenants }, asked.override);
  if (work.dryRun) {
    return { status: 200, body: { items: planned.map(({ plan }) => plan), next: null, skipped } };
  }
  const moves = planned.map((one) => ({ ...one, id: freshOpId(context, work) }));
  await work.record(null, {
    target: asked.to,
    options: asked.options,
    moves: moves.map(({ id, plan }) => ({ id, source: plan.source, keys: plan.keys })),
  });
  const items = [];
  for (const { group, plan, id } of moves) {
    const room = roomOf(group.loads);
    await reserve(tx, plan.target, room);
    const { options, override } = asked;
    await recordMove(work, { id, plan, options, room, override, reverses: null, ...group });
    items.push(toMove(must(await findMove(tx, id), "move that was just recorded")));
  }
  const [first] = items;
  const next =
    items.length === 1 && first !== undefined
      ? [`cellctl move watch ${first.id}`]
      : ["cellctl move ls --state running"];
  return { status: 202, body: { items, skipped, next_steps: next } };
}

function requireSomething(
  groups: readonly MoveGroup[],
  skipped: Selected["skipped"],
  to: string,
): void {
  if (groups.length > 0) return;
  const [first] = skipped;
  const what =
    skipped.length === 1 && first !== undefined ? first.object : "All that was asked for";
  throw new CellError(
    "STATE_CONFLICT",
    `There is nothing to move: ${what} ${first?.text ?? `is in ${to} already`}.`,
    { details: { skipped }, nextSteps: [`cellctl tenant ls --cell ${to}`] },
  );
}

function fitPlan(group: MoveGroup, looks: Looks, options: MoveOptions): MovePlan {
  const look = lookOf(looks, group);
  if (look === undefined) {
    throw new CellError(
      "STATE_CONFLICT",
      "What is placed where changed while the cells were looked at.",
      { nextSteps: ["repeat the command"] },
    );
  }
  const plan = toPlan(group, look, options);
  const checks = refusedChecks(plan.checks);
  if (checks.length > 0) throw unfit(plan, checks);
  return plan;
}

function unfit({ keys, target }: MovePlan, checks: readonly MoveCheck[]): CellError {
  const what = keys.length === 1 ? keys[0] : `${keys[0]} and ${keys.length - 1} more`;
  const said = checks
    .slice(0, shownMax)
    .map(({ cell, text }) => `${cell === "" ? "" : `${cell}: `}${text}`);
  const more = checks.length > shownMax ? `; and ${checks.length - shownMax} more` : "";
  return new CellError(
    "MOVE_UNFIT",
    `${what} cannot be moved to ${target} as things stand: ${said.join("; ")}${more}.`,
    {
      details: { keys, target, checks },
      nextSteps: [...new Set(checks.map(({ fix }) => fix).filter((fix) => fix !== ""))].slice(
        0,
        shownMax,
      ),
    },
  );
}

const shownMax = 5;

export type Recorded = {
  readonly id: string;
  readonly plan: MovePlan;
  readonly options: MoveOptions;
  readonly rows: ReadonlyArray<{ readonly key: string; readonly epoch: number }>;
  readonly room: Room;
  readonly reverses: string | null;
  /** Safety rules that it was recorded as going past. */
  readonly override?: readonly string[] | undefined;
};

/** Room in the target is taken already; given back and handed over by `input.room`. */
export async function recordMove(work: Work, fresh: Recorded): Promise<void> {
  const { plan, id, options, rows, room, reverses, override = [] } = fresh;
  const past = override.length === 0 ? {} : { override };
  const { source, target, keys } = plan;
  const name = nameOf(keys);
  const steps = plan.steps.map(({ step, text }) => ({ action: step, object: name, text }));
  await insertMove(work.tx, {
    ...{ plan, options, reverses, keys: rows.map(({ key, epoch }) => ({ key, epoch })) },
    op: {
      ...{
        id,
        object: name,
        plan: onePlan("tenant.move", steps),
        input: { source, target, room, ...past },
      },
      headline: `waits for its turn: ${name} from ${source} to ${target}`,
      ...{ actor: work.actor.name, reason: work.reason, nowMs: work.nowMs },
    },
  });
}

/** A tenant alone is called by its id, as in all other operations on it. */
function nameOf(keys: readonly string[]): string {
  const first = must(keys[0], "a key to move");
  const parts = parsePlacementKey(first);
  const name = parts?.kind === "tenant" ? parts.tenant : first;
  return keys.length === 1 ? name : `${name} and ${keys.length - 1} more`;
}
