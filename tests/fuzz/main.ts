/**
 * Fuzzing of the router: `node tests/fuzz/main.ts [--requests N] [--seed S]`. Exit 0 when nothing was found;
 * what was found is printed with the bytes that show it, and the seed repeats the run.
 */
import { parseArgs } from "node:util";
import { fuzz } from "./run.ts";

const { values } = parseArgs({
  options: {
    requests: { type: "string", default: "200000" },
    seed: { type: "string", default: "20261122" },
  },
});
const requests = Number(values.requests);
const seed = Number(values.seed);
if (!Number.isSafeInteger(requests) || !Number.isSafeInteger(seed) || requests < 1) {
  console.error("usage: node tests/fuzz/main.ts [--requests N] [--seed S]");
  process.exit(64);
}
const report = await fuzz({ requests, seed, onProgress: (sent) => console.log(`${sent} sent`) });
const { findings, sent, seconds, connections, carried, answered, heapMiB, socketsLeft } = report;
console.log(
  `${sent} requests on ${connections} connections in ${seconds.toFixed(1)} s (${Math.round(sent / seconds)}/s): ` +
    `${carried} carried, ${answered} answered by a cell; heap ${heapMiB.join(" → ")} MiB; ` +
    `${socketsLeft} sockets left; ${findings.length} findings; seed ${seed}`,
);
for (const finding of findings) console.log(`\nFINDING ${finding}`);
process.exit(findings.length === 0 && socketsLeft === 0 ? 0 : 1);
