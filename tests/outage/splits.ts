/** Looks into the databases of a local fleet, again and again, whether a key has two that may write it. */
import { systemClock } from "../../runtime/clock.ts";
import type { TestFleet } from "../fleet.ts";
import { ownersIn, splitsOf } from "./owners.ts";

const lookEveryMs = 300;

export function watchSplits(
  fleet: TestFleet,
  cells: readonly string[],
): { readonly stop: () => Promise<string[]> } {
  const over = new AbortController();
  const found = new Set<string>();
  const running = (async () => {
    while (!over.signal.aborted) {
      // A server that is being stopped or started answers nothing, and owns nothing.
      const owners = await ownersIn(fleet, cells).catch(() => undefined);
      for (const one of owners === undefined ? [] : splitsOf(owners)) found.add(one);
      await systemClock.sleep(lookEveryMs, over.signal);
    }
  })();
  return {
    stop: async () => {
      over.abort();
      await running;
      return [...found];
    },
  };
}
