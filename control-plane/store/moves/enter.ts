/**
 * A move enters a step: leader's term, compare-and-set on the operation's version, the move's own row and
 * what belongs to the step, in one transaction. All of it stays, or nothing; a process that leads no
 * longer changes nothing.
 */
import { eq, sql } from "drizzle-orm";
import type { OpState } from "../../../contract/control-api.ts";
import type {
  MovePlan,
  MoveProgress,
  MoveStep,
  MoveVerification,
  PauseParts,
} from "../../../contract/move-api.ts";
import type { MoveView, MoveWish } from "../../core/move/move-view.ts";
import type { Failure } from "../../core/ops/machine.ts";
import { Abandoned } from "../abandoned.ts";
import type { Database, Tx } from "../database.ts";
import { type NewEvent, recordEvents } from "../events.ts";
import { holdsTerm } from "../leader.ts";
import { changeOp } from "../ops.ts";
import { fleet, leader, op } from "../schema.ts";
import { move } from "../schema-moves.ts";

/** `raced`: somebody else acted, or the fleet is recovering; look again. `deposed`: another leads. */
export type Entered = "entered" | "raced" | "deposed";

export type MovePatch = {
  readonly plan?: MovePlan;
  readonly wish?: MoveWish;
  readonly tries?: number;
  readonly holdRevision?: number;
  readonly releaseRevision?: number;
  readonly progress?: MoveProgress;
  readonly pause?: PauseParts;
  readonly verifications?: readonly MoveVerification[];
  /** Counted from the transaction's own time, by the database's clock. */
  readonly soakMs?: number;
  /** Why it is taken back; null: because somebody said so. */
  readonly failure?: Failure | null;
};

export type StepChange = {
  readonly step: MoveStep;
  readonly state: OpState;
  readonly headline: string;
  /** An earlier attempt's commands are void from here on. */
  readonly raiseAttempt?: boolean;
  readonly patch?: MovePatch;
  /** Shown as the operation's error. */
  readonly failure?: Failure;
  /** What belongs to the step; its revision is what live routers have to serve. */
  readonly within?: (tx: Tx, attempt: number) => Promise<MovePatch>;
  readonly events?: readonly NewEvent[];
  /** A lock that somebody holds for longer makes the transaction fail (55P03). */
  readonly lockTimeoutMs?: number;
};

export async function enterStep(
  database: Database,
  term: number,
  seen: MoveView,
  change: StepChange,
): Promise<Entered> {
  try {
    await database.transaction((tx) => write(tx, term, seen, change));
    return "entered";
  } catch (error) {
    if (error instanceof Abandoned) return error.why === "deposed" ? "deposed" : "raced";
    throw error;
  }
}

async function write(tx: Tx, term: number, seen: MoveView, change: StepChange): Promise<void> {
  if (change.lockTimeoutMs !== undefined) {
    await tx.execute(sql.raw(`set local lock_timeout = ${Math.ceil(change.lockTimeoutMs)}`));
  }
  // In one question: requests wait while a switch enters its steps.
  const { rows } = await tx.execute<{ term: number; mode: string; now_ms: number }>(sql`
    select l.term::float8 as term, f.mode, extract(epoch from clock_timestamp())::float8 * 1000 as now_ms
      from ${leader} l cross join ${fleet} f for share of l`);
  const [head] = rows;
  if (head?.term !== term) throw new Abandoned("deposed");
  // What it was decided on may not be true: recovery ends all open moves.
  if (head.mode !== "normal") throw new Abandoned("raced");
  const nowMs = Math.floor(head.now_ms);
  const attempt = seen.attempt + (change.raiseAttempt === true ? 1 : 0);
  const made = (await change.within?.(tx, attempt)) ?? {};
  await patchMove(tx, seen.id, { ...change.patch, ...made });
  const { failure } = change;
  const applied = await changeOp(
    tx,
    seen,
    {
      headline: change.headline,
      step: change.step,
      state: change.state,
      ...(failure === undefined ? {} : { failure }),
    },
    nowMs,
  );
  if (!applied) throw new Abandoned("raced");
  if (attempt !== seen.attempt) {
    await tx.update(op).set({ attempt }).where(eq(op.id, seen.id));
  }
  await recordEvents(tx, change.events ?? []);
}

async function patchMove(tx: Tx, id: string, patch: MovePatch): Promise<void> {
  const { soakMs, ...columns } = patch;
  const soak =
    soakMs === undefined
      ? {}
      : { soakUntil: sql`clock_timestamp() + ${soakMs} * interval '1 millisecond'` };
  if (Object.keys(columns).length === 0 && soakMs === undefined) return;
  await tx
    .update(move)
    .set({ ...columns, ...soak })
    .where(eq(move.op, id));
}

/** For what is left of a move that is over: nothing that an earlier attempt still sends comes after it. */
export async function raiseAttempt(
  database: Database,
  term: number,
  id: string,
): Promise<"raised" | "deposed"> {
  return database.transaction(async (tx) => {
    if (!(await holdsTerm(tx, term))) return "deposed";
    await tx
      .update(op)
      .set({ attempt: sql`${op.attempt} + 1` })
      .where(eq(op.id, id));
    return "raised";
  });
}

/** A note in passing: what is waited for, how far a copy is. Changes no version. */
export async function noteMove(
  database: Database,
  id: string,
  note: { readonly headline?: string; readonly progress?: MoveProgress },
): Promise<void> {
  const { headline, progress } = note;
  if (progress !== undefined) {
    await database.read.update(move).set({ progress }).where(eq(move.op, id));
  }
  if (headline !== undefined) {
    await database.read.update(op).set({ headline }).where(eq(op.id, id));
  }
}
