/**
 * What a request costs in this router, side by side with nginx, HAProxy, http-proxy,
 * @fastify/http-proxy and the bare loop of the two libraries it is made of.
 *
 * One processor is the proxy's alone, on another are load and origin. All proxies run in turn within
 * each round, backwards in every second one, so that what disturbs the machine disturbs all. CPU is
 * the kernel's count over all threads of the process, garbage collection and compilation included.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, loadavg, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import {
  type Answer,
  createLoad,
  type LoadGenerator,
  type LoadResult,
  startOrigin,
} from "./router/load.ts";
import { commit, describeMachine } from "./router/machine.ts";
import { busyText, type Plan, readPlan, type Usage } from "./router/plan.ts";
import {
  canKeepAwake,
  canPin,
  freePorts,
  hasCommand,
  keepAwake,
  loadCore,
  stopAll,
} from "./router/processes.ts";
import { type ProxyName, type Running, startProxy, writeTenants } from "./router/proxies.ts";
import { calm, median, type ProxyResult, type RouterResult, reportText } from "./router/report.ts";

const connections = 64;
/** So few that nobody waits for the processor. */
const connectionsForLatency = 4;
const mebibyte = 2 ** 20;
const warmRequests = 60_000;
const warmSecondsMax = 6;

export async function run(args: readonly string[]): Promise<void> {
  const plan = readPlan(args);
  if (plan.kind === "usage") return tell(plan);
  for (const needed of ["wrk", "nginx"]) {
    if (!hasCommand(needed, ["-v"])) {
      throw new Error(`${needed} is not installed; it makes the load or is the origin`);
    }
  }
  // Before the load of its own: afterwards it would be the bench that is seen.
  const busy = busyText(loadavg()[0] ?? 0, availableParallelism());
  if (busy !== undefined) process.stderr.write(`${busy}\n`);
  const folder = mkdtempSync(join(tmpdir(), "cellfleet-bench-"));
  const interrupted = () => void stopAll().then(() => process.exit(130));
  process.once("SIGINT", interrupted);
  process.once("SIGTERM", interrupted);
  try {
    const result = await measure(plan, folder);
    process.stdout.write(`${reportText(result)}\n`);
    if (busy !== undefined) process.stderr.write(`${busy}\n`);
    if (plan.save) save(result);
  } finally {
    await stopAll();
    rmSync(folder, { recursive: true, force: true });
    process.off("SIGINT", interrupted);
    process.off("SIGTERM", interrupted);
  }
}

const exitUsage = 64;

function tell({ text, wrong }: Usage): void {
  if (wrong === undefined) {
    process.stdout.write(text);
    return;
  }
  process.stderr.write(`${wrong}\n${text}`);
  process.exitCode = exitUsage;
}

function save(result: RouterResult): void {
  const results = resolve(import.meta.dirname, "results");
  mkdirSync(results, { recursive: true });
  const file = join(results, `router-${result.date.slice(0, 16).replace(":", "")}.json`);
  writeFileSync(file, `${JSON.stringify(result, undefined, 2)}\n`);
  process.stdout.write(`written: ${file}\n`);
}

async function measure(plan: Plan, folder: string): Promise<RouterResult> {
  const cellPorts = await freePorts(4);
  await startOrigin(folder, cellPorts);
  keepAwake(loadCore);
  writeTenants(folder, cellPorts);
  const load = createLoad(folder);
  const running: Running[] = [];
  const notInstalled: string[] = [];
  for (const name of plan.names) {
    const proxy = await startProxy(name, folder, cellPorts);
    if (proxy === undefined) notInstalled.push(name);
    else running.push(proxy);
  }
  for (const proxy of running) await warmUp(load, proxy);
  const samples = await sampleRounds(load, plan, running);
  const latencies = await sampleLatencies(load, plan, running, cellPorts[0] ?? 0);
  return {
    bench: "router",
    date: new Date().toISOString(),
    commit: commit(),
    machine: describeMachine(),
    method: {
      rounds: plan.rounds,
      secondsPerRound: plan.seconds,
      connections,
      connectionsForLatency,
      pinned: canPin ? "proxy on processor 0; load and origin on 1" : "no",
      loadAwake: canKeepAwake ? "yes" : "no",
      calm: "median of the 3 lowest rounds",
    },
    notInstalled,
    proxies: running.map((proxy) =>
      summary(proxy, samples.get(proxy.name) ?? newSamples(), latencies),
    ),
  };
}

