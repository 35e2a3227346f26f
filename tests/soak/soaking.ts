/** What all clients of a soak share: where to, whose tenant is where, and what became of each request. */
import { setTimeout as timer } from "node:timers/promises";
import type { SoakCell } from "./cells.ts";
import type { Latencies } from "./latencies.ts";
import type { Lateness } from "./lateness.ts";

export type Tally = {
  good: number;
  /** While the tenant's cell was away, or had just come back. */
  excused: number;
  rude: number;
  tunnels: number;
  readonly latencies: Latencies;
  /** From a tunnel's connection to its 101. */
  readonly openings: Latencies;
  readonly faults: string[];
};

export type Soaking = {
  readonly port: number;
  /** Of TLS with HTTP/2, and the authority of its certificate. */
  readonly secured: { readonly port: number; readonly ca: string } | undefined;
  readonly cells: readonly SoakCell[];
  readonly tally: Tally;
  readonly lateness: Lateness;
  /** Aborted when the clients shall end. */
  readonly over: AbortSignal;
};

/** A failure is the cell's own if it was away at any time since shortly before the request. */
const graceMs = 3000;
/** A good request that takes longer although its cell is there is a fault. */
const slowFromMs = 5000;
const tenants = 200;

export const tenantOf = (number: number) => `t-${number % tenants}`;

export const cellOf = ({ cells }: Pick<Soaking, "cells">, number: number): SoakCell => {
  const cell = cells[(number % tenants) % cells.length];
  if (cell === undefined) throw new Error("a soak has cells");
  return cell;
};

export const tableOf = (cells: readonly SoakCell[]) => ({
  tenantKey: [{ header: "x-tenant-id" }],
  cells: Object.fromEntries(cells.map(({ id, url }) => [id, { endpoints: [url] }])),
  tenants: Object.fromEntries(
    Array.from({ length: tenants }, (_, at) => [tenantOf(at), cellOf({ cells }, at).id]),
  ),
});

/** Ends early when the soak is over. */
export const pauseIn = ({ over }: Soaking, ms: number): Promise<void> =>
  timer(ms, undefined, { signal: over }).catch(() => {});

/** What became of a good request or tunnel; `problem`: what was wrong with it, beside its time. */
export function judge(
  soaking: Pick<Soaking, "cells" | "tally" | "lateness">,
  number: number,
  startedMs: number,
  tookMs: number,
  problem: string | undefined,
): "good" | "excused" | "fault" {
  const { tally, lateness } = soaking;
  const cell = cellOf(soaking, number);
  const isExcused = wasAway(cell, startedMs) || lateness.wasLateSince(startedMs);
  const isSlow = tookMs > slowFromMs && !isExcused && !lateness.wasStarvedSince(startedMs);
  const fault = problem ?? (isSlow ? `took ${Math.round(tookMs)} ms` : undefined);
  if (fault === undefined) return "good";
  if (isExcused) {
    tally.excused += 1;
    return "excused";
  }
  tally.faults.push(`${cell.id} ${tenantOf(number)}: ${fault}`);
  return "fault";
}

const wasAway = (cell: SoakCell, sinceMs: number): boolean => {
  const upSinceMs = cell.upSinceMs();
  return upSinceMs === undefined || upSinceMs > sinceMs - graceMs;
};
