/**
 * What moves that are over have left: a cell did not answer when they were taken back, or a restore ended
 * them. Looked at now and then, and at the beginning of each term.
 */

import { opIdSchema } from "../../../contract/ids.ts";
import type { Clock } from "../../../runtime/clock.ts";
import { errorFields } from "../../../runtime/log.ts";
import { raiseAttempt } from "../../store/moves/enter.ts";
import { forgetObjects, movesWithRemains } from "../../store/moves/objects.ts";
import { findMove, requireView } from "../../store/moves/read.ts";
import { undoAll } from "./steps/way-back.ts";
import type { MovingWorld } from "./world.ts";

const sweepEveryMs = 60_000;

export type Sweeper = {
  /** Sweeps when it is time; never throws because of a cell. */
  readonly turn: (term: number) => Promise<void>;
  readonly close: () => Promise<void>;
};

export function createSweeper(world: MovingWorld, everyMs: number = sweepEveryMs): Sweeper {
  const stop = new AbortController();
  const { clock }: { readonly clock: Clock } = world;
  let last: { readonly term: number; readonly atMs: number } | undefined;
  let sweeping: Promise<void> | undefined;

  return {
    turn: async (term) => {
      const nowMs = clock.monotonicMs();
      const isTime = last?.term !== term || nowMs - last.atMs >= everyMs;
      if (!isTime || sweeping !== undefined) return;
      last = { term, atMs: nowMs };
      sweeping = sweep(world, term, stop.signal)
        .catch((error) => {
          const fields = { move: "", step: "sweep", error: "", ...errorFields(error) };
          world.log.event("move.failing", fields, "warn");
        })
        .finally(() => {
          sweeping = undefined;
        });
    },
    close: async () => {
      stop.abort();
      await sweeping;
    },
  };
}

async function sweep(world: MovingWorld, term: number, signal: AbortSignal): Promise<void> {
  const { database } = world;
  for (const id of await movesWithRemains(database.read)) {
    if (signal.aborted) return;
    try {
      const row = await raiseAttempt(database, term, id);
      if (row === "deposed") return;
      const view = requireView(await findMove(database.read, id), id);
      const task = await world.taskOf(view);
      await undoAll({ world, task, signal });
      await world.mover.forget(opIdSchema.parse(id));
      await forgetObjects(database.read, id);
      world.log.event("move.swept", { move: id, text: "nothing of it is left" });
    } catch (error) {
      // Its cell does not answer yet, as like as not: the next time.
      const fields = { move: id, step: "sweep", error: "", ...errorFields(error) };
      world.log.event("move.failing", fields, "warn");
    }
  }
}
