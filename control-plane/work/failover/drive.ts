/**
 * One failover, driven step after step without waiting for any interval. Each step's effect comes first
 * and may be repeated; then one transaction records what it came to and enters the next step.
 *
 * Always true: a drive begins by raising the attempt, so that nothing of an earlier one takes effect any
 * more, and what an earlier one waited for is waited for again; it ends when its process leads no longer.
 */
import type { OpState } from "../../../contract/control-api.ts";
import { CellError } from "../../../contract/errors.ts";
import type { FailoverStep } from "../../../contract/failover-api.ts";
import type { OpId } from "../../../contract/ids.ts";
import { must } from "../../../runtime/assert.ts";
import { errorFields } from "../../../runtime/log.ts";
import { isFailoverEnd, nextFailoverStep } from "../../core/failover/failover-state.ts";
import type { FailoverRun } from "../../core/failover/phases.ts";
import { type Entered, enterFailover } from "../../store/failover/enter.ts";
import { findRun, noteRun } from "../../store/failover/evidence.ts";
import { orderAgain } from "../../store/failover/revoke.ts";
import { readSeat } from "../../store/leader.ts";
import { channels } from "../../store/notify.ts";
import { steps } from "./steps/all.ts";
import type { DriveMemory, FailoverWorld, StepContext, StepResult } from "./world.ts";

const databaseAwayMs = 200;
const retryFirstMs = 100;
const retryMostMs = 5000;

type Going = {
  readonly world: FailoverWorld;
  readonly term: number;
  readonly run: FailoverRun;
  readonly signal: AbortSignal;
  readonly memory: DriveMemory;
  readonly failures: { step: FailoverStep | undefined; count: number };
};

export async function driveFailover(
  world: FailoverWorld,
  id: OpId,
  term: number,
  signal: AbortSignal,
): Promise<void> {
  const memory: DriveMemory = {
    ...{ enteredMs: 0, serving: new Map(), lookedDeadMs: Number.NEGATIVE_INFINITY },
    ...{ lookingDead: undefined, proof: "", lastGoodMs: undefined },
    ...{ countedMs: Number.NEGATIVE_INFINITY, activating: new Map(), hasReached: false },
  };
  const failures: Going["failures"] = { step: undefined, count: 0 };
  let run = await beginDrive(world, id, term);
  memory.enteredMs = world.clock.monotonicMs();
  while (run !== undefined && !signal.aborted && !isFailoverEnd(run.step)) {
    run = await goOn({ world, term, run, signal, memory, failures });
  }
}

/** Undefined: it is over, or another leads. */
async function beginDrive(
  world: FailoverWorld,
  id: OpId,
  term: number,
): Promise<FailoverRun | undefined> {
  const seen = await findRun(world.database.read, id);
  if (seen === undefined || isFailoverEnd(seen.step)) return undefined;
  const { step, headline } = seen;
  await world.clockWatch.look();
  const entered = await enterFailover(world.database, term, seen, {
    ...{ step, headline, state: "running", raiseAttempt: true },
    // What an earlier executor counted on its clock, this one does not know.
    within: async (tx, attempt) =>
      step === "revoking" ? orderAgain(tx, seen, attempt, world.clockWatch.steadyMs) : {},
  });
  return entered === "deposed" ? undefined : findRun(world.database.read, id);
}

async function goOn(going: Going): Promise<FailoverRun | undefined> {
  const { world, run, memory } = going;
  const result = await effect(going);
  if (going.signal.aborted) return undefined;
  if (result === undefined) return (await leads(going)) ? look(going) : undefined;
  const entered = await enter(going, result);
  if (entered === "deposed") return undefined;
  const now = await look(going);
  if (now !== undefined && now.step !== run.step) memory.enteredMs = world.clock.monotonicMs();
  return now;
}

async function leads({ world, term }: Going): Promise<boolean> {
  try {
    return (await readSeat(world.database.read))?.term === term;
  } catch {
    return true; // The control plane's database is away: nothing can be entered until it is back.
  }
}

async function look({ world, run, signal }: Going): Promise<FailoverRun | undefined> {
  while (!signal.aborted) {
    try {
      return await findRun(world.database.read, run.id);
    } catch (error) {
      report(world, run, error);
      await world.clock.sleep(databaseAwayMs, signal);
    }
  }
  return undefined;
}

async function effect(going: Going): Promise<StepResult | undefined> {
  const { world, run, signal, failures } = going;
  if (failures.step !== run.step) Object.assign(failures, { step: run.step, count: 0 });
  try {
    await world.onBoundary?.({ op: run.id, step: run.step, when: "before" });
    const result = await must(steps[run.step], `step ${run.step}`)(contextOf(going));
    if (result !== undefined) {
      await world.onBoundary?.({ op: run.id, step: run.step, when: "after" });
    }
    failures.count = 0;
    return result;
  } catch (error) {
    if (signal.aborted) return undefined;
    return failed(going, error);
  }
}

function contextOf({ world, run, term, signal, memory }: Going): StepContext {
  let said = run.headline;
  return {
    ...{ world, run, term, signal, memory },
    wait: (ms) => world.hub.wait(channels.op, run.id, ms, signal),
    note: async (headline) => {
      if (headline === said) return;
      said = headline;
      await noteRun(world.database.read, run.id, { headline });
    },
  };
}

/** A failover is never given up because something failed: it is tried again, and says so. */
async function failed(going: Going, error: unknown): Promise<undefined> {
  const { world, run, signal, failures } = going;
  failures.count += 1;
  report(world, run, error);
  const text = error instanceof CellError || error instanceof Error ? error.message : String(error);
  const headline = `${run.step}, tried ${failures.count} times: ${text}`;
  await noteRun(world.database.read, run.id, { headline }).catch(() => undefined);
  const ms = Math.min(retryMostMs, retryFirstMs * 2 ** Math.min(failures.count - 1, 10));
  await world.hub.wait(channels.op, run.id, ms, signal);
  return undefined;
}

const report = (world: FailoverWorld, run: FailoverRun, error: unknown): void =>
  world.log.event(
    "failover.failing",
    { failover: run.id, step: run.step, error: "", ...errorFields(error) },
    "warn",
  );

const endStates: Readonly<Partial<Record<FailoverStep, OpState>>> = {
  done: "done",
  cancelled: "cancelled",
  failed: "failed",
};

async function enter(going: Going, result: StepResult): Promise<Entered> {
  const { world, term, run } = going;
  const { event, ...change } = result;
  const to = must(nextFailoverStep(run.step, event), `${event} after ${run.step}`);
  const isEnd = isFailoverEnd(to);
  try {
    const entered = await enterFailover(world.database, term, run, {
      ...change,
      ...{ step: to, state: endStates[to] ?? "running" },
      patch: { ...change.patch, ...(isEnd ? { open: false } : {}) },
    });
    if (entered === "entered") {
      const { headline } = result;
      const { cell, id: failover, step: from } = run;
      world.log.event("failover.stepped", { failover, cell, from, to, headline });
    }
    return entered;
  } catch (error) {
    // Whether it was committed is not known: the row says it.
    await failed(going, error);
    return "raced";
  }
}
