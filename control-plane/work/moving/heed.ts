/** Long effects that may be given up: somebody cancels the move while it copies. */
import { weighWish } from "../../core/move/wishes.ts";
import { findMove, toMoveView } from "../../store/moves/read.ts";
import type { StepContext, StepResult } from "./world.ts";

const lookEveryMs = 1000;

/** Undefined: it was ended because of what somebody asked; look at the move again. */
export async function heedingWishes(
  context: StepContext,
  work: (signal: AbortSignal) => Promise<StepResult>,
): Promise<StepResult | undefined> {
  const given = new AbortController();
  const done = new AbortController();
  const watching = watch(context, given, done.signal);
  try {
    return await work(AbortSignal.any([context.signal, given.signal]));
  } catch (error) {
    if (given.signal.aborted) return undefined;
    throw error;
  } finally {
    done.abort();
    await watching;
  }
}

/** A pause lets the step end; only a cancellation, or a move that went on without us, ends it. */
async function watch(
  { world, view, wait }: StepContext,
  given: AbortController,
  done: AbortSignal,
): Promise<void> {
  while (!done.aborted) {
    await Promise.race([wait(lookEveryMs), aborted(done)]);
    if (done.aborted) return;
    try {
      const row = await findMove(world.database.read, view.id);
      const now = row === undefined ? undefined : toMoveView(row);
      if (now?.version !== view.version || weighWish(now) === "abandon") given.abort();
    } catch {
      // The control plane's database is away: the effect goes on, and its end is what will be told.
    }
  }
}

export const aborted = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
