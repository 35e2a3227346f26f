/** Where a worker's thread begins: it serves with its own share, from the table that it is given. */
import { parentPort, workerData } from "node:worker_threads";
import { must } from "../../runtime/assert.ts";
import { quietWarnings } from "../../runtime/quiet-warnings.ts";
import { serveAsWorker } from "./serve-as-worker.ts";

quietWarnings();
serveAsWorker(must(parentPort, "a thread with a parent"), workerData);
