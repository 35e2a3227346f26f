/** What the leader shows of moves: how long pauses and steps take, where moves stand, how far targets lag. */
import { type MoveStep, moveSteps } from "../../../contract/move-api.ts";
import { durationBuckets, type Metrics } from "../../../runtime/metrics.ts";
import { isMoveEnd } from "../../core/move/move-state.ts";

export type MoveMetrics = {
  readonly pause: (seconds: number) => void;
  readonly phase: (step: MoveStep, seconds: number) => void;
  /** Of one open move; null: not known now, undefined: the move is over. */
  readonly lag: (move: string, bytes: number | null | undefined) => void;
  /** Open moves, each by its step. */
  readonly steps: (open: readonly MoveStep[]) => void;
};

const phaseBuckets = [...durationBuckets, 30, 60, 300, 900, 3600, 14_400] as const;

export function createMoveMetrics(metrics: Metrics): MoveMetrics {
  const pause = metrics.histogram(
    "cellfleet_move_pause_seconds",
    "From the hold of requests to routers that serve the new owner, per committed switch.",
    durationBuckets,
  );
  const phase = metrics.histogram(
    "cellfleet_move_phase_seconds",
    "Time that moves spent in each step.",
    phaseBuckets,
  );
  const lags = new Map<string, number>();
  let counts = new Map<MoveStep, number>();
  metrics.gaugeFrom("cellfleet_moves", "Open moves, by step.", () =>
    moveSteps
      .filter((step) => !isMoveEnd(step))
      .map((step) => [{ step }, counts.get(step) ?? 0] as const),
  );
  metrics.gaugeFrom(
    "cellfleet_move_lag_bytes",
    "Write-ahead log that targets have not applied yet: of all open moves, and of the one furthest behind.",
    () => [
      [{ of: "all" }, [...lags.values()].reduce((sum, bytes) => sum + bytes, 0)] as const,
      [{ of: "worst" }, Math.max(0, ...lags.values())] as const,
    ],
  );
  return {
    pause: (seconds) => pause.observe(seconds),
    phase: (step, seconds) => phase.observe(seconds, { phase: step }),
    lag: (move, bytes) => {
      if (bytes === undefined) lags.delete(move);
      else if (bytes !== null) lags.set(move, bytes);
    },
    steps: (open) => {
      counts = new Map();
      for (const step of open) counts.set(step, (counts.get(step) ?? 0) + 1);
    },
  };
}
