/** Draining: its beginning, and its being called off (`cell uncordon` of a cell that drains). */
import { eq } from "drizzle-orm";
import type { z } from "zod";
import { acceptedSchema, dryRunSchema, type Plan } from "../../contract/control-api.ts";
import { drainCellSchema } from "../../contract/drain-api.ts";
import { CellError } from "../../contract/errors.ts";
import { cellIdSchema } from "../../contract/ids.ts";
import { areOf, counted } from "../core/counted.ts";
import { planEmptying } from "../core/emptying.ts";
import type { CellView } from "../core/fleet.ts";
import { onePlan } from "../core/ops/machine.ts";
import { drainKind, lockOpenDrainOf } from "../store/balancing/read.ts";
import { movesFrom, readLeaving } from "../store/emptying.ts";
import { recordEvents } from "../store/events.ts";
import { readCells } from "../store/fleet-store.ts";
import { askMove } from "../store/moves/ask.ts";
import { changeOp, insertOp, openOpOn } from "../store/ops.ts";
import { lockNormalFleet } from "../store/routing-change.ts";
import { cell as cellTable } from "../store/schema.ts";
import { accept, dryRunAnswer, freshOpId } from "./accept.ts";
import { requireCell } from "./cell-lookup.ts";
import type { ApiContext } from "./context.ts";
import type { Answer, Endpoint } from "./endpoint.ts";
import { mutation, type Work } from "./mutation.ts";
import { requireSafe } from "./require-safe.ts";

type Wanted = z.output<typeof drainCellSchema>;

export const drainEndpoints = (context: ApiContext): readonly Endpoint[] => [
  mutation(context, {
    method: "post",
    path: "/v1/cells/{id}/drain",
    role: "operator",
    tag: "cells",
    summary: "Let its tenants leave by live moves; it takes no new ones. Called off by uncordon.",
    params: { id: cellIdSchema },
    body: drainCellSchema,
    answers: { 200: dryRunSchema, 202: acceptedSchema },
    action: drainKind,
    object: ({ path }) => path.id,
    apply: (work, { path, body }) => drain(context, work, path.id, body),
  }),
];

/** Keys that a plan shows where they would go. */
const shownMax = 1000;

async function drain(context: ApiContext, work: Work, id: string, wanted: Wanted): Promise<Answer> {
  const { tx } = work;
  await lockNormalFleet(tx);
  const cell = await requireCell(tx, id);
  if (wanted.to === id) {
    throw new CellError(
      "VALIDATION_FAILED",
      `--to names the cell itself: ${id} cannot take what leaves it.`,
      {
        nextSteps: ["cellctl cell ls", `cellctl cell drain ${id} --spread --dry-run`],
      },
    );
  }
  if (wanted.to !== undefined) await requireCell(tx, wanted.to);
  await requireDrainable(work, cell);
  const { percent, to, parallelMax } = wanted;
  const leaving = await readLeaving(tx, id, { sinceOp: "", limit: shownMax, percent });
  await requireSafe(work, { kind: "cell.drain", cell: id }, wanted.override);
  const cells = await readCells(tx);
  const exclude = to === undefined ? [] : cells.map((one) => one.id).filter((one) => one !== to);
  const found = planEmptying(
    { from: id, keys: leaving.keys, cells, prefer: [], exclude, underWay: 0 },
    { inFlight: shownMax, keysPerMove: shownMax, retryFirstMs: 0, retryMostMs: 0 },
  );
  const plan = planOf(cell, percent, leaving.left, found);
  if (work.dryRun) return dryRunAnswer(plan);
  const opId = freshOpId(context, work);
  await work.record({ state: cell.state }, { state: "draining", op: opId, percent, to });
  await tx
    .update(cellTable)
    .set({ state: "draining", goal: "cordoned" })
    .where(eq(cellTable.id, id));
  const input = { cell: id, percent, parallelMax, from: cell.state };
  const op = await insertOp(tx, {
    ...{ id: opId, kind: drainKind, object: id, plan, step: "draining", state: "running" },
    input: { ...input, ...(to === undefined ? {} : { to }), ...overrides(wanted) },
    headline: `${counted(leaving.left, "key")} ${areOf(leaving.left)} to leave ${id}`,
    ...{ actor: work.actor.name, reason: work.reason, revision: null, nowMs: work.nowMs },
    deadlineMs: wanted.deadlineMs,
  });
  const steps = [`cellctl op watch ${opId}`, `cellctl cell get ${id}`];
  return { status: 202, body: { op, plan, next_steps: steps } };
}

const overrides = ({ override }: Wanted) => (override === undefined ? {} : { override });

