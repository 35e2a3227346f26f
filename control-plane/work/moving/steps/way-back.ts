/**
 * Taken back, before the point of no return only: a switch that did not work, and a move that ends
 * without one. The source serves as before; what a cell that does not answer still has is recorded, and
 * swept when it is back.
 */
import { CellError } from "../../../../contract/errors.ts";
import { betweenTriesMs } from "../../../core/move/failure.ts";
import { endUnmoved } from "../../../store/moves/end.ts";
import { forgetObjects } from "../../../store/moves/objects.ts";
import { releaseToSource } from "../../../store/moves/switch.ts";
import type { Step, StepContext, StepResult } from "../world.ts";

export const releasing: Step = async (context) => {
  const { world, view, memory } = context;
  memory.pause?.close();
  memory.pause = undefined;
  try {
    await letIn(context);
  } catch (error) {
    // A cell that is gone serves nobody: its routes must not stay on hold for it.
    if (!isUnreachable(error) || context.failingMs < world.patience.releaseMs) throw error;
    return released(context, "gave-up", error.message, {
      code: error.code,
      message: error.message,
      nextSteps: error.nextSteps,
    });
  }
  if (view.wish === "cancel") return released(context, "gave-up", "the move is cancelled", null);
  if (view.tries >= view.options.switchTriesMax) {
    const text = `given up after ${view.tries} tries: ${view.failure?.message ?? view.headline}`;
    return released(context, "gave-up", text, view.failure);
  }
  memory.notBeforeMs = world.clock.monotonicMs() + betweenTriesMs(view.tries);
  memory.rollbackDue = true;
  const why = view.failure?.message ?? "";
  const headline = `try ${view.tries} of ${view.options.switchTriesMax} was taken back: ${why}`;
  return released(context, "released", headline, null);
};

/** Fence, then gates: nobody is let in before the databases take writes. Hooks are told when nobody waits. */
async function letIn({ world, task }: StepContext): Promise<void> {
  await world.mover.unfence(task);
  await world.mover.openGates(task);
}

function released(
  { view }: StepContext,
  event: "released" | "gave-up",
  headline: string,
  failure: StepResult["failure"] | null,
): StepResult {
  return {
    event,
    headline,
    patch: { failure: failure ?? null },
    ...(event === "gave-up" && failure !== null && failure !== undefined ? { failure } : {}),
    within: async (tx) => ({ releaseRevision: await releaseToSource(tx, view) }),
    events: [
      {
        kind: "move.switch-taken-back",
        object: view.id,
        text: `${view.id}: ${headline}. ${view.source} serves as before.`,
      },
    ],
  };
}

export const aborting: Step = async (context) => {
  const { world, view, failingMs } = context;
  let remains: string | undefined;
  try {
    await undoAll(context);
  } catch (error) {
    if (!mayBeLeft(error) || failingMs < world.patience.undoMs) throw error;
    remains = error.message;
  }
  const tail =
    remains === undefined
      ? "nothing of it is left"
      : `what is left of it is removed when its cell, or hook, answers: ${remains}`;
  const isFailed = view.failure !== null;
  const headline = isFailed ? `${view.failure?.message} (${tail})` : `cancelled; ${tail}`;
  return {
    event: isFailed ? "undone-failed" : "undone-cancelled",
    headline,
    ...(view.failure === null ? {} : { failure: view.failure }),
    within: async (tx) => {
      await endUnmoved(tx, view);
      if (remains === undefined) await forgetObjects(tx, view.id);
      return {};
    },
    events: [
      {
        kind: isFailed ? "move.failed" : "move.cancelled",
        object: view.id,
        text: `${view.id} of ${view.object} from ${view.source} to ${view.target}: ${headline}.`,
      },
    ],
  };
};

/**
 * Everything that any step may have made. Also what sweeping does, later, for moves that are over. A cell
 * that does not answer keeps nothing from being removed in the other. `spared`: cells whose databases are
 * not touched.
 */
export async function undoAll(
  { world, task, signal }: Pick<StepContext, "world" | "task" | "signal">,
  spared: ReadonlySet<string> = new Set(),
): Promise<void> {
  const { mover } = world;
  const failures: unknown[] = [];
  const letIn = [
    () => unlessOvertaken(() => mover.unfence(task)),
    () => unlessOvertaken(() => mover.openGates(task)),
  ];
  const parts = [
    ...(spared.has(task.source) ? [] : letIn),
    () => mover.hooks.call(task, "rollback", signal),
    () => mover.undo(task, signal, spared),
  ];
  for (const part of parts) await part().catch((error) => failures.push(error));
  if (failures.length > 0) throw failures[0];
}

/** A later operation has spoken about the keys: then nothing of ours stands there any more. */
async function unlessOvertaken(work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof CellError && error.code === "STATE_CONFLICT")) throw error;
  }
}

/** It is recorded what is left, and done when the cell, or the hook, answers again. */
const mayBeLeft = (error: unknown): error is CellError =>
  isUnreachable(error) || (error instanceof CellError && error.code === "MOVE_HOOK_FAILED");

const isUnreachable = (error: unknown): error is CellError =>
  error instanceof CellError && error.code === "CELL_DATABASE_UNREACHABLE";
