/**
 * Runs a plan, step by step, and tells what happens as events. Nothing here decides what is left to
 * do: that is read from the plan, and the plan from the catalog.
 */
import type pg from "pg";
import { CellError } from "../../contract/errors.ts";
import { unreachable } from "../../runtime/assert.ts";
import { runBackfill } from "./backfill.ts";
import { readBlockers } from "./blockers.ts";
import { type LockContext, runLocked } from "./lock-bounded.ts";
import type { Plan, Step } from "./step.ts";

export type RunContext = LockContext & {
  /** Looks at what the first one is waiting for, and cancels it when we are told to stop. */
  readonly watcher: pg.Client;
  /** The SQL pack comes and goes as a whole, by its own installer. */
  readonly changePack: () => Promise<void>;
};

const watchMs = 1000;
/** Phases of CREATE INDEX CONCURRENTLY that wait for others' transactions. */
const waits = /waiting/;

export async function runPlan(context: RunContext, plan: Plan): Promise<void> {
  const { clock, emit, signal } = context;
  for (const [index, step] of plan.steps.entries()) {
    signal.throwIfAborted();
    const began = clock.monotonicMs();
    await emit({ kind: "step.began", step, at: index + 1, of: plan.steps.length });
    await runStep(context, step);
    await emit({ kind: "step.done", step, tookMs: clock.monotonicMs() - began });
  }
}

async function runStep(context: RunContext, step: Step): Promise<void> {
  if (step.kind === "install-pack" || step.kind === "drop-pack") return context.changePack();
  if (step.waitFor !== undefined) await waitFor(context, step, step.waitFor);
  switch (step.way) {
    case "locked":
      return runLocked(context, step);
    case "batches":
      return runBackfill(context, step);
    case "concurrent":
      return runConcurrent(context, step);
    case "ours":
      for (const text of step.sql) await context.client.query(text);
      return;
    default:
      unreachable(step.way);
  }
}

/** The sequence, of a step that waits for its ids; the step's own name, should the pack word it otherwise. */
const awaited = (step: Step, query: string): string =>
  /has_range\('(.+)'\)$/.exec(query)?.[1]?.replaceAll("''", "'") ?? step.id;

/** In stage `enforce` ids must be leased before the default takes them from leased ranges. */
async function waitFor(context: RunContext, step: Step, query: string): Promise<void> {
  const { client, clock, signal, limits, emit } = context;
  const began = clock.monotonicMs();
  const sequence = awaited(step, query);
  for (;;) {
    signal.throwIfAborted();
    const { rows } = await client.query<Record<string, unknown>>(query);
    if (Object.values(rows[0] ?? {})[0] === true) return;
    await emit({
      kind: "step.waiting",
      step: step.id,
      text: `waits for the cell's agent to lease ids for ${sequence}, at most ${limits.rangeWaitMs / 1000} s`,
    });
    if (clock.monotonicMs() - began > limits.rangeWaitMs) {
      throw new CellError(
        "STATE_CONFLICT",
        `no agent has leased ids for ${sequence}; what was done stays done`,
        {
          nextSteps: [
            "start the cell's agent, then run the same command again: it goes on here",
            "or install with --stage observe, where no ids are leased; while no agent serves this database yet: cellctl schema uninstall --force before",
          ],
        },
      );
    }
    await clock.sleep(watchMs, signal);
  }
}

/**
 * Long, outside a transaction, beside all queries: it waits for older transactions to end, so it is
 * watched, and cancelled when we are told to stop. What it leaves half built is found next time.
 */
async function runConcurrent(context: RunContext, step: Step): Promise<void> {
  const { client, signal } = context;
  const { rows } = await client.query<{ pid: number }>("select pg_backend_pid() as pid");
  const pid = rows[0]?.pid ?? 0;
  let running = true;
  const work = (async () => {
    for (const text of step.sql) await client.query(text);
  })().finally(() => {
    running = false;
  });
  const watching = watch(context, step, pid, () => running);
  try {
    await work;
  } catch (error) {
    if (signal.aborted) signal.throwIfAborted();
    throw explain(step, error);
  } finally {
    await watching;
  }
}

function explain(step: Step, error: unknown): unknown {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  // A duplicate, a row that breaks the check: the data is at fault, and PostgreSQL says where.
  if (code !== "23505" && code !== "23514") return error;
  const detail = error instanceof Error && "detail" in error ? String(error.detail ?? "") : "";
  const text = error instanceof Error ? error.message : "";
  return new CellError("SCHEMA_UNFIT", `${step.id}: ${text}. ${detail}`, {
    cause: error,
    nextSteps: ["mend these rows, and run the same command again: it goes on where it stopped"],
  });
}

async function watch(
  context: RunContext,
  step: Step,
  pid: number,
  isRunning: () => boolean,
): Promise<void> {
  const { clock, watcher, emit, signal } = context;
  const began = clock.monotonicMs();
  let looks = 0;
  while (isRunning()) {
    await Promise.race([clock.sleep(watchMs / 10, signal), clock.sleep(watchMs / 10)]);
    if (!isRunning()) return;
    if (signal.aborted) {
      await watcher.query("select pg_cancel_backend($1)", [pid]);
      await clock.sleep(watchMs / 10);
      continue;
    }
    looks += 1;
    if (looks % 10 !== 0) continue;
    const seen = await readIndexProgress(watcher, pid);
    if (seen === undefined) continue;
    const { phase, done, total } = seen;
    const elapsed = clock.monotonicMs() - began;
    const etaMs = total > 0 && done > 0 ? (elapsed * (total - done)) / done : undefined;
    await emit({ kind: "step.progress", step: step.id, text: phase, done, total, etaMs });
    if (waits.test(phase)) {
      const blockers = (await readBlockers(watcher, undefined)).filter((one) => one.pid !== pid);
      await emit({ kind: "lock.blocked", step: step.id, tries: looks, blockers });
    }
  }
}

type IndexProgress = { readonly phase: string; readonly done: number; readonly total: number };

async function readIndexProgress(
  watcher: pg.Client,
  pid: number,
): Promise<IndexProgress | undefined> {
  const { rows } = await watcher.query<IndexProgress>(
    `select phase, case when blocks_total > 0 then blocks_done else tuples_done end::float8 as done,
            case when blocks_total > 0 then blocks_total else tuples_total end::float8 as total
       from pg_stat_progress_create_index where pid = $1`,
    [pid],
  );
  return rows[0];
}
