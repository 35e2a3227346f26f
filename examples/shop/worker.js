/** The queue's worker: confirms orders. Any number of them may run. */
import { openDatabase } from "./lib/database.js";
import { isRequeue } from "./lib/failure.js";
import { claimJobs, failJob, finishJob } from "./lib/jobs.js";
import { repeat, settings } from "./lib/process.js";

const { databaseUrl } = settings();
const database = openDatabase(databaseUrl, { max: 2 });
const idleMs = 200;
const troubledMs = 1000;

async function work(job) {
  try {
    await database.transaction((client) => finishJob(client, job));
  } catch (error) {
    // Requeue: the tenant has left this database. Its rows went with it, the claim runs out there.
    if (isRequeue(error)) return;
    process.stderr.write(`job ${job.id}: ${error.message}\n`);
    await database.transaction((client) => failJob(client, job, error.message)).catch(() => {});
  }
}

await repeat(async () => {
  try {
    const jobs = await database.transaction(claimJobs);
    for (const job of jobs) await work(job);
    return jobs.length > 0 ? 0 : idleMs;
  } catch (error) {
    if (isRequeue(error)) return idleMs;
    process.stderr.write(`worker: ${error.message}\n`);
    return troubledMs;
  }
}, database.close);
