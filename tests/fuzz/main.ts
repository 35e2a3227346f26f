/**
 * Fuzzing of the router: `node tests/fuzz/main.ts [--requests N] [--http2 N] [--seed S]`, N requests of HTTP/1
 * and N streams of HTTP/2. Exit 0 when nothing was found; what was found is printed with the bytes that
 * show it, and the seed repeats the run.
 */
import { parseArgs } from "node:util";
import { fuzz } from "./run.ts";

const { values } = parseArgs({
  options: {
    requests: { type: "string", default: "200000" },
    http2: { type: "string", default: "20000" },
    seed: { type: "string", default: "20261122" },
  },
});
const seed = Number(values.seed);
const wanted = [
  { protocol: "http1", requests: Number(values.requests) },
  { protocol: "http2", requests: Number(values.http2) },
] as const;
if (!wanted.every(({ requests }) => requests >= 0) || !Number.isSafeInteger(seed)) {
  console.error("usage: node tests/fuzz/main.ts [--requests N] [--http2 N] [--seed S]");
  process.exit(64);
}
let isGood = true;
for (const { protocol, requests } of wanted) {
  if (requests === 0) continue;
  const onProgress = (sent: number) => console.log(`${protocol}: ${sent} sent`);
  const report = await fuzz({ protocol, requests, seed, onProgress });
  const { findings, sent, seconds, connections, carried, answered, memory, socketsLeft } = report;
  const looks = memory.map(({ heapMiB, buffersMiB }) => `${heapMiB}+${buffersMiB}`);
  console.log(
    `${protocol}: ${sent} requests on ${connections} connections in ${seconds.toFixed(1)} s ` +
      `(${Math.round(sent / seconds)}/s): ${carried} carried, ${answered} answered by a cell; ` +
      `heap and buffers ${looks.join(" → ")} MiB; ` +
      `${socketsLeft} sockets left; ${findings.length} findings; seed ${seed}`,
  );
  for (const finding of findings) console.log(`\nFINDING ${finding}`);
  isGood &&= findings.length === 0 && socketsLeft === 0;
}
process.exit(isGood ? 0 : 1);
