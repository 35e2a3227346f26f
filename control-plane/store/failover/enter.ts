/**
 * A failover enters a step: leader's term, compare-and-set on the operation's version, the failover's own
 * row and what belongs to the step, in one transaction. All of it stays, or nothing; a process that leads
 * no longer changes nothing.
 */
import { eq, sql } from "drizzle-orm";
import type { OpState } from "../../../contract/control-api.ts";
import type { FailoverStep, RpoReport } from "../../../contract/failover-api.ts";
import { handoverSteps } from "../../core/failover/failover-state.ts";
import {
  addPhase,
  type FailoverEvidence,
  type FailoverProgress,
  type FailoverRun,
} from "../../core/failover/phases.ts";
import type { Failure } from "../../core/ops/machine.ts";
import { Abandoned } from "../abandoned.ts";
import type { Database, Tx } from "../database.ts";
import { type NewEvent, recordEvents } from "../events.ts";
import { changeOp } from "../ops.ts";
import { changeRouting } from "../routing-change.ts";
import { fleet, leader, op } from "../schema.ts";
import { failover } from "../schema-standby.ts";

/** `raced`: somebody else acted, or the fleet is recovering; look again. `deposed`: another leads. */
export type Entered = "entered" | "raced" | "deposed";

export type FailoverPatch = {
  /** Laid over what is noted already, part by part. */
  readonly evidence?: Partial<FailoverEvidence>;
  readonly progress?: FailoverProgress;
  readonly wish?: FailoverRun["wish"];
  readonly report?: RpoReport;
  /** By the transaction's own time. */
  readonly revoked?: boolean;
  readonly fenced?: boolean;
  readonly open?: boolean;
};

export type FailoverChange = {
  readonly step: FailoverStep;
  readonly state: OpState;
  readonly headline: string;
  /** An earlier attempt's commands are void from here on. */
  readonly raiseAttempt?: boolean;
  readonly patch?: FailoverPatch;
  readonly failure?: Failure;
  /** What belongs to the step; what it returns is patched over `patch`. */
  readonly within?: (tx: Tx, attempt: number) => Promise<FailoverPatch>;
  readonly events?: readonly NewEvent[];
};

export async function enterFailover(
  database: Database,
  term: number,
  seen: FailoverRun,
  change: FailoverChange,
): Promise<Entered> {
  try {
    await database.transaction((tx) => write(tx, term, seen, change));
    return "entered";
  } catch (error) {
    if (error instanceof Abandoned) return error.why === "deposed" ? "deposed" : "raced";
    throw error;
  }
}

async function write(
  tx: Tx,
  term: number,
  seen: FailoverRun,
  change: FailoverChange,
): Promise<void> {
  // The fleet's row first, as in every transaction.
  await tellOfHandover(tx, seen.step, change.step);
  const nowMs = await requireSeat(tx, term);
  const attempt = seen.attempt + (change.raiseAttempt === true ? 1 : 0);
  const made = (await change.within?.(tx, attempt)) ?? {};
  await patchRow(tx, seen, { ...change.patch, ...made }, change.step, nowMs);
  const { failure, headline, step, state } = change;
  const applied = await changeOp(
    tx,
    seen,
    { headline, step, state, ...(failure === undefined ? {} : { failure }) },
    nowMs,
  );
  if (!applied) throw new Abandoned("raced");
  if (attempt !== seen.attempt) await tx.update(op).set({ attempt }).where(eq(op.id, seen.id));
  await recordEvents(tx, change.events ?? []);
}

/** Routers learn from the table whether keys of the cell change hands now; agents are woken by it, too. */
async function tellOfHandover(tx: Tx, from: FailoverStep, to: FailoverStep): Promise<void> {
  if (handoverSteps.includes(from) !== handoverSteps.includes(to)) {
    await changeRouting(tx, { config: true });
  }
}

/** The database's time. Recovery ends what was decided on may not be true any more. */
async function requireSeat(tx: Tx, term: number): Promise<number> {
  const { rows } = await tx.execute<{ term: number; mode: string; now_ms: number }>(sql`
    select l.term::float8 as term, f.mode, extract(epoch from clock_timestamp())::float8 * 1000 as now_ms
      from ${leader} l cross join ${fleet} f for share of l`);
  const [head] = rows;
  if (head?.term !== term) throw new Abandoned("deposed");
  if (head.mode !== "normal") throw new Abandoned("raced");
  return Math.floor(head.now_ms);
}

async function patchRow(
  tx: Tx,
  seen: FailoverRun,
  patch: FailoverPatch,
  step: FailoverStep,
  nowMs: number,
): Promise<void> {
  const { evidence = {}, revoked, fenced, ...columns } = patch;
  const since = seen.evidence.enteredAtMs ?? seen.createdAtMs;
  const isNew = step !== seen.step;
  const learnt = isNew ? { ...evidence, enteredAtMs: nowMs } : evidence;
  await tx
    .update(failover)
    .set({
      ...columns,
      ...(isNew ? { phases: addPhase(seen.phases, seen.step, since, nowMs) } : {}),
      evidence: sql`${failover.evidence} || ${JSON.stringify(learnt)}::jsonb`,
      ...(revoked === true ? { revokedAt: sql`clock_timestamp()` } : {}),
      ...(fenced === true ? { fencedAt: sql`clock_timestamp()` } : {}),
    })
    .where(eq(failover.op, seen.id));
}

/**
 * Inside a step: what belongs to a wave is written by the executor that leads and whose attempt is the
 * last, or not at all. Holds the operation's row, so a takeover comes before or after it.
 */
export async function requireTurn(
  tx: Tx,
  term: number,
  run: Pick<FailoverRun, "id" | "attempt" | "step">,
): Promise<void> {
  await requireSeat(tx, term);
  const [row] = await tx
    .select({ attempt: op.attempt, step: op.step, state: op.state })
    .from(op)
    .where(eq(op.id, run.id))
    .for("share");
  const isMine = row?.attempt === run.attempt && row.step === run.step && row.state === "running";
  if (!isMine) throw new Abandoned("raced");
}

/** A wish that was made until now is heard: whoever enters the next step comes after it. */
export async function requireNoAbort(tx: Tx, id: string): Promise<void> {
  const [row] = await tx
    .select({ wish: failover.wish })
    .from(failover)
    .where(eq(failover.op, id))
    .for("update");
  if (row?.wish === "abort") throw new Abandoned("raced");
}
