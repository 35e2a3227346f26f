/**
 * One move, driven step after step, without waiting for any interval: the pause is made here. Each step's
 * effect comes first and may be repeated; then one transaction records what it came to and enters the
 * next step.
 *
 * Always true: a drive begins by raising the attempt, so that nothing of an earlier one takes effect any
 * more; it ends when its process leads no longer; a switch that it did not begin itself it takes back.
 */

import type { OpState } from "../../../contract/control-api.ts";
import { CellError } from "../../../contract/errors.ts";
import type { OpId } from "../../../contract/ids.ts";
import type { MoveStep } from "../../../contract/move-api.ts";
import type { MoveTask } from "../../../moving/ports.ts";
import { must } from "../../../runtime/assert.ts";
import { errorFields } from "../../../runtime/log.ts";
import { judgeFailure, retryDelayMs, takenOver } from "../../core/move/failure.ts";
import { isMoveEnd, nextMoveStep, switchSteps } from "../../core/move/move-state.ts";
import type { MoveView } from "../../core/move/move-view.ts";
import { isDue, weighWish } from "../../core/move/wishes.ts";
import { databaseNowMs } from "../../store/database.ts";
import { readSeat } from "../../store/leader.ts";
import { type Entered, enterStep, noteMove } from "../../store/moves/enter.ts";
import { findMove, toMoveView } from "../../store/moves/read.ts";
import { channels } from "../../store/notify.ts";
import { steps } from "./steps/all.ts";
import type { DriveMemory, MovingWorld, StepContext, StepResult } from "./world.ts";
import { abandoned } from "./world.ts";

const pausedLookMs = 2000;
const databaseAwayMs = 200;

export async function driveMove(
  world: MovingWorld,
  id: OpId,
  term: number,
  signal: AbortSignal,
): Promise<void> {
  const memory: DriveMemory = {
    pause: undefined,
    notBeforeMs: 0,
    rollbackDue: false,
    task: undefined,
  };
  const failures: Failures = { step: undefined, count: 0, sinceMs: 0 };
  try {
    let view = await beginDrive(world, id, term);
    while (view !== undefined && !signal.aborted && (await isAtWork(world, view))) {
      view = await goOn({ world, term, view, signal, memory, failures });
    }
  } finally {
    memory.pause?.close();
    await world.mover.forget(id);
    world.metrics.lag(id, undefined);
  }
}

type Failures = { step: MoveStep | undefined; count: number; sinceMs: number };
type Going = {
  readonly world: MovingWorld;
  readonly term: number;
  readonly view: MoveView;
  readonly signal: AbortSignal;
  readonly memory: DriveMemory;
  readonly failures: Failures;
};

/** Undefined: it is over, or another leads. */
async function beginDrive(
  world: MovingWorld,
  id: OpId,
  term: number,
): Promise<MoveView | undefined> {
  const seen = await readView(world, id);
  if (seen === undefined || isMoveEnd(seen.step)) return undefined;
  const isMidSwitch = switchSteps.includes(seen.step);
  const entered = await enterStep(world.database, term, seen, {
    ...(isMidSwitch
      ? {
          step: target(seen.step, "taken-over"),
          headline: takenOver.message,
          patch: { failure: takenOver },
        }
      : { step: seen.step, headline: seen.headline }),
    state: "running",
    raiseAttempt: true,
  });
  return entered === "deposed" ? undefined : readView(world, id);
}

const target = (step: MoveStep, event: StepResult["event"]): MoveStep =>
  must(nextMoveStep(step, event), `${event} after ${step}`);

async function readView({ database }: MovingWorld, id: OpId): Promise<MoveView | undefined> {
  const row = await findMove(database.read, id);
  return row === undefined ? undefined : toMoveView(row);
}

/** A move that rests (soaks, waits for somebody to look) is not followed; the loop notices when it is due. */
async function isAtWork({ database }: MovingWorld, view: MoveView): Promise<boolean> {
  if (isMoveEnd(view.step) || view.state !== "running") return false;
  if (view.step !== "soaking" && view.step !== "diverged") return true;
  return isDue(view, await databaseNowMs(database.read));
}

