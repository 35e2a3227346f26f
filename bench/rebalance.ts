/**
 * Plans rebalances of fleets that are not there: how long planning takes, how near the plan comes to what no
 * plan can beat, and how many bytes it would move. Loads are drawn once, by seed, heavy-tailed as tenants are.
 */
import { parseArgs } from "node:util";
import { rebalanceAskSchema } from "../contract/rebalance-api.ts";
import {
  add,
  type Bin,
  type Load,
  noLoad,
  type Unit,
} from "../control-plane/core/rebalance/load.ts";
import { planRebalance } from "../control-plane/core/rebalance/plan.ts";
import { systemClock } from "../runtime/clock.ts";

const rounds = 5;

export async function run(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      tenants: { type: "string", default: "100000" },
      cells: { type: "string", default: "100" },
    },
  });
  const cells = Number(values.cells);
  const tenants = Number(values.tenants);
  process.stdout.write(`${tenants} tenants, ${cells} cells; median of ${rounds} plans\n`);
  for (const [name, skew] of [
    ["a tenth of the cells twice as full", "tenth"],
    ["one cell was just added", "new"],
    ["a cell has died, its tenants on three others", "dead"],
  ] as const) {
    const { bins, units } = drawFleet(tenants, cells, skew);
    const ask = rebalanceAskSchema.parse({ movesMax: 100_000, bytesMax: 2 ** 43 });
    const times: number[] = [];
    let found = planRebalance(bins, units, ask, 0);
    for (let round = 0; round < rounds; round += 1) {
      const startedMs = systemClock.monotonicMs();
      found = planRebalance(bins, units, ask, 0);
      times.push(systemClock.monotonicMs() - startedMs);
    }
    const median = times.sort((a, b) => a - b)[Math.floor(rounds / 2)] ?? 0;
    process.stdout.write(
      `  ${name.padEnd(46)} ${median.toFixed(0).padStart(6)} ms  ${String(found.moves.length).padStart(6)} moves  ${gib(found.bytes)} GiB  peak ${percent(found.peakBefore)} -> ${percent(found.peakAfter)}, bound ${percent(found.peakBound)} (${(found.peakAfter / found.peakBound).toFixed(2)}x)\n`,
    );
  }
}

type Skew = "tenth" | "new" | "dead";

function drawFleet(tenants: number, cells: number, skew: Skew): { bins: Bin[]; units: Unit[] } {
  const next = mulberry(42);
  const units: Unit[] = Array.from({ length: tenants }, (_one, index) => {
    const size = 1 / (0.02 + next()) ** 1.2;
    return {
      key: `default/tenant/t${index}`,
      cell: cellAt(index, next(), cells, skew),
      epoch: 1,
      tier: "standard",
      region: null,
      load: { tenants: 1, bytes: Math.round(size * 20_000_000), rps: size * next() },
      fixedBecause: null,
      cooldownUntilMs: 0,
      apart: null,
    };
  });
  const loads = new Map<string, Load>();
  for (const { cell, load } of units) loads.set(cell, add(loads.get(cell) ?? noLoad, load));
  const total = units.reduce((sum, { load }) => add(sum, load), noLoad);
  // Half full on the mean.
  const roomy = (all: number) => (2 * all) / cells;
  const capacity = {
    tenants: roomy(total.tenants) * 2,
    bytes: roomy(total.bytes),
    rps: roomy(total.rps),
  };
  const bins = Array.from({ length: cells }, (_one, index): Bin => {
    const cell = `cell-${index}`;
    return {
      ...{ cell, region: "eu", failureDomain: cell, tiers: [], open: true, closedBecause: "" },
      ...{ leaving: false, capacity, reserve: noLoad, maxTenantShare: 0.5 },
      load: loads.get(cell) ?? noLoad,
    };
  });
  return { bins, units };
}

function cellAt(index: number, chance: number, cells: number, skew: Skew): string {
  if (skew === "tenth") {
    const full = Math.max(1, Math.floor(cells / 10));
    return `cell-${chance < 0.18 ? index % full : index % cells}`;
  }
  if (skew === "new") return `cell-${1 + (index % (cells - 1))}`;
  const home = index % cells;
  return `cell-${home === 0 ? 1 + (Math.floor(index / cells) % 3) : home}`;
}

const gib = (bytes: number): string => (bytes / 2 ** 30).toFixed(1).padStart(8);
const percent = (share: number): string => `${(share * 100).toFixed(1)} %`;

/** Mulberry32: the same fleet on every machine. */
function mulberry(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}
