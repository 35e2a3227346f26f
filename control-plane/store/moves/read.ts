/** Moves as they are read: rows of `op`, `move` and `move_key` as one value, and its wire form. */
import { and, desc, eq, inArray, isNotNull, lt, ne, or, sql } from "drizzle-orm";
import { z } from "zod";
import { isErrorCode } from "../../../contract/errors.ts";
import {
  cellIdSchema,
  epochSchema,
  keyspaceNameSchema,
  opIdSchema,
} from "../../../contract/ids.ts";
import {
  type Move,
  type MoveStep,
  moveOptionsSchema,
  movePlanSchema,
  moveProgressSchema,
  moveSchema,
  type moveStatesAsked,
  moveSteps,
  moveVerificationSchema,
  pausePartsSchema,
} from "../../../contract/move-api.ts";
import { placementKeySchema } from "../../../contract/placement-key.ts";
import { must } from "../../../runtime/assert.ts";
import { isMoveEnd } from "../../core/move/move-state.ts";
import type { MoveView } from "../../core/move/move-view.ts";
import type { Failure } from "../../core/ops/machine.ts";
import type { Reader } from "../database.ts";
import { type OpRow, toOp } from "../ops.ts";
import { op } from "../schema.ts";
import { move, moveKey } from "../schema-moves.ts";

export type MoveRow = {
  readonly op: OpRow;
  readonly move: typeof move.$inferSelect;
  readonly keys: ReadonlyArray<typeof moveKey.$inferSelect>;
};

export const moveKind = "tenant.move";

export async function findMove(reader: Reader, id: string): Promise<MoveRow | undefined> {
  const [row] = await withKeys(
    reader,
    await reader
      .select({ op, move })
      .from(move)
      .innerJoin(op, eq(op.id, move.op))
      .where(eq(move.op, id)),
  );
  return row;
}

/** Of the moves that wait for their turn the oldest; of those under way all. */
const waitingMax = 200;

/** Moves that are not over, oldest first. */
export async function movesAtWork(
  reader: Reader,
  waiting: number = waitingMax,
): Promise<MoveRow[]> {
  const isOpen = and(eq(op.kind, moveKind), inArray(op.state, ["pending", "running"]));
  const select = () => reader.select({ op, move }).from(op).innerJoin(move, eq(op.id, move.op));
  const oldest = await select()
    .where(and(isOpen, eq(op.step, "planned")))
    .orderBy(op.id)
    .limit(waiting);
  const underWay = await select()
    .where(and(isOpen, ne(op.step, "planned")))
    .orderBy(op.id);
  const cancelled = await select()
    .where(and(isOpen, eq(op.step, "planned"), eq(move.wish, "cancel")))
    .orderBy(op.id)
    .limit(waitingMax);
  const rows = new Map([...oldest, ...cancelled, ...underWay].map((row) => [row.op.id, row]));
  return withKeys(
    reader,
    [...rows.values()].sort((x, y) => (x.op.id < y.op.id ? -1 : 1)),
  );
}

export type MoveFilter = {
  /** Moves with an id below this: newest first. */
  readonly before: string | undefined;
  readonly limit: number;
  readonly state?: (typeof moveStatesAsked)[number] | undefined;
  readonly step?: MoveStep | undefined;
  /** Source or target. */
  readonly cell?: string | undefined;
  /** Moves that this tenant is or was part of, by itself or under the container that it is in now. */
  readonly tenant?: string | undefined;
  readonly op?: string | undefined;
};

export async function listMoves(reader: Reader, filter: MoveFilter): Promise<MoveRow[]> {
  const { before, limit, state, step, cell, tenant } = filter;
  const rows = await reader
    .select({ op, move })
    .from(move)
    .innerJoin(op, eq(op.id, move.op))
    .where(
      and(
        before === undefined ? undefined : lt(move.op, before),
        state === undefined ? undefined : isIn(state),
        step === undefined ? undefined : eq(op.step, step),
        cell === undefined ? undefined : or(eq(move.source, cell), eq(move.target, cell)),
        filter.op === undefined ? undefined : eq(move.op, filter.op),
        tenant === undefined ? undefined : inArray(move.op, movesOf(reader, tenant)),
      ),
    )
    .orderBy(desc(move.op))
    .limit(limit);
  return withKeys(reader, rows);
}

const isIn = (state: NonNullable<MoveFilter["state"]>) =>
  state === "paused"
    ? and(eq(move.paused, true), inArray(op.state, ["pending", "running"]))
    : eq(op.state, state);

const movesOf = (reader: Reader, tenant: string) =>
  reader
    .select({ op: moveKey.op })
    .from(moveKey)
    .where(
      sql`(split_part(${moveKey.key}, '/', 2) = 'tenant' and split_part(${moveKey.key}, '/', 3) = ${tenant})
        or ${moveKey.key} in (select placement_key from cellfleet_control.tenant where id = ${tenant})`,
    );

