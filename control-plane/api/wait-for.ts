/** A long poll: reads until it is enough, woken by notifications, for a bounded time. */
import type { channels } from "../store/notify.ts";
import type { ApiContext } from "./context.ts";

/** A waiting request looks by itself this often, in case a notification was lost. */
const lookAgainMs = 2000;

/** Reads until it is enough, woken by notifications, for at most `waitMs`. */
export async function waitFor<T>(
  context: ApiContext,
  wait: {
    readonly channel: (typeof channels)[keyof typeof channels];
    readonly topic: string;
    readonly waitMs: number;
    readonly signal: AbortSignal;
  },
  read: () => Promise<T>,
  isEnough: (value: T) => boolean,
): Promise<T> {
  const { clock, hub } = context;
  const endMs = clock.monotonicMs() + wait.waitMs;
  for (;;) {
    // Asked for before reading: a change between reading and waiting must not be missed.
    const stopWaiting = new AbortController();
    const leftMs = Math.max(0, endMs - clock.monotonicMs());
    const woken = hub.wait(
      wait.channel,
      wait.topic,
      Math.min(leftMs, lookAgainMs),
      AbortSignal.any([wait.signal, stopWaiting.signal]),
    );
    const value = await read();
    if (isEnough(value) || leftMs === 0 || wait.signal.aborted) {
      stopWaiting.abort();
      return value;
    }
    await woken;
  }
}
