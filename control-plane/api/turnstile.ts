/**
 * All mutations wait for one row, the fleet's. Letting hundreds in at once would only give them every
 * connection of the pool while they wait, and none would be left for cells and routers. So a few pass
 * at a time; the rest queue here, bounded in number and in time.
 */
import { CellError } from "../../contract/errors.ts";
import type { Clock } from "../../runtime/clock.ts";

export type Turnstile = {
  /** Throws CONTROL_PLANE_UNREACHABLE when the queue is full or the wait too long: nothing was done. */
  readonly pass: <T>(work: () => Promise<T>) => Promise<T>;
  readonly waiting: () => number;
};

export type TurnstileOptions = {
  readonly clock: Clock;
  readonly lanes: number;
  readonly queueMax: number;
  readonly waitMsMax: number;
};

export function createTurnstile(options: TurnstileOptions): Turnstile {
  const queue = new Set<() => void>();
  let inside = 0;

  const busy = (why: string) =>
    new CellError("CONTROL_PLANE_UNREACHABLE", `The control plane is busy: ${why}.`, {
      nextSteps: ["Repeat the request in a moment."],
    });

  /** True: a lane is ours. False: it did not become free in time. */
  function lane(): Promise<boolean> {
    if (inside < options.lanes) {
      inside += 1;
      return Promise.resolve(true);
    }
    return new Promise((resolve) => {
      const timer = options.clock.after(options.waitMsMax, () => {
        queue.delete(enter);
        resolve(false);
      });
      const enter = () => {
        timer.cancel();
        resolve(true);
      };
      queue.add(enter);
    });
  }

  /** Hands the lane to the one who waits longest, or gives it up. */
  function leave(): void {
    const [next] = queue;
    if (next === undefined) {
      inside -= 1;
      return;
    }
    queue.delete(next);
    next();
  }

  return {
    waiting: () => queue.size,
    pass: async (work) => {
      if (queue.size >= options.queueMax) throw busy(`${queue.size} changes wait`);
      if (!(await lane())) throw busy(`no turn within ${options.waitMsMax} ms`);
      try {
        return await work();
      } finally {
        leave();
      }
    },
  };
}
