/**
 * Lines of a worker's log on their way to the main thread, which alone writes them: so a line is never
 * cut by another's, and all workers are one stream. Those of one turn travel together, because a
 * message costs more than a line.
 */
import type { Clock } from "../../runtime/clock.ts";

/** Characters after which a batch does not wait for the end of its turn. */
const charsMax = 64 * 1024;

export type LineBatch = {
  readonly write: (line: string) => void;
  /** Sends what is there: before the thread ends, however it ends. */
  readonly flush: () => void;
};

export function createLineBatch(clock: Clock, send: (lines: string) => void): LineBatch {
  let lines = "";
  let waiting = false;
  const flush = () => {
    if (lines === "") return;
    const all = lines;
    lines = "";
    send(all);
  };
  return {
    flush,
    write: (line) => {
      lines += line;
      if (lines.length >= charsMax) flush();
      if (waiting || lines === "") return;
      waiting = true;
      clock.after(0, () => {
        waiting = false;
        flush();
      });
    },
  };
}
