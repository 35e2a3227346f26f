/** A worker as a thread: what is needed of it, and nothing more. */
import type { Server } from "node:net";
import { type Transferable, Worker } from "node:worker_threads";
import type { ToWorker, WorkerStart } from "./messages.ts";

export type WorkerPort = {
  /** `moving` change their thread: who sends them has them no more. */
  readonly post: (message: ToWorker, moving?: readonly Server[]) => void;
  readonly listen: (hear: WorkerEars) => void;
  /** Ends it as it stands. */
  readonly terminate: () => Promise<void>;
};

export type WorkerEars = {
  readonly message: (value: unknown) => void;
  /** It ends of this; `exit` follows. */
  readonly error: (error: unknown) => void;
  /** Once, and last. */
  readonly exit: () => void;
};

export type SpawnWorker = (start: WorkerStart) => WorkerPort;

/** Beside this file, in whichever language it runs. */
const threadUrl = new URL(
  import.meta.url.endsWith(".ts") ? "./thread.ts" : "./thread.js",
  import.meta.url,
);

export const spawnThread =
  (entry: URL = threadUrl): SpawnWorker =>
  (start) => {
    // It inherits the process's flags. Given once more, those of the whole process would be refused.
    const worker = new Worker(entry, { workerData: start, name: "router-worker" });
    return {
      post: (message, moving = []) =>
        worker.postMessage(message, moving as unknown as readonly Transferable[]),
      listen: ({ message, error, exit }) => {
        worker.on("message", message);
        worker.on("error", error);
        worker.once("exit", exit);
      },
      terminate: async () => {
        await worker.terminate();
      },
    };
  };
