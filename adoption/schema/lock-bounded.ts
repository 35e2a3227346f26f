/**
 * Runs one short transaction that needs a table for itself, so that no query of the application
 * waits long.
 *
 * A lock request that waits blocks every later query of that table, however harmless, behind it; so
 * the request gives up after `lockTimeoutMs` and everybody goes on, and comes again after a pause.
 * All statements travel in one message: between them no round trip holds the table.
 */
import type pg from "pg";
import { sqlStateOf } from "../../cell/store/queryable.ts";
import { CellError } from "../../contract/errors.ts";
import type { Clock } from "../../runtime/clock.ts";
import { jitter, type Random } from "../../runtime/random.ts";
import { readBlockers } from "./blockers.ts";
import type { Step, StepEvent } from "./step.ts";

export type LockLimits = {
  /** How long a request may wait, and with it whoever came after it. */
  readonly lockTimeoutMs: number;
  /** How long one statement may run while the table is held. */
  readonly heldStatementMs: number;
  readonly pauseMinMs: number;
  readonly pauseMaxMs: number;
  /** After so many tries it is said who stands in the way; and every so many again. */
  readonly triesUntilBlamed: number;
  /** In all, for one step. */
  readonly giveUpMs: number;
  /** For an agent to lease ids: it asks every second or so, if there is one. */
  readonly rangeWaitMs: number;
};

export const lockLimitsDefault: LockLimits = {
  lockTimeoutMs: 50,
  heldStatementMs: 50,
  pauseMinMs: 150,
  pauseMaxMs: 1500,
  triesUntilBlamed: 5,
  giveUpMs: 600_000,
  rangeWaitMs: 60_000,
};

export type LockContext = {
  readonly client: pg.Client;
  readonly clock: Clock;
  readonly random: Random;
  readonly limits: LockLimits;
  readonly emit: (event: StepEvent) => Promise<void> | void;
  readonly signal: AbortSignal;
};

/**
 * Autovacuum gives a table up only to who has waited for deadlock_timeout, 1 s as a rule, and we never
 * wait that long. Who may not set it waits for the vacuum to end, and is told that it is one.
 */
const yieldAutovacuum =
  "select set_config('deadlock_timeout', '10ms', true) where has_parameter_privilege(current_user, 'deadlock_timeout', 'SET');";
const readClock = "select (extract(epoch from clock_timestamp()) * 1000)::float8 as at;";
/** lock_timeout, a statement that was cancelled by its own limit, a deadlock that we lost. */
const worthAnotherTry = ["55P03", "57014", "40P01"];

/** Throws STATE_CONFLICT when `giveUpMs` have passed; nothing of this step is then changed. */
export async function runLocked(context: LockContext, step: Step): Promise<void> {
  const { client, clock, random, limits, emit, signal } = context;
  const text = lockedText(step, limits);
  const startMs = clock.monotonicMs();
  for (let tries = 1; ; tries += 1) {
    signal.throwIfAborted();
    const beganMs = clock.monotonicMs();
    const outcome = await attempt(client, text);
    const tookMs = clock.monotonicMs() - beganMs;
    if (outcome.kind === "got") {
      const { waitedMs, heldMs } = outcome;
      await emit({
        kind: "lock.tried",
        step: step.id,
        tries,
        outcome: "got",
        tookMs,
        waitedMs,
        heldMs,
      });
      return;
    }
    await emit({ kind: "lock.tried", step: step.id, tries, outcome: "timeout", tookMs });
    if (tries % limits.triesUntilBlamed === 0) {
      const blockers = await readBlockers(client, step.hold);
      await emit({ kind: "lock.blocked", step: step.id, tries, blockers });
    }
    if (clock.monotonicMs() - startMs > limits.giveUpMs) throw await gaveUp(context, step, tries);
    const pauseMs = Math.min(limits.pauseMaxMs, limits.pauseMinMs * 1.5 ** Math.min(tries - 1, 10));
    await clock.sleep(jitter(random, pauseMs, 0.25), signal);
  }
}

/** Exactly what is run; `--dry-run` shows it. */
export function lockedText(step: Step, limits: LockLimits): string {
  return [
    "begin;",
    `set local lock_timeout = '${limits.lockTimeoutMs}ms';`,
    `set local statement_timeout = '${limits.heldStatementMs}ms';`,
    yieldAutovacuum,
    readClock,
    ...(step.hold === undefined
      ? []
      : [`lock table only ${step.hold} in ${step.holdMode ?? "access exclusive"} mode;`]),
    readClock,
    ...step.sql,
    readClock,
    "commit;",
  ].join("\n");
}

type Outcome =
  | { readonly kind: "got"; readonly waitedMs: number; readonly heldMs: number }
  | { readonly kind: "timeout" };

async function attempt(client: pg.Client, text: string): Promise<Outcome> {
  try {
    const answers: unknown = await client.query(text);
    const [asked = 0, got = 0, ended = 0] = timesOf(answers);
    return { kind: "got", waitedMs: got - asked, heldMs: ended - got };
  } catch (error) {
    // PostgreSQL let go of all locks when the statement failed; this ends the transaction's shell.
    await client.query("rollback");
    if (worthAnotherTry.includes(sqlStateOf(error) ?? "")) return { kind: "timeout" };
    throw error;
  }
}

/** Several statements in one message bring several answers; the typings know of one. */
function timesOf(answers: unknown): number[] {
  if (!Array.isArray(answers)) return [];
  return answers.flatMap((answer: { rows?: { at?: unknown }[] }) =>
    (answer.rows ?? []).flatMap(({ at }) => (typeof at === "number" ? [at] : [])),
  );
}

async function gaveUp(context: LockContext, step: Step, tries: number): Promise<CellError> {
  const blockers = await readBlockers(context.client, step.hold);
  const [first] = blockers;
  const who =
    first === undefined
      ? "nobody is in the way at this moment"
      : `in the way: pid ${first.pid} (${first.user}, ${first.application}), its transaction is ${Math.round(first.transactionMs / 1000)} s old`;
  return new CellError(
    "STATE_CONFLICT",
    `${step.id}: no lock of ${context.limits.lockTimeoutMs} ms was to be had in ${tries} tries; ${who}`,
    {
      nextSteps: [
        ...(first === undefined
          ? []
          : [`let it end, or: select pg_terminate_backend(${first.pid});`]),
        "run the same command again: it goes on where it stopped",
      ],
      details: { step: step.id, blockers },
    },
  );
}
