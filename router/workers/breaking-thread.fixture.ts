/** For tests only: a worker's thread that throws, really and unheard, or stands still, when told to. */
import { threadId } from "node:worker_threads";
import "./thread.ts";

/**
 * Every thread answers `who` with its id; `break` names the one that throws. All stand still from `hold`
 * until its first number is not 0 any more.
 */
const channel = new BroadcastChannel("cellfleet-breaking-thread");
channel.onmessage = (event) => {
  const { data } = event as { readonly data: unknown };
  if (data === "who") channel.postMessage({ here: threadId });
  if (typeof data === "object" && data !== null && "break" in data && data.break === threadId) {
    throw new Error("broken by the test");
  }
  if (typeof data === "object" && data !== null && "hold" in data) {
    channel.postMessage({ here: threadId });
    Atomics.wait(data.hold as Int32Array, 0, 0, 20_000);
  }
};
// It must not keep the thread alive by itself.
(channel as unknown as { unref: () => void }).unref();
