/**
 * What a move may have made in cells' databases: recorded in the transaction that comes before it is
 * made, forgotten when it is certainly gone. What is left of a move that is over is swept later.
 */
import { and, eq, gt, inArray, notInArray, sql } from "drizzle-orm";
import type { OpId } from "../../../contract/ids.ts";
import type { Reader, Tx } from "../database.ts";
import { cell, op } from "../schema.ts";
import { move, moveKey, moveObject } from "../schema-moves.ts";

export type MadeObject = Omit<typeof moveObject.$inferInsert, "op" | "createdAt">;

export async function recordObjects(
  tx: Tx,
  id: OpId,
  objects: readonly MadeObject[],
): Promise<void> {
  if (objects.length === 0) return;
  await tx
    .insert(moveObject)
    .values(objects.map(({ cell, store, kind, name }) => ({ op: id, cell, store, kind, name })))
    .onConflictDoNothing();
}

/** `butIn`: what it made in these cells stands. */
export const forgetObjects = (
  reader: Reader,
  id: string,
  butIn: Iterable<string> = [],
): Promise<unknown> =>
  reader
    .delete(moveObject)
    .where(and(eq(moveObject.op, id), notInArray(moveObject.cell, [...butIn])));

/** What one move made is another's to remove: the one that takes it back. */
export async function inheritObjects(tx: Tx, from: string, to: string): Promise<void> {
  await tx.execute(sql`
    insert into cellfleet_control.move_object (op, cell, store, kind, name)
    select ${to}, cell, store, kind, name from cellfleet_control.move_object where op = ${from}
    on conflict do nothing`);
  await forgetObjects(tx, from);
}

/**
 * Cells that are kept as they are until a person has said what becomes of them. Their slots tell a salvage what
 * their standbys lack: whatever is tidied away there would stand in them as somebody's deletion.
 */
export async function cellsKeptAsTheyAre(reader: Reader): Promise<ReadonlySet<string>> {
  const rows = await reader.select({ id: cell.id }).from(cell).where(eq(cell.state, "quarantined"));
  return new Set(rows.map(({ id }) => id));
}

/** Moves that are over and may have left something in a cell that is not among these. */
export async function movesWithRemains(
  reader: Reader,
  kept: ReadonlySet<string>,
): Promise<string[]> {
  const rows = await reader
    .selectDistinct({ id: moveObject.op })
    .from(moveObject)
    .innerJoin(op, eq(op.id, moveObject.op))
    .where(
      and(notInArray(op.state, ["pending", "running"]), notInArray(moveObject.cell, [...kept])),
    )
    .orderBy(moveObject.op);
  return rows.map(({ id }) => id);
}

/** Has no move been begun since that has one of these keys? */
export async function isLatestOf(
  reader: Reader,
  id: string,
  keys: readonly string[],
): Promise<boolean> {
  const later = and(inArray(moveKey.key, [...keys]), gt(moveKey.op, id));
  return (await reader.$count(moveKey, later)) === 0;
}

/**
 * Which of these moves may still need their streams: those that are not over, and those whose stream an open one has taken over.
 */
export async function inUseAmong(reader: Reader, ids: readonly string[]): Promise<Set<string>> {
  if (ids.length === 0) return new Set();
  const rows = await reader
    .select({ id: move.op, reverses: move.reverses })
    .from(move)
    .innerJoin(op, eq(op.id, move.op))
    .where(inArray(op.state, ["pending", "running"]));
  const wanted = new Set(ids);
  const inUse = rows.flatMap(({ id, reverses }) => (reverses === null ? [id] : [id, reverses]));
  return new Set(inUse.filter((id) => wanted.has(id)));
}
