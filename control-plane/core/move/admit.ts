/**
 * Which moves that wait for their turn may begin: copying costs both cells, so each has few at a time.
 * A move that is ready waits for a person, and one that soaks costs little: they keep no turn.
 */
import type { MoveStep } from "../../../contract/move-api.ts";

export type MoveLimits = { readonly perSource: number; readonly perTarget: number };
export const moveLimitsDefault: MoveLimits = { perSource: 2, perTarget: 2 };

type Waiting = {
  readonly id: string;
  readonly step: MoveStep;
  readonly paused: boolean;
  readonly source: string;
  readonly target: string;
};

const resting: ReadonlySet<MoveStep> = new Set(["planned", "ready", "soaking", "diverged"]);

/** Oldest first; a move whose cells are busy keeps nobody else from beginning. */
export function admit<Move extends Waiting>(
  moves: readonly Move[],
  limits: MoveLimits,
): readonly Move[] {
  const sources = new Map<string, number>();
  const targets = new Map<string, number>();
  const take = ({ source, target }: Move) => {
    sources.set(source, (sources.get(source) ?? 0) + 1);
    targets.set(target, (targets.get(target) ?? 0) + 1);
  };
  for (const move of moves) if (!resting.has(move.step)) take(move);
  return moves.filter((move) => {
    const { step, paused, source, target } = move;
    if (step !== "planned" || paused) return false;
    const isFull =
      (sources.get(source) ?? 0) >= limits.perSource ||
      (targets.get(target) ?? 0) >= limits.perTarget;
    if (!isFull) take(move);
    return !isFull;
  });
}
