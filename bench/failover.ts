/**
 * A cell of a local fleet is killed under load, application and database at once: how long its tenants' customers
 * were without it, and what the takeover spent that on, step by step. One fleet per size, one after the other.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { loadavg } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { startFleet } from "../tests/fleet.ts";
import { deadCell } from "../tests/outage/dead-cell.ts";
import { commit, describeMachine } from "./router/machine.ts";

const cells = 4;
/** Each tenant is written to at least this often. */
const seldomSeconds = 60;
/** A tenant is back with the first of three; each of them is waited for. */
const successesSeen = 3.2;

export async function run(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      sizes: { type: "string", default: "30,300,3000" },
      writes: { type: "string", default: "100" },
      "no-save": { type: "boolean", default: false },
    },
  });
  const results = [];
  for (const size of values.sizes.split(",").map(Number)) {
    const before = loadavg()[0] ?? 0;
    const writesPerSecond = Math.max(Number(values.writes), (size * cells) / seldomSeconds);
    const intervalMs = ((size * cells) / writesPerSecond) * 1000;
    const fleet = await startFleet({
      ...{ cells, standbyPartners: 3, flags: ["--no-demo", "--routers", "2"] },
    });
    try {
      const found = await deadCell(fleet, {
        tenants: size * cells,
        // Of many tenants each is written to seldom: no longer than so it was seen without its cell for sure.
        writesPerSecond,
        ...{ victim: "cell-02", afterMs: Math.max(5000, intervalMs * successesSeen) },
        say: (line) => void process.stderr.write(`${line}\n`),
      });
      const { outage, failover, lost, falseAlarms, neverBack, othersRefused } = found;
      const result = {
        ...{ tenantsPerCell: size, writtenEverySeconds: intervalMs / 1000 },
        ...{ outage, phases: failover.phases, lost, falseAlarms },
        ...{ neverBack: neverBack.length, othersRefused: othersRefused.length },
        ...{ historyOk: found.verdict.ok, method: failover.report?.method },
        loadAverage: { before, after: loadavg()[0] ?? 0 },
      };
      results.push(result);
      process.stdout.write(`${lineOf(result)}\n`);
    } finally {
      await fleet.stop();
    }
  }
  if (values["no-save"]) return;
  const date = new Date().toISOString();
  const folder = resolve(import.meta.dirname, "results");
  mkdirSync(folder, { recursive: true });
  const file = join(folder, `failover-${date.slice(0, 16).replace(":", "")}.json`);
  const saved = {
    bench: "failover",
    date,
    commit: commit(),
    machine: describeMachine(),
    cells,
    results,
  };
  writeFileSync(file, `${JSON.stringify(saved, undefined, 2)}\n`);
  process.stdout.write(`written: ${file}\n`);
}

function lineOf(one: {
  readonly tenantsPerCell: number;
  readonly writtenEverySeconds: number;
  readonly outage: {
    readonly count: number;
    readonly p50: number;
    readonly p95: number;
    readonly max: number;
  };
  readonly phases: Readonly<Record<string, number>>;
  readonly lost: number;
  readonly falseAlarms: number;
}): string {
  const { count, p50, p95, max } = one.outage;
  const phases = Object.entries(one.phases).map(([step, ms]) => `${step} ${Math.round(ms)}`);
  const every = `${Math.round(one.writtenEverySeconds * 10) / 10} s`;
  return `${one.tenantsPerCell} tenants per cell, each written to every ${every}: without it ${count} tenants, p50 ${p50}, p95 ${p95}, max ${max} ms; ${phases.join(", ")} ms; lost ${one.lost}, false alarms ${one.falseAlarms}`;
}
