/**
 * What the API writes of moves: a new one, and what is asked of one that runs. From its first row on the
 * executor alone changes its step. Asking changes no version: it must not make the executor lose a race
 * in the middle of a switch.
 */
import { and, asc, eq, inArray, ne, sql } from "drizzle-orm";
import type { MoveOptions, MovePlan, MoveStep } from "../../../contract/move-api.ts";
import type { Reader, Tx } from "../database.ts";
import { insertOp, type NewOp, type OpRow, wakeWatchers } from "../ops.ts";
import { op } from "../schema.ts";
import { move, moveKey } from "../schema-moves.ts";
import { findMove, type MoveRow, moveKind } from "./read.ts";

export type NewMove = {
  readonly op: Pick<
    NewOp,
    "id" | "object" | "headline" | "plan" | "input" | "actor" | "reason" | "nowMs"
  >;
  readonly plan: MovePlan;
  readonly options: MoveOptions;
  readonly keys: ReadonlyArray<{ readonly key: string; readonly epoch: number }>;
  readonly reverses: string | null;
};

const firstStep: MoveStep = "planned";

/** The keys must not be in motion: the caller has looked, under the fleet's lock. */
export async function insertMove(tx: Tx, fresh: NewMove): Promise<void> {
  const { plan, options, reverses } = fresh;
  await insertOp(tx, {
    ...fresh.op,
    ...{ kind: moveKind, step: firstStep, state: "running" },
    ...{ revision: null, deadlineMs: undefined },
  });
  const { keyspace, source, target } = plan;
  const row = { op: fresh.op.id, keyspace, source, target, plan, options, reverses };
  await tx.insert(move).values(row);
  const keys = fresh.keys.map(({ key, epoch }) => ({ op: fresh.op.id, key, epoch }));
  await tx.insert(moveKey).values(keys);
}

/**
 * The keys of a move pass to the one that takes it back: a key is open in one move at most. A way back
 * that ends before its switch opens them again for the first.
 */
export const closeKeys = (tx: Tx, id: string): Promise<unknown> =>
  tx.update(moveKey).set({ open: false }).where(eq(moveKey.op, id));

/** In the order of whoever enters a step, which either sees what is asked here, or comes before it. */
export async function lockMove(tx: Tx, id: string): Promise<MoveRow | undefined> {
  await tx.select({ op: move.op }).from(move).where(eq(move.op, id)).for("update");
  await tx.select({ id: op.id }).from(op).where(eq(op.id, id)).for("update");
  return findMove(tx, id);
}

type Asked = Partial<Pick<typeof move.$inferInsert, "wish" | "paused">>;

export async function askMove(tx: Tx, id: string, asked: Asked): Promise<void> {
  await tx.update(move).set(asked).where(eq(move.op, id));
  await wakeWatchers(tx, [id]);
}

export type KeyInMotion = {
  readonly key: string;
  readonly id: string;
  readonly step: string;
  readonly source: string;
  readonly target: string;
  /** At the source, when the move began; the target gets the next one. */
  readonly epoch: number;
};

/** Which of these keys an open move has. */
export async function inMotion(
  reader: Reader,
  keys: readonly string[],
): Promise<readonly KeyInMotion[]> {
  if (keys.length === 0) return [];
  return reader
    .select({
      ...{ key: moveKey.key, id: op.id, step: op.step },
      ...{ source: move.source, target: move.target, epoch: moveKey.epoch },
    })
    .from(moveKey)
    .innerJoin(op, eq(op.id, moveKey.op))
    .innerJoin(move, eq(move.op, moveKey.op))
    .where(and(inArray(moveKey.key, [...keys]), eq(moveKey.open, true)))
    .orderBy(asc(moveKey.key));
}

/** An open operation, no move, on one of these keys or tenants: it would change the placement beneath a move. */
export async function otherOpOn(
  reader: Reader,
  keys: readonly string[],
  tenants: readonly string[],
): Promise<OpRow | undefined> {
  const [open] = await reader
    .select()
    .from(op)
    .where(
      and(
        inArray(op.state, ["pending", "running"]),
        ne(op.kind, moveKind),
        sql`(${op.object} in (select jsonb_array_elements_text(${JSON.stringify([...keys, ...tenants])}::jsonb))
          or ${op.input} ->> 'key' in (select jsonb_array_elements_text(${JSON.stringify(keys)}::jsonb))
          or ${op.input} ->> 'container' in (select jsonb_array_elements_text(${JSON.stringify(keys)}::jsonb)))`,
      ),
    )
    .limit(1);
  return open;
}
