/**
 * A day in small: `node tests/soak/main.ts [--minutes M] [--workers N] [--tls]`. Full load against the real
 * router in a process of its own: good clients, rude ones of every kind, tunnels, and cells that go away and
 * come back. The load comes twice, the first time short, with a rest after each, when nothing may be left.
 *
 * Exit 0 when no good client got an error that its cell did not cause or waited long, memory stayed flat, the
 * second rest found what the first had, and nothing was left open. Needs Linux.
 */
import { rmSync } from "node:fs";
import { mkdir, mkdtemp, writeFile } from "node:fs/promises";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { parseArgs } from "node:util";
import { createAuthority } from "../../runtime/tls/certificates.fixture.ts";
import { startCell } from "./cells.ts";
import { createLatencies } from "./latencies.ts";
import { watchLateness } from "./lateness.ts";
import { load } from "./load.ts";
import { type Sample, startRouter } from "./router-process.ts";
import { type Soaking, type Tally, tableOf } from "./soaking.ts";
import { problemsOf, quarters, type Rest } from "./verdict.ts";

const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "10" },
    workers: { type: "string", default: "1" },
    tls: { type: "boolean", default: false },
    /** Counts of objects at both rests. */
    objects: { type: "boolean", default: false },
  },
});
const minutes = Number(values.minutes);
if (!(minutes > 0)) {
  console.error("usage: node tests/soak/main.ts [--minutes M] [--workers N] [--tls] [--objects]");
  process.exit(64);
}
const sampleMs = 5000;
/** A collection of the whole heap is no part of the load: seldom. */
const samplesPerHeap = 4;
const warmUpMs = Math.min(60_000, (minutes * 60_000) / 3);
const restSeconds = 90;
const gauges = [
  ...["requests_under_way", "inflight_requests", "pending_requests", "cell_inflight_requests"],
  ...["cell_pending_requests", "held_requests", "fan_outs", "ws_open", "connections_open"],
];

const dir = await mkdtemp(join(tmpdir(), "cellfleet-soak-"));
const cells = await Promise.all(["a", "b", "c", "d"].map(startCell));
const secured = values.tls ? await secure() : undefined;
const router = await startRouter(dir, tableOf(cells), [
  ...["--workers", values.workers, ...(secured?.flags ?? [])],
  // Fills up while it warms up. How late the loop is says more of the machine than of the router.
  ...["--explain-requests-max", "500", "--shed-late-ms", "0"],
]);
// Also when it fails or is told to end.
process.once("exit", () => {
  router.kill();
  rmSync(dir, { recursive: true, force: true });
});
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(130));
const lateness = watchLateness();
const tally: Tally = {
  ...{ good: 0, excused: 0, rude: 0, tunnels: 0 },
  ...{ latencies: createLatencies(), openings: createLatencies(), faults: [] },
};
const samples: Sample[] = [];
const heaps: number[] = [];

const idle = await router.sample();
await stretch(warmUpMs);
const first = await rest();
samples.length = 0;
heaps.length = 0;
await stretch(minutes * 60_000);
const second = await rest();
const exit = await router.stop();
lateness.stop();
for (const cell of cells) await cell.close();
report();

async function stretch(forMs: number): Promise<void> {
  const over = new AbortController();
  const soaking: Soaking = {
    port: router.port,
    secured,
    cells,
    tally,
    lateness,
    over: over.signal,
  };
  lateness.noteStarved((await router.sample()).starvedMs);
  const loading = load(soaking);
  const endMs = performance.now() + forMs;
  for (let at = 1; performance.now() < endMs; at += 1) {
    await pause(Math.min(sampleMs, endMs - performance.now()));
    const sample = await router.sample();
    samples.push(sample);
    lateness.noteStarved(sample.starvedMs);
    if (at % samplesPerHeap === 0) heaps.push(total(await router.inspector.heaps()));
    const leftS = Math.max(0, Math.round((endMs - performance.now()) / 1000));
    console.log(
      `${leftS} s left: ${told(tally)}; ${sample.rssMiB} MiB, heap ${heaps.at(-1) ?? "?"} MiB, ` +
        `${sample.files} files, ${sample.unaccepted} not accepted yet`,
    );
  }
  over.abort();
  await loading;
}

