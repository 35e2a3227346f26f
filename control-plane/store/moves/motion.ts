/**
 * Keys in motion: while a move of a key is open, no other operation changes its placement. Whoever is
 * about to holds the fleet's lock, so that nothing comes in between the look and the change.
 */
import { and, eq, inArray, or } from "drizzle-orm";
import { CellError } from "../../../contract/errors.ts";
import type { Reader } from "../database.ts";
import { op } from "../schema.ts";
import { move } from "../schema-moves.ts";
import { inMotion } from "./ask.ts";
import { moveKind } from "./read.ts";

/** Throws KEY_IN_MOTION. */
export async function requireAtRest(reader: Reader, keys: readonly string[]): Promise<void> {
  const [first] = await inMotion(reader, keys);
  if (first === undefined) return;
  const { key, id, step, source, target } = first;
  throw new CellError(
    "KEY_IN_MOTION",
    `${key} is part of the move ${id} from ${source} to ${target}, which is ${step}.`,
    {
      details: { key, move: id },
      nextSteps:
        step === "soaking" || step === "diverged"
          ? [`cellctl move complete ${id}`, `cellctl move reverse ${id}`]
          : [`cellctl move show ${id}`, `cellctl move cancel ${id}`],
    },
  );
}

/** The open move that takes keys from or to this cell, if there is one. */
async function openMoveAt(
  reader: Reader,
  cellId: string,
): Promise<{ readonly id: string; readonly headline: string } | undefined> {
  const [row] = await reader
    .select({ id: op.id, headline: op.headline })
    .from(op)
    .innerJoin(move, eq(move.op, op.id))
    .where(
      and(
        eq(op.kind, moveKind),
        inArray(op.state, ["pending", "running"]),
        or(eq(move.source, cellId), eq(move.target, cellId)),
      ),
    )
    .orderBy(op.id)
    .limit(1);
  return row;
}

/** Throws SAFETY_RULE: a move needs both of its cells until it is over. */
export async function requireNoMoveAt(
  reader: Reader,
  cellId: string,
  action: string,
): Promise<void> {
  const open = await openMoveAt(reader, cellId);
  if (open === undefined) return;
  throw new CellError(
    "SAFETY_RULE",
    `${cellId} is part of the move ${open.id} (${open.headline}); ${action} waits until it is over.`,
    {
      details: { rule: "open-moves", move: open.id },
      nextSteps: [`cellctl move show ${open.id}`, `cellctl move cancel ${open.id}`],
    },
  );
}
