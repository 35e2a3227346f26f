/**
 * Keys in motion: while a move of a key is open, no other operation changes its placement. Whoever is
 * about to holds the fleet's lock, so that nothing comes in between the look and the change.
 */
import { and, eq, inArray, ne, or } from "drizzle-orm";
import { CellError } from "../../../contract/errors.ts";
import type { MoveStep } from "../../../contract/move-api.ts";
import type { Reader } from "../database.ts";
import { op, placement } from "../schema.ts";
import { move } from "../schema-moves.ts";
import { inMotion, type KeyInMotion } from "./ask.ts";
import { moveKind } from "./read.ts";

/** The switch is over and the target owns the keys: who stops serving them there takes nothing from the move. */
export const afterSwitch: readonly MoveStep[] = ["soaking", "diverged"];

/** Throws KEY_IN_MOTION, naming all of them. `but`: steps in which a move is no obstacle. */
export async function requireAtRest(
  reader: Reader,
  keys: readonly string[],
  but: readonly MoveStep[] = [],
): Promise<void> {
  const moving = (await inMotion(reader, keys)).filter(
    ({ step }) => !but.some((one) => one === step),
  );
  const [first] = moving;
  if (first === undefined) return;
  const { key, id } = first;
  const moves = [...new Map(moving.map((one) => [one.id, one])).values()];
  throw new CellError("KEY_IN_MOTION", `${moving.map(inMotionText).join("; ")}.`, {
    details: { key, move: id, keys: moving.map((one) => one.key) },
    nextSteps: moves.slice(0, movesShownMax).flatMap(nextFor),
  });
}

const movesShownMax = 5;

const nextFor = ({ id, step }: { readonly id: string; readonly step: string }): string[] =>
  afterSwitch.some((one) => one === step)
    ? [`cellctl move complete ${id}`, `cellctl move reverse ${id}`]
    : [`cellctl move show ${id}`, `cellctl move cancel ${id}`];

const inMotionText = (one: KeyInMotion): string => `${one.key} ${movingText(one)}`;

export const movingText = ({ id, step, source, target }: KeyInMotion): string =>
  `is part of the move ${id} from ${source} to ${target}, which is ${step}`;

/** Of these keys one that nobody is served under: it is suspended, or on its way back from there. */
export async function findUnserved(
  reader: Reader,
  keys: readonly string[],
): Promise<{ readonly key: string; readonly state: string } | undefined> {
  const [row] = await reader
    .select({ key: placement.key, state: placement.state })
    .from(placement)
    .where(and(inArray(placement.key, [...keys]), ne(placement.state, "active")))
    .orderBy(placement.key)
    .limit(1);
  return row;
}

/** The open move that takes keys from or to this cell, if there is one. */
async function openMoveAt(
  reader: Reader,
  cellId: string,
): Promise<{ readonly id: string; readonly step: string; readonly headline: string } | undefined> {
  const [row] = await reader
    .select({ id: op.id, step: op.step, headline: op.headline })
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
      nextSteps: nextFor(open),
    },
  );
}
