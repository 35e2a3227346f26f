/**
 * What is asked of a move that runs: a wish beside its steps, or a move back. Under the lock of the
 * move's own row, so that a step that is being entered is seen or comes after; each refusal says what
 * is possible now.
 */

import type { z } from "zod";
import { CellError } from "../../contract/errors.ts";
import { tenantIdSchema } from "../../contract/ids.ts";
import {
  type Move,
  type MoveAction,
  type moveActionSchema,
  moveOptionsSchema,
  movePlanSchema,
} from "../../contract/move-api.ts";
import { assert, must } from "../../runtime/assert.ts";
import { type MoveSituation, nextForMove, refuseAction } from "../core/move/move-actions.ts";
import { planSteps } from "../core/move/move-plan.ts";
import { roomOf } from "../core/move/move-target.ts";
import type { Reader } from "../store/database.ts";
import { askMove, closeKeys, lockMove } from "../store/moves/ask.ts";
import { loadsUnder, placementsByKey } from "../store/moves/candidates.ts";
import { findMove, type MoveRow, openReverseOf, toMove } from "../store/moves/read.ts";
import { takeRoom } from "../store/moves/room.ts";
import { changeOp } from "../store/ops.ts";
import type { PlacementRow } from "../store/placements.ts";
import { lockNormalFleet } from "../store/routing-change.ts";
import { freshOpId } from "./accept.ts";
import { requireCell } from "./cell-lookup.ts";
import type { ApiContext } from "./context.ts";
import type { Answer } from "./endpoint.ts";
import { recordMove } from "./moves-start.ts";
import type { Work } from "./mutation.ts";

type Asked = z.output<typeof moveActionSchema>;

export const moveUnknown = (id: string): CellError =>
  new CellError("MOVE_UNKNOWN", `There is no move ${id}.`, {
    // Who names a tenant means its moves.
    nextSteps:
      !id.startsWith("op_") && tenantIdSchema.safeParse(id).success
        ? [`cellctl move ls --tenant ${id}`, "cellctl move ls"]
        : ["cellctl move ls"],
  });

export async function situationOf(reader: Reader, move: Move): Promise<MoveSituation> {
  return { ...move, reversal: await openReverseOf(reader, move.id) };
}

/** Throws MOVE_UNKNOWN, STATE_CONFLICT, RECOVERING. */
export async function actOnMove(
  context: ApiContext,
  work: Work,
  on: { readonly id: string; readonly action: MoveAction; readonly asked: Asked },
): Promise<Answer> {
  const { tx } = work;
  const { id, action } = on;
  await lockNormalFleet(tx);
  const row = await lockMove(tx, id);
  if (row === undefined) throw moveUnknown(id);
  const move = toMove(row);
  const situation = await situationOf(tx, move);
  const refusal = refuseAction(situation, action);
  if (refusal !== undefined) {
    throw new CellError("STATE_CONFLICT", refusal.text, {
      details: { move: id, step: move.step, action },
      nextSteps: refusal.nextSteps,
    });
  }
  if (action === "reverse") return reverseMove(context, work, row, on.asked);
  const asked =
    action === "pause" || action === "resume"
      ? { paused: action === "pause" }
      : // What is cancelled goes on to its end, and nobody resumes it.
        { wish: action, ...(action === "cancel" ? { paused: false } : {}) };
  if (!work.dryRun) {
    await work.record({ step: move.step, asked: move.asked, paused: move.paused }, asked);
    await askMove(tx, id, asked);
  }
  return answer(tx, id, work.dryRun);
}

async function answer(reader: Reader, id: string, dryRun: boolean): Promise<Answer> {
  const move = toMove(must(await findMove(reader, id), `move ${id}`));
  const next = nextForMove(await situationOf(reader, move));
  return { status: dryRun ? 200 : 202, body: { move, next_steps: next } };
}

/**
 * A move of its own, back on the stream that is open. Room is taken without asking for it: the rows
 * stand there already, and the way back must not be lost to a cell that has filled up meanwhile.
 */
async function reverseMove(
  context: ApiContext,
  work: Work,
  row: MoveRow,
  asked: Asked,
): Promise<Answer> {
  const { tx } = work;
  const move = toMove(row);
  const { source: target, target: source, keyspace, keys } = move;
  for (const id of [source, target]) await requireHealthy(tx, id);
  const rows = await placementsByKey(tx, keys);
  requireServed(move, rows);
  const options = moveOptionsSchema.parse({
    ...move.options,
    switch: "auto",
    ...asked.options,
  });
  const plan = movePlanSchema.parse({
    ...{ keyspace, keys, source, target, stores: move.plan.stores, tables: move.plan.tables },
    checks: [],
    estimate: { ...move.plan.estimate, copyMs: 0 },
    steps: planSteps({ source, target, options, isReversal: true }),
  });
  if (work.dryRun) return answer(tx, move.id, true);
  const id = freshOpId(context, work);
  await work.record({ move: move.id, step: move.step }, { id, source, target, keys, options });
  const loads = (await loadsUnder(tx, keys)).map((load) => ({ ...load, name: load.key }));
  const room = roomOf(loads);
  await takeRoom(tx, target, room);
  await closeKeys(tx, move.id);
  // Its version too: who has just decided that the soak is over must not close the way back.
  const headline = `being taken back by ${id}`;
  assert(await changeOp(tx, row.op, { headline }, work.nowMs), "the operation is locked");
  await recordMove(work, { id, plan, options, rows, room, reverses: move.id });
  return answer(tx, id, false);
}

/** What is suspended rests where it is: on the way nobody could tell its fence from the move's. */
function requireServed({ id, keys, target }: Move, rows: readonly PlacementRow[]): void {
  const lost = keys.find((key) => !rows.some((row) => row.key === key && row.cell === target));
  const resting = rows.find(({ state }) => state !== "active");
  if (lost === undefined && resting === undefined) return;
  if (lost === undefined && resting?.kind === "tenant" && resting.state === "suspended") {
    throw new CellError(
      "STATE_CONFLICT",
      `${resting.value} is suspended; only what is served is moved back.`,
      {
        details: { move: id, key: resting.key, state: resting.state },
        nextSteps: [`cellctl tenant resume ${resting.value}`, `cellctl move complete ${id}`],
      },
    );
  }
  throw new CellError("STATE_CONFLICT", `${lost ?? resting?.key} is not served by ${target} now.`, {
    nextSteps: [`cellctl move show ${id}`],
  });
}

async function requireHealthy(reader: Reader, id: string): Promise<void> {
  const cell = await requireCell(reader, id);
  if (cell.health === "healthy" && cell.state !== "retired") return;
  throw new CellError(
    "STATE_CONFLICT",
    `${id} is ${cell.state === "retired" ? "retired" : cell.health}: nothing can be moved back now.`,
    { details: { cell: id }, nextSteps: [`cellctl cell get ${id}`] },
  );
}
