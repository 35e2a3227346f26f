/** Draining: its beginning, and its being called off (`cell uncordon` of a cell that drains). */
import { eq } from "drizzle-orm";
import type { z } from "zod";
import { acceptedSchema, dryRunSchema, type Plan } from "../../contract/control-api.ts";
import { drainCellSchema } from "../../contract/drain-api.ts";
import { CellError } from "../../contract/errors.ts";
import { cellIdSchema } from "../../contract/ids.ts";
import { planEmptying } from "../core/emptying.ts";
import type { CellView } from "../core/fleet.ts";
import { onePlan } from "../core/ops/machine.ts";
import { drainKind, openDrainOf } from "../store/balancing/read.ts";
import { movesFrom, readLeaving } from "../store/emptying.ts";
import { recordEvents } from "../store/events.ts";
import { readCells } from "../store/fleet-store.ts";
import { askMove } from "../store/moves/ask.ts";
import { changeOp, insertOp, openOpOn, toOp } from "../store/ops.ts";
import { lockNormalFleet } from "../store/routing-change.ts";
import { cell as cellTable } from "../store/schema.ts";
import { dryRunAnswer, freshOpId } from "./accept.ts";
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
  const plan = planOf(id, leaving.left, found);
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
    headline: `${leaving.left} keys are to leave ${id}`,
    ...{ actor: work.actor.name, reason: work.reason, revision: null, nowMs: work.nowMs },
    deadlineMs: wanted.deadlineMs,
  });
  const steps = [`cellctl op watch ${opId}`, `cellctl cell uncordon ${id}   (calls it off)`];
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

function planOf(id: string, left: number, found: ReturnType<typeof planEmptying>): Plan {
  const steps = [
    { action: "cordon", object: id, text: `${id} takes no new tenants` },
    ...found.departures.map(({ target, keyspace, keys }) => ({
      action: "move",
      object: target,
      text: `${keys.length} keys of ${keyspace} to ${target}, live, a few at a time`,
    })),
    { action: "finish", object: id, text: `${left} keys have left: ${id} is cordoned` },
  ];
  const skipped = found.blocked.map(({ key, text }) => ({
    object: key,
    reason: "nowhere",
    text: `no cell may take it: ${text}`,
  }));
  return { ...onePlan(drainKind, steps), skipped };
}

/** Reversible until it is empty: moves that have not switched are called off, what has left stays away. */
export async function callOffDrain(work: Work, cell: CellView): Promise<Answer | undefined> {
  const { tx, nowMs } = work;
  const row = await openDrainOf(tx, cell.id);
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
  const op = toOp({ ...row, ...change, version: row.version + 1 });
  return { status: 202, body: { op, plan, next_steps: [`cellctl cell get ${cell.id}`] } };
}