/** One effect and the step that follows from it. The move as it is then; undefined: the drive is over. */
async function goOn(going: Going): Promise<MoveView | undefined> {
  const { world, view, memory } = going;
  const startedMs = world.clock.monotonicMs();
  const result = await effect(going);
  if (going.signal.aborted) return undefined;
  if (result === undefined) return (await leads(going)) ? look(going) : undefined;
  const { event, headline } = result;
  if (isUnrecorded(view.step, event)) {
    world.metrics.phase(view.step, (world.clock.monotonicMs() - startedMs) / 1000);
    return { ...view, step: target(view.step, event), headline };
  }
  const entered = await enter(going, result);
  if (entered === "deposed") return undefined;
  if (entered === "raced") return look(going);
  world.metrics.phase(view.step, (world.clock.monotonicMs() - startedMs) / 1000);
  const now = await look(going);
  if (now === undefined) return undefined;
  if (
    !switchSteps.includes(now.step) &&
    now.step !== "activating" &&
    now.step !== "routing" &&
    now.step !== "reversing"
  ) {
    memory.pause?.close();
    memory.pause = undefined;
  }
  return now;
}

/**
 * Between the hold and the commit the row says `holding`: whoever finds it there takes the switch back,
 * however far it had come, so every transaction in between would only make the pause longer.
 */
const isUnrecorded = (step: MoveStep, event: StepResult["event"]): boolean => {
  const to = nextMoveStep(step, event);
  return switchSteps.includes(step) && to !== undefined && switchSteps.includes(to);
};

/** Whoever waits or fails for long may have lost the seat without noticing; what enters a step is told so. */
async function leads({ world, term }: Going): Promise<boolean> {
  try {
    return (await readSeat(world.database.read))?.term === term;
  } catch {
    return true; // The control plane's database is away: nothing can be entered until it is back.
  }
}

/** The control plane's own database may be away for a while: what is in it stands. */
async function look({ world, view, signal }: Going): Promise<MoveView | undefined> {
  while (!signal.aborted) {
    try {
      return await readView(world, view.id);
    } catch (error) {
      world.log.event(
        "move.failing",
        { move: view.id, step: view.step, error: "", ...errorFields(error) },
        "warn",
      );
      await world.clock.sleep(databaseAwayMs, signal);
    }
  }
  return undefined;
}

async function effect(going: Going): Promise<StepResult | undefined> {
  const { world, view, signal, failures } = going;
  const bidding = weighWish(view);
  if (bidding === "abandon") return cancelled(view);
  if (bidding === "back-off") return backedOff("the move is cancelled", null);
  if (bidding === "wait") {
    await world.hub.wait(channels.op, view.id, pausedLookMs, signal);
    return undefined;
  }
  if (failures.step !== view.step)
    Object.assign(failures, { step: view.step, count: 0, sinceMs: 0 });
  try {
    const task = await taskFor(going);
    await world.onBoundary?.({ op: view.id, step: view.step, when: "before" });
    const result = await must(steps[view.step], `step ${view.step}`)(contextOf(going, task));
    if (result !== undefined) {
      await world.onBoundary?.({ op: view.id, step: view.step, when: "after" });
    }
    Object.assign(failures, { count: 0, sinceMs: 0 });
    return result;
  } catch (error) {
    if (signal.aborted) return undefined;
    return failed(going, error);
  }
}

/** Read anew for each step, but for those in which requests wait. */
async function taskFor({ world, view, memory }: Going): Promise<MoveTask> {
  const known = memory.task;
  const isWaitedFor = switchSteps.includes(view.step) || view.step === "activating";
  if (isWaitedFor && known?.attempt === view.attempt) return known;
  const task = await world.taskOf(view);
  memory.task = task;
  return task;
}