/** The open move that takes this one back, if there is one. */
export async function openReverseOf(reader: Reader, id: string): Promise<string | undefined> {
  const [row] = await reader
    .select({ id: op.id })
    .from(move)
    .innerJoin(op, eq(op.id, move.op))
    .where(
      and(
        isNotNull(move.reverses),
        eq(move.reverses, id),
        inArray(op.state, ["pending", "running"]),
      ),
    )
    .limit(1);
  return row?.id;
}

async function withKeys(
  reader: Reader,
  rows: ReadonlyArray<Omit<MoveRow, "keys">>,
): Promise<MoveRow[]> {
  if (rows.length === 0) return [];
  const ids = rows.map((row) => row.op.id);
  const keys = await reader
    .select()
    .from(moveKey)
    .where(inArray(moveKey.op, ids))
    .orderBy(moveKey.op, sql`${moveKey.key} collate "C"`);
  const byOp = Map.groupBy(keys, (one) => one.op);
  return rows.map((row) => ({ ...row, keys: byOp.get(row.op.id) ?? [] }));
}

const stepSchema = z.enum(moveSteps);
const keysSchema = z.array(z.object({ key: placementKeySchema, epoch: epochSchema }));
const nothingYet = {
  ...{ rowsTotal: 0, rowsCopied: 0, bytesTotal: 0, bytesCopied: 0 },
  ...{ lagBytes: null, bytesPerSecond: null, etaMs: null },
};
/** Empty until the executor has written some. */
const progressOf = (raw: unknown) => moveProgressSchema.catch(nothingYet).parse(raw);
const failureSchema = z.object({
  code: z.string(),
  message: z.string(),
  nextSteps: z.array(z.string()),
});

function failureOf(raw: unknown): Failure | null {
  if (raw === null) return null;
  const { code, message, nextSteps } = failureSchema.parse(raw);
  return { code: isErrorCode(code) ? code : "OP_FAILED", message, nextSteps };
}

export function toMoveView(row: MoveRow): MoveView {
  return {
    id: opIdSchema.parse(row.op.id),
    object: row.op.object,
    step: stepSchema.parse(row.op.step),
    state: row.op.state,
    headline: row.op.headline,
    attempt: row.op.attempt,
    version: row.op.version,
    deadlineAtMs: row.op.deadlineAt?.getTime() ?? null,
    updatedAtMs: row.op.updatedAt.getTime(),
    keyspace: keyspaceNameSchema.parse(row.move.keyspace),
    keys: keysSchema.parse(row.keys),
    source: cellIdSchema.parse(row.move.source),
    target: cellIdSchema.parse(row.move.target),
    plan: movePlanSchema.parse(row.move.plan),
    options: moveOptionsSchema.parse(row.move.options),
    wish: row.move.wish,
    paused: row.move.paused,
    reverses: row.move.reverses === null ? null : opIdSchema.parse(row.move.reverses),
    tries: row.move.tries,
    holdRevision: row.move.holdRevision,
    releaseRevision: row.move.releaseRevision,
    progress: progressOf(row.move.progress),
    pause: pausePartsSchema.nullable().parse(row.move.pause),
    verifications: z.array(moveVerificationSchema).parse(row.move.verifications),
    soakUntilMs: row.move.soakUntil?.getTime() ?? null,
    failure: failureOf(row.move.failure),
  };
}

export const requireView = (row: MoveRow | undefined, id: string): MoveView =>
  toMoveView(must(row, `move ${id}`));

/** The wire form. */
export function toMove(row: MoveRow): Move {
  const asOp = toOp(row.op);
  const { move: own } = row;
  return moveSchema.parse({
    ...{ id: asOp.id, step: asOp.step, state: asOp.state, headline: asOp.headline },
    ...{
      attempt: asOp.attempt,
      version: asOp.version,
      steps: asOp.steps,
      error: asOp.error,
      reason: asOp.reason,
    },
    ...{ createdAt: asOp.createdAt, updatedAt: asOp.updatedAt },
    ...{ keyspace: own.keyspace, source: own.source, target: own.target },
    // Nobody resumes what is over.
    ...{ paused: own.paused && !isMoveEnd(stepSchema.parse(asOp.step)) },
    ...{ tries: own.tries, reverses: own.reverses, pause: own.pause },
    ...{ options: own.options, plan: own.plan, verifications: own.verifications },
    asked: own.wish === "none" ? null : own.wish,
    keys: row.keys.map(({ key }) => key),
    progress: progressOf(own.progress),
    soakUntil: own.soakUntil?.toISOString() ?? null,
  });
}
