/**
 * The pause of one switch, by the monotonic clock of the process that makes it: from just before requests
 * are held to the moment when live routers serve the new owner.
 */
import type { PauseParts } from "../../../contract/move-api.ts";
import type { Clock, Timer } from "../../../runtime/clock.ts";

type Part = Exclude<keyof PauseParts, "total">;

export type PauseWatch = {
  readonly budgetMs: number;
  readonly elapsedMs: () => number;
  readonly leftMs: () => number;
  /** Aborted when the budget is over. */
  readonly over: AbortSignal;
  /** This part ends now, and the next begins. */
  readonly end: (part: Part) => void;
  /** The last part ends, once; the whole pause is known then. True: it ended now. */
  readonly finish: () => boolean;
  /** What was measured until now. */
  readonly parts: () => PauseParts;
  readonly close: () => void;
};

export function startPause(clock: Clock, budgetMs: number): PauseWatch {
  const startedMs = clock.monotonicMs();
  const over = new AbortController();
  const timer: Timer = clock.after(budgetMs, () => over.abort(), { background: true });
  const spent = { hold: 0, close: 0, fence: 0, drain: 0, commit: 0, activate: 0, release: 0 };
  let lastMs = startedMs;
  let isOver = false;
  const end = (part: Part) => {
    const nowMs = clock.monotonicMs();
    spent[part] += nowMs - lastMs;
    lastMs = nowMs;
  };
  const elapsedMs = () => clock.monotonicMs() - startedMs;
  return {
    budgetMs,
    elapsedMs,
    leftMs: () => Math.max(0, budgetMs - elapsedMs()),
    over: over.signal,
    end,
    finish: () => {
      if (isOver) return false;
      isOver = true;
      end("release");
      timer.cancel();
      return true;
    },
    parts: () => {
      const rounded = (ms: number) => Math.round(ms * 10) / 10;
      const { hold, close, fence, drain, commit, activate, release } = spent;
      const total = hold + close + fence + drain + commit + activate + release;
      return {
        ...{ hold: rounded(hold), close: rounded(close), fence: rounded(fence) },
        ...{ drain: rounded(drain), commit: rounded(commit), activate: rounded(activate) },
        ...{ release: rounded(release), total: rounded(total) },
      };
    },
    close: () => timer.cancel(),
  };
}
