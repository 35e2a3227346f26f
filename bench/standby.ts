/**
 * What standbys cost a cell: the same load on two local fleets, one with standbys and one without, in rounds that
 * take turns. Orders per second at full load, processor time per order of everything that belongs to cells, and
 * how long an order took.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Agent } from "undici";
import { systemClock } from "../runtime/clock.ts";
import { ask, startFleet, type TestFleet, until } from "../tests/fleet.ts";
import { quantilesOf } from "../tests/moves/quantiles.ts";
import { openFleetClient } from "../tests/outage/fleet-client.ts";

const tenants = 20;
const clients = 8;

type Round = { readonly perSecond: number; readonly cpuMsPerOrder: number; readonly p50: number };

export async function run(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      rounds: { type: "string", default: "3" },
      seconds: { type: "string", default: "10" },
    },
  });
  const flags = ["--no-demo"];
  const fleets = [
    { name: "no standbys", fleet: await startFleet({ cells: 3, flags }), rounds: [] as Round[] },
    {
      name: "2 standbys per cell",
      fleet: await startFleet({ cells: 3, standbyPartners: 2, flags }),
      rounds: [] as Round[],
    },
  ];
  try {
    for (const { fleet } of fleets) await prepare(fleet);
    await standbysReady(fleets[1]?.fleet);
    for (let round = 1; round <= Number(values.rounds); round += 1) {
      for (const { name, fleet, rounds } of fleets) {
        const found = await measure(fleet, Number(values.seconds) * 1000);
        rounds.push(found);
        process.stderr.write(`round ${round}, ${name}: ${found.perSecond.toFixed(0)}/s\n`);
      }
    }
    for (const { name, rounds } of fleets) {
      const of = (pick: (one: Round) => number) => median(rounds.map(pick));
      process.stdout.write(
        `${name.padEnd(22)} ${of((one) => one.perSecond).toFixed(0)} orders/s, ${of((one) => one.cpuMsPerOrder).toFixed(2)} ms of processor time per order in cells, p50 ${of((one) => one.p50).toFixed(1)} ms\n`,
      );
    }
  } finally {
    for (const { fleet } of fleets) await fleet.stop();
  }
}

async function prepare(fleet: TestFleet): Promise<void> {
  const client = await openFleetClient(fleet);
  const cells = Object.keys((await fleet.endpoints()).cells);
  await client.importTenants(
    Array.from({ length: tenants }, (_one, index) => ({
      id: `tenant-${index}`,
      cell: cells[index % cells.length] ?? "",
    })),
  );
  await client.close();
  await until("every tenant is served", async () => {
    const answers = await Promise.all(
      Array.from({ length: tenants }, (_one, index) =>
        fleet.ask(`tenant-${index}`, "GET", "/orders"),
      ),
    );
    return answers.every(({ status }) => status === 200);
  });
}

async function standbysReady(fleet: TestFleet | undefined): Promise<void> {
  if (fleet === undefined) return;
  const client = await openFleetClient(fleet);
  const isReady = async () => {
    const all = await client.standbys();
    return all.length >= 6 && all.every(({ state, warm }) => state === "ready" && warm);
  };
  await until("standbys are ready", isReady, 180_000);
  await client.close();
}

/** As many orders as clients get answered, one after the other each. */
async function measure(fleet: TestFleet, forMs: number): Promise<Round> {
  const { router } = await fleet.endpoints();
  const agent = new Agent({ connections: clients, allowH2: false });
  const times: number[] = [];
  const beforeMs = cellCpuMs(fleet.dataDir);
  const startedMs = systemClock.monotonicMs();
  const client = async (first: number) => {
    for (let n = first; systemClock.monotonicMs() - startedMs < forMs; n += clients) {
      const sentMs = systemClock.monotonicMs();
      const headers = { "x-tenant-id": `tenant-${n % tenants}` };
      const answer = await ask(
        agent,
        router,
        "POST",
        "/orders",
        { item: "x", quantity: 1 },
        headers,
      );
      if (answer.status !== 201) throw new Error(`${answer.status} ${answer.text}`);
      times.push(systemClock.monotonicMs() - sentMs);
    }
  };
  await Promise.all(Array.from({ length: clients }, (_one, index) => client(index)));
  const tookMs = systemClock.monotonicMs() - startedMs;
  const cpuMs = cellCpuMs(fleet.dataDir) - beforeMs;
  await agent.destroy();
  return {
    perSecond: (times.length / tookMs) * 1000,
    cpuMsPerOrder: cpuMs / times.length,
    p50: quantilesOf(times).p50,
  };
}

/** Of every process that names the fleet's cells on its command line, and their children; Linux. */
function cellCpuMs(dataDir: string): number {
  const processes = readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => readProcess(pid));
  const mine = new Set(
    processes.filter(({ args }) => args.includes(join(dataDir, "cells"))).map(({ pid }) => pid),
  );
  for (let grown = true; grown; ) {
    const more = processes.filter(({ pid, parent }) => mine.has(parent) && !mine.has(pid));
    for (const { pid } of more) mine.add(pid);
    grown = more.length > 0;
  }
  return processes.filter(({ pid }) => mine.has(pid)).reduce((sum, { cpuMs }) => sum + cpuMs, 0);
}

const ticksPerSecond = 100;

function readProcess(name: string) {
  try {
    const stat = readFileSync(`/proc/${name}/stat`, "utf8");
    const rest = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    const args = readFileSync(`/proc/${name}/cmdline`, "utf8").replaceAll("\0", " ");
    const ticks = Number(rest[11]) + Number(rest[12]) + Number(rest[13]) + Number(rest[14]);
    return [
      { pid: Number(name), parent: Number(rest[1]), args, cpuMs: (ticks / ticksPerSecond) * 1000 },
    ];
  } catch {
    return []; // It ended while it was looked at.
  }
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? 0;
}
