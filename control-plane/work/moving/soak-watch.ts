/**
 * Moves that rest (they soak, or have diverged) and their way back: how far the source lags, and that
 * the stream still runs. A way back that is broken is told once, while somebody can still decide what
 * to do; the tenants are served by the target whatever becomes of it.
 */
import { errorFields } from "../../../runtime/log.ts";
import type { MoveView } from "../../core/move/move-view.ts";
import { recordEvents } from "../../store/events.ts";
import { noteMove } from "../../store/moves/enter.ts";
import type { MovingWorld } from "./world.ts";

const lookEveryMs = 10_000;

export type SoakWatch = {
  /** Looks when it is time; never throws because of a cell. */
  readonly turn: (moves: readonly MoveView[]) => void;
  readonly close: () => Promise<void>;
};

export function createSoakWatch(world: MovingWorld, everyMs: number = lookEveryMs): SoakWatch {
  const { clock } = world;
  const broken = new Map<string, string>();
  let lookedMs = Number.NEGATIVE_INFINITY;
  let looking: Promise<void> | undefined;

  async function lookAt(move: MoveView): Promise<void> {
    const { lagBytes, broken: why } = await world.mover.reverseState(await world.taskOf(move));
    world.metrics.lag(move.id, lagBytes);
    if (lagBytes !== move.progress.lagBytes) {
      await noteMove(world.database, move.id, { progress: { ...move.progress, lagBytes } });
    }
    if (why === broken.get(move.id)) return;
    if (why === undefined) {
      broken.delete(move.id);
      await noteMove(world.database, move.id, { headline: restingText(move) });
      return;
    }
    broken.set(move.id, why);
    const text = `the way back to ${move.source} is broken: ${why}. ${move.target} serves; a way back is a move with a copy now`;
    await noteMove(world.database, move.id, { headline: `${move.step}: ${text}` });
    await world.database.transaction((tx) =>
      recordEvents(tx, [{ kind: "move.way-back-broken", object: move.id, text }]),
    );
  }

  async function lookAtAll(moves: readonly MoveView[]): Promise<void> {
    for (const move of moves) {
      await lookAt(move).catch((error) => {
        // Its cell does not answer: that shows elsewhere, and the next look may find it.
        const fields = { move: move.id, step: move.step, error: "", ...errorFields(error) };
        world.log.event("move.failing", fields, "debug");
      });
    }
  }

  return {
    turn: (moves) => {
      const resting = moves.filter(({ step }) => step === "soaking" || step === "diverged");
      const ids = new Set<string>(resting.map(({ id }) => id));
      for (const id of broken.keys()) if (!ids.has(id)) broken.delete(id);
      const nowMs = clock.monotonicMs();
      if (looking !== undefined || resting.length === 0 || nowMs - lookedMs < everyMs) return;
      lookedMs = nowMs;
      looking = lookAtAll(resting).finally(() => {
        looking = undefined;
      });
    },
    close: async () => {
      await looking;
    },
  };
}

export const restingText = ({ step, source, target }: MoveView): string =>
  step === "soaking"
    ? `soaking: ${source} follows ${target}; the move can be taken back`
    : `diverged: rows of the two cells differ; the way back stays open`;
