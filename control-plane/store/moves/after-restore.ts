/**
 * Moves after a restore of the control plane's database. What is recorded of them may be older than what
 * the cells have lived through, so none goes on: recovery has just asked the cells who owns what, and a
 * copy that was being made (`importing`) is nobody's. What moves have left in databases is swept.
 */
import { inArray } from "drizzle-orm";
import { CellError } from "../../../contract/errors.ts";
import { databaseNowMs, type Tx } from "../database.ts";
import type { NewEvent } from "../events.ts";
import { changeOp } from "../ops.ts";
import { moveKey } from "../schema-moves.ts";
import { movesAtWork, toMoveView } from "./read.ts";

/** In the transaction that ends recovery, whose count of each cell's load replaces what moves had reserved. */
export async function endMovesOfBefore(tx: Tx): Promise<readonly NewEvent[]> {
  const moves = (await movesAtWork(tx, Number.MAX_SAFE_INTEGER)).map(toMoveView);
  if (moves.length === 0) return [];
  const nowMs = await databaseNowMs(tx);
  for (const move of moves) {
    const { code, message, nextSteps } = restored(move.id, move.step);
    const failure = { code, message, nextSteps };
    await changeOp(
      tx,
      move,
      { step: "failed", state: "failed", headline: message, failure },
      nowMs,
    );
  }
  const ids = moves.map(({ id }) => id);
  await tx.update(moveKey).set({ open: false }).where(inArray(moveKey.op, ids));
  return moves.map((move) => ({
    kind: "move.failed",
    object: move.id,
    text: restored(move.id, move.step).message,
  }));
}

const restored = (id: string, step: string): CellError =>
  new CellError(
    "OP_FAILED",
    `${id} was ${step} when the control plane's database was restored. It goes no further: the cells said who owns its keys, and what it has left is removed.`,
    { nextSteps: [`cellctl move show ${id}`, "cellctl move plan"] },
  );