async function requireDrainable(work: Work, cell: CellView): Promise<void> {
  const { id, annex, state, health, healthReason, revoking } = cell;
  if (annex !== null) {
    throw new CellError(
      "STATE_CONFLICT",
      `${id} is a standby in ${annex.host}: it is emptied by its own failover.`,
      { nextSteps: ["cellctl failover status"] },
    );
  }
  const open = await openOpOn(work.tx, id, "cell.");
  if (open !== undefined) {
    throw new CellError(
      "STATE_CONFLICT",
      `${open.kind} of ${id} is running (${open.id}): ${open.headline}`,
      { nextSteps: [`cellctl op watch ${open.id}`], details: { op: open.id } },
    );
  }
  if (revoking || (state !== "active" && state !== "cordoned" && state !== "draining")) {
    throw new CellError("STATE_CONFLICT", `${id} is ${state}; it cannot be drained.`, {
      nextSteps: [`cellctl cell get ${id}`],
      details: { state },
    });
  }
  // Live moves need a source that lives.
  if (health === "down") {
    throw new CellError(
      "STATE_CONFLICT",
      `${id} is down (${healthReason}): nobody can be moved out of it live.`,
      { nextSteps: [`cellctl failover plan ${id}`, `cellctl cell start ${id}`] },
    );
  }
}

function planOf(
  { id, state }: CellView,
  percent: number,
  left: number,
  found: ReturnType<typeof planEmptying>,
): Plan {
  // As its executor ends it: a share leaves the cell what it was.
  const becomes = percent === 100 || state === "draining" ? "cordoned" : state;
  const share = percent === 100 ? "" : ` (${percent} % of all, by a stable hash)`;
  const over = `${counted(left, "key")}${share} ${left === 1 ? "has" : "have"} left: ${id} is ${becomes}`;
  const idle =
    found.departures.length === 0
      ? [{ action: "none", object: id, text: idleText(left, found.blocked.length, share) }]
      : [];
  const steps = [
    {
      action: "cordon",
      object: id,
      text: `${id} takes no new tenants; until it is over, cellctl cell uncordon ${id} calls it off`,
    },
    ...idle,
    ...found.departures.map(({ target, keyspace, keys }) => ({
      action: "move",
      object: target,
      text: `${counted(keys.length, "key")} of ${keyspace} to ${target}, live, a few at a time`,
    })),
    { action: "finish", object: id, text: left === 0 ? `${id} is ${becomes}` : over },
  ];
  const skipped = found.blocked.map(({ key, text }) => ({
    object: key,
    reason: "nowhere",
    text: `no cell may take it: ${text}`,
  }));
  return { ...onePlan(drainKind, steps), skipped };
}

/** `left`: keys of the share that are in the cell, of which none can move now. */
function idleText(left: number, blocked: number, share: string): string {
  if (left === 0) return `nothing would move: no key is to leave${share}`;
  const keys = counted(left, "key");
  return blocked === 0
    ? `nothing would move now: ${keys}${share} ${areOf(left)} in other moves, or not active`
    : `nothing would move now: no cell may take any of ${keys}${share}`;
}

/** Reversible until it is empty: moves that have not switched are called off, what has left stays away. */
export async function callOffDrain(
  context: ApiContext,
  work: Work,
  cell: CellView,
): Promise<Answer | undefined> {
  const { tx, nowMs } = work;
  const row = await lockOpenDrainOf(tx, cell.id);
  if (row === undefined) return undefined;
  const text = `${cell.id} is open for placement again; what has left stays where it is`;
  const plan = onePlan("cell.uncordon", [{ action: "uncordon", object: cell.id, text }]);
  if (work.dryRun) return dryRunAnswer(plan);
  await work.record({ state: cell.state, drain: row.id }, { state: "active" });
  const change = {
    headline: `called off: ${text}`,
    step: "cancelled",
    state: "cancelled",
  } as const;
  if (!(await changeOp(tx, row, change, nowMs))) {
    throw new CellError("STATE_CONFLICT", "The drain went on meanwhile; repeat the command.");
  }
  for (const id of await movesFrom(tx, cell.id, row.id)) await askMove(tx, id, { wish: "cancel" });
  await tx
    .update(cellTable)
    .set({ state: "active", goal: "active" })
    .where(eq(cellTable.id, cell.id));
  await recordEvents(tx, [{ kind: "cell.drain-called-off", object: cell.id, text }]);
  return accept(work, {
    ...{ id: freshOpId(context, work), kind: "cell.uncordon", object: cell.id, plan },
    ...{ input: { cell: cell.id }, headline: text, done: true },
    nextSteps: [`cellctl cell get ${cell.id}`],
  });
}
