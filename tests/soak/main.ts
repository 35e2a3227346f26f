/**
 * A day in small: `node tests/soak/main.ts [--minutes M] [--workers N]`. Full load with good clients, rude ones
 * of every kind, tunnels, and cells that go away and come back, against the real router in a process of
 * its own. Exit 0 when no good client got an error that its cell did not cause, memory stayed flat, and
 * after the load nothing was left open. Needs Linux.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { parseArgs } from "node:util";
import { startCell } from "./cells.ts";
import {
  goodClient,
  rudeClient,
  rudenesses,
  type Soaking,
  tableOf,
  tunnelClient,
} from "./clients.ts";
import { type Sample, startRouter } from "./router-process.ts";

const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "10" },
    workers: { type: "string", default: "1" },
  },
});
const minutes = Number(values.minutes);
const sampleMs = 5000;
const restartEveryMs = 15_000;
/** Growth from the second quarter to the last: more is a leak. */
const growthMax = 1.15;
const growthMiB = 16;

const dir = await mkdtemp(join(tmpdir(), "cellfleet-soak-"));
const cells = await Promise.all(["a", "b", "c", "d"].map(startCell));
const router = await startRouter(dir, tableOf(cells), ["--workers", values.workers]);
const before = await router.sample();
let over = false;
const tally = { good: 0, excused: 0, rude: 0, tunnels: 0, faults: [] as string[] };
const soaking: Soaking = { port: router.port, cells, tally, stopped: () => over };
const samples: Sample[] = [];

const clients = [
  ...Array.from({ length: 32 }, (_, at) => goodClient(soaking, at + 1)),
  ...Object.keys(rudenesses).flatMap((kind, at) =>
    [0, 1, 2, 3].map((one) => rudeClient(soaking, kind, at * 10 + one)),
  ),
  ...Array.from({ length: 8 }, (_, at) => tunnelClient(soaking, at + 1)),
];
const endMs = performance.now() + minutes * 60_000;
const restarts = (async () => {
  // The last cell stays, so that it shows what others cost it.
  for (let at = 0; performance.now() < endMs - restartEveryMs; at += 1) {
    await pause(restartEveryMs);
    await cells[at % (cells.length - 1)]?.restart(500 + (at % 3) * 700);
  }
})();
while (performance.now() < endMs) {
  await pause(sampleMs);
  const sample = await router.sample();
  samples.push(sample);
  console.log(
    `${Math.round((endMs - performance.now()) / 1000)} s left: ${tally.good} good, ${tally.excused} excused, ` +
      `${tally.faults.length} faults, ${tally.rude} rude, ${tally.tunnels} tunnels; ` +
      `${sample.rssMiB} MiB, ${sample.files} files`,
  );
}
over = true;
await Promise.all([...clients, restarts]);

const gauges = ["inflight_requests", "pending_requests", "held_requests", "tunnels_open"];
const left = async () => Promise.all(gauges.map((one) => router.metric(`cellfleet_router_${one}`)));
let idle = await left();
let after = await router.sample();
// What was begun may end: the longest of the waits is the silence of a body.
for (
  let tries = 0;
  tries < 90 && (idle.some((one) => one > 0) || after.files > before.files + 8);
  tries += 1
) {
  await pause(1000);
  idle = await left();
  after = await router.sample();
}
const exit = await router.stop();
for (const cell of cells) await cell.close();
await rm(dir, { recursive: true, force: true });

const middle = (list: readonly number[]) => [...list].sort((a, b) => a - b)[list.length >> 1] ?? 0;
const rss = samples.map(({ rssMiB }) => rssMiB);
const quarter = Math.floor(rss.length / 4);
const early = middle(rss.slice(quarter, quarter * 2));
const late = middle(rss.slice(-quarter));
const problems = [
  ...tally.faults.slice(0, 20),
  ...router.troubles().slice(0, 20),
  ...(idle.some((one) => one > 0)
    ? [`left at the end: ${gauges.join(", ")} = ${idle.join(", ")}`]
    : []),
  ...(after.files > before.files + 8
    ? [`files: ${before.files} before, ${after.files} after`]
    : []),
  ...(late > early * growthMax && late > early + growthMiB ? ["memory grows"] : []),
  ...(exit === 0 ? [] : [`the router's exit code is ${exit}`]),
];
console.log(
  `${minutes} min, ${values.workers} worker(s): ${tally.good} good, ${tally.excused} excused, ${tally.faults.length} faults, ` +
    `${tally.rude} rude, ${tally.tunnels} tunnels; memory ${before.rssMiB} MiB idle, ${early} MiB in the second quarter, ` +
    `${late} MiB in the last, ${after.rssMiB} MiB after; files ${before.files} before, ${after.files} after`,
);
for (const problem of problems) console.log(`PROBLEM ${problem}`);
process.exitCode = problems.length === 0 ? 0 : 1;
