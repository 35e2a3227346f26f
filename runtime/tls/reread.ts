/**
 * Files that others write: read again when their folder changes, every so often (a watch may miss
 * what a mount does), and when asked. Never two readings at once; many changes are one reading.
 */
import { type FSWatcher, watch } from "node:fs";
import type { Clock, Timer } from "../clock.ts";

export type Reread = {
  /** Resolves when a reading that began after this call is over. */
  readonly now: () => Promise<void>;
  readonly close: () => Promise<void>;
};

/** Whoever writes a certificate writes its key as well: they are read together. */
const settleMs = 200;

export function startReread(options: {
  readonly clock: Clock;
  readonly folders: readonly string[];
  readonly everyMs: number;
  /** Does not throw. */
  readonly read: () => Promise<void>;
}): Reread {
  const { clock, everyMs } = options;
  let running: Promise<void> = Promise.resolve();
  let isClosed = false;
  let settling: Timer | undefined;
  const now = () => {
    running = running.then(() => (isClosed ? undefined : options.read()));
    return running;
  };
  let timer: Timer;
  const tick = () => {
    timer = clock.after(everyMs, tick, { background: true });
    void now();
  };
  timer = clock.after(everyMs, tick, { background: true });
  const onChange = () => {
    settling ??= clock.after(
      settleMs,
      () => {
        settling = undefined;
        void now();
      },
      { background: true },
    );
  };
  const watchers = [...new Set(options.folders)].flatMap((folder) => watchFolder(folder, onChange));
  return {
    now,
    close: async () => {
      isClosed = true;
      timer.cancel();
      settling?.cancel();
      for (const watcher of watchers) watcher.close();
      await running;
    },
  };
}

/** None where the system has no more to give: then the interval alone finds the change. */
function watchFolder(folder: string, onChange: () => void): FSWatcher[] {
  try {
    const watcher = watch(folder, { persistent: false }, onChange);
    watcher.on("error", () => watcher.close());
    return [watcher];
  } catch {
    return [];
  }
}
