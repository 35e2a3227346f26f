/** The ends of a move: its keys are at rest again, and the books say what is where. */
import { and, eq, inArray } from "drizzle-orm";
import { must } from "../../../runtime/assert.ts";
import { nextMoveStep } from "../../core/move/move-state.ts";
import type { MoveView } from "../../core/move/move-view.ts";
import { databaseNowMs, type Tx } from "../database.ts";
import { changeOp } from "../ops.ts";
import { op } from "../schema.ts";
import { moveKey } from "../schema-moves.ts";
import { closeKeys } from "./ask.ts";
import { findMove, requireView } from "./read.ts";
import { giveRoomBack } from "./room.ts";

export const endMoved = (tx: Tx, id: string): Promise<unknown> => closeKeys(tx, id);

/** Its keys stayed where they were. Those of a way back belong to the first move again, which soaks on. */
export async function endUnmoved(tx: Tx, view: MoveView): Promise<void> {
  await giveRoomBack(tx, view.id);
  await closeKeys(tx, view.id);
  if (view.reverses === null) return;
  const first = await tx
    .select({ id: op.id })
    .from(op)
    .where(and(eq(op.id, view.reverses), inArray(op.state, ["pending", "running"])));
  if (first.length === 0) return;
  await tx.update(moveKey).set({ open: true }).where(eq(moveKey.op, view.reverses));
}

/** The move that was taken back is over; what it had made is the other's to remove. */
export async function endHandedOver(tx: Tx, id: string, to: string): Promise<void> {
  await tx.select({ id: op.id }).from(op).where(eq(op.id, id)).for("update");
  const first = requireView(await findMove(tx, id), id);
  if (first.state !== "running") return;
  const step = must(nextMoveStep(first.step, "handed-over"), `handed-over after ${first.step}`);
  const headline = `taken back by ${to}: ${first.source} serves again`;
  await changeOp(tx, first, { step, state: "done", headline }, await databaseNowMs(tx));
}
