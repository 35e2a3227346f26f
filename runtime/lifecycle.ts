/**
 * Start in order, stop in reverse, at most once, within a grace period.
 */
import type { Clock } from "./clock.ts";

export type Lifecycle = {
  /** Registers how to undo a step that has just been done. */
  readonly onClose: (name: string, close: () => Promise<void> | void) => void;
  /** Undoes everything, newest first. A step that throws or outlasts the grace is reported, not fatal. */
  readonly close: () => Promise<void>;
};

export function createLifecycle(options: {
  readonly clock: Clock;
  readonly graceMs: number;
  readonly onTrouble: (name: string, error: unknown) => void;
}): Lifecycle {
  const steps: Array<{ name: string; close: () => Promise<void> | void }> = [];
  let closing: Promise<void> | undefined;

  async function closeAll(): Promise<void> {
    for (let step = steps.pop(); step !== undefined; step = steps.pop()) {
      const { name, close } = step;
      try {
        await withDeadline(options.clock, options.graceMs, async () => close());
      } catch (error) {
        options.onTrouble(name, error);
      }
    }
  }

  return {
    onClose: (name, close) => {
      steps.push({ name, close });
    },
    close: () => {
      closing ??= closeAll();
      return closing;
    },
  };
}

/** Rejects after `ms`; the work itself is not cancelled by this. */
export async function withDeadline<T>(
  clock: Clock,
  ms: number,
  work: () => Promise<T>,
): Promise<T> {
  let cancel = () => {};
  const late = new Promise<never>((_resolve, reject) => {
    const timer = clock.after(ms, () => reject(new Error(`not finished within ${ms} ms`)));
    cancel = timer.cancel;
  });
  try {
    return await Promise.race([work(), late]);
  } finally {
    cancel();
  }
}