const cancelled = (view: MoveView): StepResult => ({
  event: "abandoned",
  headline: `cancelled; ${view.source} serves as before, what was made is removed`,
  patch: { failure: null },
});

const backedOff = (headline: string, failure: MoveView["failure"]): StepResult => ({
  event: "backed-off",
  headline,
  patch: { failure },
});

function contextOf({ world, view, signal, memory, failures }: Going, task: MoveTask): StepContext {
  const { clock } = world;
  return {
    ...{ world, view, task, signal, memory },
    failingMs: failures.count === 0 ? 0 : clock.monotonicMs() - failures.sinceMs,
    wait: (ms) => world.hub.wait(channels.op, view.id, ms, signal),
    note: async (headline) => {
      if (headline !== view.headline) await noteMove(world.database, view.id, { headline });
    },
  };
}

/** What a failure comes to is decided in core/move/failure.ts. */
async function failed(going: Going, error: unknown): Promise<StepResult | undefined> {
  const { world, view, signal, failures } = going;
  const nowMs = world.clock.monotonicMs();
  if (failures.count === 0) failures.sinceMs = nowMs;
  failures.count += 1;
  world.log.event(
    "move.failing",
    { move: view.id, step: view.step, error: "", ...errorFields(error) },
    "warn",
  );
  const failure = failureOf(view, error);
  const refusal = error instanceof CellError ? error : undefined;
  const judged = { code: refusal?.code, sqlState: refusal?.details["sqlState"] };
  switch (judgeFailure(view.step, judged, nowMs - failures.sinceMs, world.patience)) {
    case "back-off":
      return backedOff(failure.message, failure);
    case "abandon":
      return abandoned(failure);
    case "retry": {
      const headline = `${view.step}, tried ${failures.count} times: ${failure.message}`;
      await noteMove(world.database, view.id, { headline }).catch(() => undefined);
      await world.hub.wait(channels.op, view.id, retryDelayMs(view.step, failures.count), signal);
      return undefined;
    }
  }
}

function failureOf(view: MoveView, error: unknown): NonNullable<MoveView["failure"]> {
  if (error instanceof CellError) {
    const { code, message, nextSteps } = error;
    return { code, message, nextSteps: [...nextSteps] };
  }
  const said = error instanceof Error ? error.message : String(error);
  return {
    code: "OP_FAILED",
    message: `${view.step} failed: ${said}`,
    nextSteps: [`cellctl move show ${view.id}`],
  };
}

const endStates: Readonly<Partial<Record<MoveStep, OpState>>> = {
  done: "done",
  cancelled: "cancelled",
  failed: "failed",
};

async function enter(going: Going, result: StepResult): Promise<Entered> {
  const { world, term, view } = going;
  const { event, ...change } = result;
  const to = target(view.step, event);
  try {
    const entered = await enterStep(world.database, term, view, {
      ...change,
      step: to,
      state: endStates[to] ?? "running",
      // What a fence of this try may still send must not come after the way back, and what the way back
      // may still send (gates that open) not after the next try has closed them.
      raiseAttempt: to === "releasing" || event === "released",
    });
    if (entered === "entered") {
      const { headline } = result;
      world.log.event("move.stepped", { move: view.id, from: view.step, to, headline });
    }
    return entered;
  } catch (error) {
    // Whether it was committed is not known: the row says it.
    const answer = await failed(going, error);
    return answer === undefined ? "raced" : enterAfterFailure(going, answer);
  }
}

/** The step was not entered, and somebody must be let in again: or it was, and this one is refused. */
const enterAfterFailure = (going: Going, result: StepResult): Promise<Entered> =>
  enterStep(going.world.database, going.term, going.view, {
    headline: result.headline,
    ...(result.patch === undefined ? {} : { patch: result.patch }),
    ...(result.failure === undefined ? {} : { failure: result.failure }),
    step: target(going.view.step, result.event),
    state: "running",
    raiseAttempt: result.event === "backed-off",
  }).catch(() => "raced" as const);
