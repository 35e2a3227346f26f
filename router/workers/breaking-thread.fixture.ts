/** For tests only: a worker's thread that throws, really and unheard, when it is told to. */
import { threadId } from "node:worker_threads";
import "./thread.ts";

/** Every thread answers `who` with its id; `break` names the one that throws. */
const channel = new BroadcastChannel("cellfleet-breaking-thread");
channel.onmessage = (event) => {
  const { data } = event as { readonly data: unknown };
  if (data === "who") channel.postMessage({ here: threadId });
  if (typeof data === "object" && data !== null && "break" in data && data.break === threadId) {
    throw new Error("broken by the test");
  }
};
// It must not keep the thread alive by itself.
(channel as unknown as { unref: () => void }).unref();
