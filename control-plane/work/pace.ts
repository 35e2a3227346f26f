/**
 * Calls at most once per `gapMs`: the first at once, what comes meanwhile together at the end of the gap.
 * A single change is told without delay; of a thousand in a second everybody hears a few dozen times.
 */
import type { Clock } from "../../runtime/clock.ts";

export type Paced = { readonly call: () => void; readonly close: () => void };

export function paced(clock: Clock, gapMs: number, run: () => void): Paced {
  let timer: { readonly cancel: () => void } | undefined;
  let waiting = false;

  function go(): void {
    waiting = false;
    timer = clock.after(gapMs, () => {
      timer = undefined;
      if (waiting) go();
    });
    run();
  }

  return {
    call: () => {
      if (timer === undefined) go();
      else waiting = true;
    },
    close: () => timer?.cancel(),
  };
}