async function sampleRounds(
  load: LoadGenerator,
  plan: Plan,
  running: readonly Running[],
): Promise<ReadonlyMap<ProxyName, Samples>> {
  const samples = new Map(running.map(({ name }) => [name, newSamples()]));
  for (let round = 0; round < plan.rounds; round += 1) {
    const order = round % 2 === 0 ? running : [...running].reverse();
    for (const proxy of order) {
      samples.get(proxy.name)?.full.push(await sample(load, proxy, "1KiB", plan.seconds));
    }
  }
  for (const answer of plan.bodies) {
    for (const proxy of running) await sampleBody(load, proxy, answer, plan, samples);
  }
  return samples;
}

/** What few connections see, and what they see without a proxy. */
type Latencies = {
  readonly direct: LoadResult;
  readonly of: ReadonlyMap<ProxyName, LoadResult>;
};

async function sampleLatencies(
  load: LoadGenerator,
  plan: Plan,
  running: readonly Running[],
  directPort: number,
): Promise<Latencies | undefined> {
  if (!plan.latency) return undefined;
  const few = (port: number) =>
    load({ port, answer: "1KiB", connections: connectionsForLatency, seconds: plan.seconds });
  const direct = await few(directPort);
  const of = new Map<ProxyName, LoadResult>();
  for (const { name, port } of running) of.set(name, await few(port));
  return { direct, of };
}

type Sample = LoadResult & { readonly cpuUs: number };
type Samples = { readonly full: Sample[]; readonly bodies: Map<Answer, Sample[]> };
const newSamples = (): Samples => ({ full: [], bodies: new Map() });

/** Compiled code and open connections; cold seconds are nobody's figure. */
async function warmUp(load: LoadGenerator, { port }: Running): Promise<void> {
  let served = 0;
  for (let second = 0; second < warmSecondsMax && served < warmRequests; second += 1) {
    served += (await load({ port, answer: "1KiB", connections, seconds: 1 })).requests;
  }
}

async function sample(
  load: LoadGenerator,
  proxy: Running,
  answer: Answer,
  seconds: number,
): Promise<Sample> {
  const before = proxy.cpuUs();
  const result = await load({ port: proxy.port, answer, connections, seconds });
  return { ...result, cpuUs: proxy.cpuUs() - before };
}

/** Large answers are the same with and without a log. */
async function sampleBody(
  load: LoadGenerator,
  proxy: Running,
  answer: Answer,
  plan: Plan,
  samples: ReadonlyMap<ProxyName, Samples>,
): Promise<void> {
  if (proxy.name.endsWith("+log")) return;
  const bodies = samples.get(proxy.name)?.bodies;
  const list = bodies?.get(answer) ?? [];
  list.push(await sample(load, proxy, answer, plan.seconds));
  bodies?.set(answer, list);
}

function summary(
  { name, rssBytes }: Running,
  { full, bodies }: Samples,
  latencies: Latencies | undefined,
): ProxyResult {
  const rounds = full.map(({ cpuUs, requests }) => cpuUs / requests);
  const ms = (of: (one: LoadResult) => number) => median(full.map(of)) / 1000;
  const throughput = [...bodies].map(([answer, list]) => {
    const rates = list.map(({ bytes, cpuUs }) => bytes / mebibyte / (cpuUs / 1e6));
    return [answer, median(rates)] as const;
  });
  const light = latencies?.of.get(name);
  return {
    name,
    cpuUs: { calm: calm(rounds), all: median(rounds), rounds },
    requestsPerSecond: median(full.map(({ requests, us }) => requests / (us / 1e6))),
    latencyMs: {
      p50: ms((one) => one.p50),
      p99: ms((one) => one.p99),
      p999: ms((one) => one.p999),
    },
    ...(latencies !== undefined && light !== undefined
      ? { addedMs: added(latencies.direct, light) }
      : {}),
    throughput: Object.fromEntries(throughput),
    rssMiB: rssBytes() / mebibyte,
    errors: [...full, ...[...bodies.values()].flat()].reduce((all, one) => all + one.errors, 0),
  };
}

const added = (less: LoadResult, more: LoadResult) => ({
  p50: (more.p50 - less.p50) / 1000,
  p99: (more.p99 - less.p99) / 1000,
  p999: (more.p999 - less.p999) / 1000,
});