/** What was begun may end: the longest of the waits is the silence of a body. */
async function rest(): Promise<Rest> {
  let sample = await router.sample();
  let left = await notZero();
  for (
    let tries = 0;
    tries < restSeconds && (left.length > 0 || sample.files > idle.files + 8);
    tries += 1
  ) {
    if (tries % 10 === 9) console.log(`resting: ${left.join(", ")}; ${sample.files} files`);
    await pause(1000);
    left = await notZero();
    sample = await router.sample();
  }
  const objects = await router.inspector.objects();
  return { sample, left, heaps: await router.inspector.heaps(), objects };
}

async function notZero(): Promise<string[]> {
  const page = await router.metrics();
  return gauges.flatMap((gauge) => {
    const value = page.get(`cellfleet_router_${gauge}`);
    return value === 0 ? [] : [`${gauge} ${value}`];
  });
}

/** The port is free now; the router's log does not say which one it got. */
async function secure() {
  const certs = join(dir, "certs");
  await mkdir(certs);
  const authority = createAuthority();
  const { cert, key } = authority.issue(["soak.test"]);
  await writeFile(join(certs, "soak.crt"), cert);
  await writeFile(join(certs, "soak.key"), key);
  const holder = createServer();
  await new Promise<void>((resolve) => holder.listen(0, "127.0.0.1", resolve));
  const { port } = holder.address() as AddressInfo;
  await new Promise((resolve) => holder.close(resolve));
  return { port, ca: authority.cert, flags: ["--tls", `127.0.0.1:${port}`, "--tls-certs", certs] };
}

function told({ good, excused, faults, rude, tunnels }: Tally): string {
  return `${good} good, ${excused} excused, ${faults.length} faults, ${rude} rude, ${tunnels} tunnels`;
}

function total(list: readonly number[]): number {
  return Math.round(list.reduce((all, one) => all + one, 0) * 10) / 10;
}

function report(): void {
  const { latencies } = tally;
  const [rssEarly, rssLate] = quarters(samples.map(({ rssMiB }) => rssMiB));
  const [heapEarly, heapLate] = quarters(heaps);
  console.log(
    `${minutes} min, ${values.workers} worker(s)${values.tls ? ", TLS" : ""}: ${told(tally)}`,
  );
  console.log(
    `good requests: p50 ${latencies.at(0.5)} ms, p99 ${latencies.at(0.99)} ms, longest ${latencies.max()} ms; ` +
      `this process stood still for at most ${lateness.worstMs()} ms`,
  );
  console.log(
    `memory: ${idle.rssMiB} MiB idle, ${rssEarly} in the second quarter, ${rssLate} in the last, ${second.sample.rssMiB} after; ` +
      `heap in use: ${heapEarly} → ${heapLate} MiB under load, ${total(first.heaps)} → ${total(second.heaps)} MiB at rest; ` +
      `files ${idle.files} idle, ${first.sample.files} → ${second.sample.files} at rest`,
  );
  const starvedMs = (samples.at(-1)?.starvedMs ?? 0) - (samples[0]?.starvedMs ?? 0);
  const starved = Math.round((100 * starvedMs) / (sampleMs * Math.max(1, samples.length - 1)));
  const unaccepted = Math.max(...samples.map((sample) => sample.unaccepted));
  console.log(
    `tunnels opened: p50 ${tally.openings.at(0.5)} ms, p99 ${tally.openings.at(0.99)} ms; ` +
      `longest queue of connections ${unaccepted}; the router waited ${starved} % of the time for a processor`,
  );
  if (values.objects) tellObjects();
  const { faults } = tally;
  const problems = problemsOf({
    ...{ faults, troubles: router.troubles(), exit, idle, samples },
    ...{ rests: [first, second], heapsUnderLoad: heaps },
  });
  for (const problem of problems) console.log(`PROBLEM ${problem}`);
  process.exitCode = problems.length === 0 ? 0 : 1;
}

function tellObjects(): void {
  const grown = [...second.objects]
    .map(([name, count]) => ({ name, was: first.objects.get(name) ?? 0, count }))
    .sort((a, b) => b.count - b.was - (a.count - a.was));
  for (const { name, was, count } of grown.slice(0, 30)) console.log(`${name}: ${was} → ${count}`);
}
