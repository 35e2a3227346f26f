/**
 * Moves on a local fleet of real processes: the pause as customers of the moving tenant see it (longest time
 * between two acknowledged writes, open loop) and what it is made of; whole moves of tenants of 1 MB, 100 MB
 * and, with `--large`, 1 GB, beside a plain COPY of the same rows; and what other tenants notice.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { loadavg } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { startFleet } from "../tests/fleet.ts";
import { travel } from "../tests/moves/travel.ts";
import { type MoveResult, reportText } from "./move/result.ts";
import { moveSizes } from "./move/sized.ts";
import { commit, describeMachine } from "./router/machine.ts";

const others = 10;
const othersPerSecond = 50;
const refusalsMax = 10;
const sizes = [
  { name: "1 MB", mebibytes: 1 },
  { name: "100 MB", mebibytes: 100 },
];
const large = { name: "1 GB", mebibytes: 1024 };

export async function run(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      moves: { type: "string", default: "50" },
      writes: { type: "string", default: "200" },
      large: { type: "boolean", default: false },
      "no-sizes": { type: "boolean", default: false },
      "no-save": { type: "boolean", default: false },
    },
  });
  const before = loadavg()[0] ?? 0;
  const fleet = await startFleet({ flags: ["--no-demo"] });
  try {
    const writesPerSecond = Number(values.writes);
    const found = await travel(fleet, {
      ...{ moves: Number(values.moves), atOnce: 1, isMeasured: true },
      ...{ writesPerSecond, others, othersPerSecond },
      onTrip: ({ from, to, gapMs }) =>
        void process.stderr.write(`${from} -> ${to}: ${gapMs.toFixed(0)} ms\n`),
    });
    const chosen = values["no-sizes"] ? [] : [...sizes, ...(values.large ? [large] : [])];
    const result: MoveResult = {
      ...{ bench: "move", date: new Date().toISOString(), commit: commit() },
      machine: describeMachine(),
      ...{ writesPerSecond, othersPerSecond, trips: found.trips, others: found.others },
      refused: found.refused.length,
      refusals: found.refused.slice(0, refusalsMax),
      lostOrDoubled: found.verdict.violations.length,
      sizes: await moveSizes(fleet, chosen),
      loadAverage: { before, after: loadavg()[0] ?? 0 },
    };
    process.stdout.write(`${reportText(result)}\n`);
    if (!values["no-save"]) save(result);
  } finally {
    await fleet.stop();
  }
}

function save(result: MoveResult): void {
  const results = resolve(import.meta.dirname, "results");
  mkdirSync(results, { recursive: true });
  const file = join(results, `move-${result.date.slice(0, 16).replace(":", "")}.json`);
  writeFileSync(file, `${JSON.stringify(result, undefined, 2)}\n`);
  process.stdout.write(`written: ${file}\n`);
}
