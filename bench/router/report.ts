/**
 * Pure: what the rounds of a run say. Noise of a shared machine only ever adds, so `calm` is the
 * median of the three lowest rounds; `all` is the median of all of them.
 */
import { z } from "zod";

const proxySchema = z.strictObject({
  name: z.string(),
  /** Microseconds of CPU per request with an answer of 1 KiB. */
  cpuUs: z.strictObject({ calm: z.number(), all: z.number(), rounds: z.array(z.number()) }),
  requestsPerSecond: z.number(),
  /** Milliseconds at full load. */
  latencyMs: z.strictObject({ p50: z.number(), p99: z.number(), p999: z.number() }),
  /** Milliseconds more than without a proxy, few connections. */
  addedMs: z.strictObject({ p50: z.number(), p99: z.number(), p999: z.number() }).optional(),
  /** MiB of answers per second of CPU, by size of the answer. */
  throughput: z.record(z.string(), z.number()),
  rssMiB: z.number(),
  errors: z.number(),
});
export type ProxyResult = z.output<typeof proxySchema>;

export const resultSchema = z.strictObject({
  bench: z.literal("router"),
  date: z.string(),
  commit: z.string(),
  machine: z.record(z.string(), z.union([z.string(), z.number()])),
  method: z.record(z.string(), z.union([z.string(), z.number()])),
  notInstalled: z.array(z.string()),
  proxies: z.array(proxySchema),
});
export type RouterResult = z.output<typeof resultSchema>;

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}

const calmOf = 3;
export const calm = (values: readonly number[]): number =>
  median([...values].sort((a, b) => a - b).slice(0, calmOf));

/** What others are compared with. */
const yardsticks = ["bare-undici", "http-proxy", "nginx"] as const;

export function reportText({ proxies, notInstalled }: RouterResult): string {
  const sizes = [...new Set(proxies.flatMap(({ throughput }) => Object.keys(throughput)))];
  const costs = new Map(proxies.map(({ name, cpuUs }) => [name, cpuUs.calm]));
  const head = [
    ...["", "CPU us/req", "all", "req/s", "p50 ms", "p99 ms", "p99.9 ms", "+p50 ms", "+p99 ms"],
    ...sizes.map((size) => `MiB/CPU-s ${size}`),
    ...["RSS MiB", ...yardsticks.map((one) => `x ${one}`)],
  ];
  const rows = proxies.map((one) => [
    one.name,
    one.cpuUs.calm.toFixed(1),
    one.cpuUs.all.toFixed(1),
    Math.round(one.requestsPerSecond).toLocaleString("en"),
    one.latencyMs.p50.toFixed(2),
    one.latencyMs.p99.toFixed(2),
    one.latencyMs.p999.toFixed(2),
    one.addedMs === undefined ? "-" : one.addedMs.p50.toFixed(2),
    one.addedMs === undefined ? "-" : one.addedMs.p99.toFixed(2),
    ...sizes.map((size) => one.throughput[size]?.toFixed(0) ?? "-"),
    one.rssMiB.toFixed(0),
    ...yardsticks.map((yardstick) => ratio(one.cpuUs.calm, costs.get(yardstick))),
  ]);
  const faults = proxies.filter(({ errors }) => errors > 0);
  return [
    table([head, ...rows]),
    ...notInstalled.map((name) => `${name}: not installed`),
    ...faults.map(({ name, errors }) => `${name}: ${errors} requests failed`),
  ].join("\n");
}

const ratio = (value: number, of: number | undefined): string =>
  of === undefined ? "-" : (value / of).toFixed(2);

/** The first column to the left, figures to the right. */
function table(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, at) =>
    Math.max(...rows.map((row) => row[at]?.length ?? 0)),
  );
  return rows
    .map((row) =>
      row
        .map((cell, at) =>
          at === 0 ? cell.padEnd(widths[at] ?? 0) : cell.padStart(widths[at] ?? 0),
        )
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}
