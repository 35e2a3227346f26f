/** What `npm run bench -- move` measured, and how it is told. Pure. */
import type { PauseParts } from "../../contract/move-api.ts";
import { type Quantiles, quantilesOf } from "../../tests/moves/quantiles.ts";
import type { Trip } from "../../tests/moves/trips.ts";

/** A tenant of this size, moved while others are written to. */
export type SizedMove = {
  readonly name: string;
  readonly rows: number;
  readonly bytes: number;
  readonly seconds: {
    /** From the request to the last step. */
    readonly all: number;
    /** Until the target served. */
    readonly served: number;
    readonly copy: number;
    readonly verify: number;
  };
  readonly pauseMs: number;
  /** The same rows, binary COPY out piped to COPY in of a table with the same indexes, twice. */
  readonly plainCopySeconds: readonly number[];
  /** Answers to other tenants: before, and while it was copied. */
  readonly others: { readonly before: Quantiles; readonly during: Quantiles };
};

export type MoveResult = {
  readonly bench: "move";
  readonly date: string;
  readonly commit: string;
  readonly machine: Readonly<Record<string, string | number>>;
  readonly loadAverage: { readonly before: number; readonly after: number };
  readonly writesPerSecond: number;
  readonly othersPerSecond: number;
  readonly trips: readonly Trip[];
  readonly refused: number;
  /** What some of the refused clients were told. */
  readonly refusals: readonly string[];
  readonly lostOrDoubled: number;
  readonly others: { readonly before: Quantiles; readonly during: Quantiles };
  readonly sizes: readonly SizedMove[];
};

const parts = [
  "hold",
  "close",
  "fence",
  "drain",
  "commit",
  "activate",
  "release",
  "total",
] as const;

export function partsOf(trips: readonly Trip[]): ReadonlyArray<readonly [string, Quantiles]> {
  const of = (part: keyof PauseParts) => quantilesOf(trips.map(({ pause }) => pause?.[part] ?? 0));
  return [
    ["gap of clients", quantilesOf(trips.map(({ gapMs }) => gapMs))],
    ...parts.map((part): readonly [string, Quantiles] => [part, of(part)]),
  ];
}

const mebibyte = 2 ** 20;

export function reportText(result: MoveResult): string {
  const { trips, others, sizes, refused, lostOrDoubled, loadAverage } = result;
  const said = ({ p50, p95, p99, max }: Quantiles) => `${ms(p50)} ${ms(p95)} ${ms(p99)} ${ms(max)}`;
  const tries = trips.reduce((sum, one) => sum + one.tries, 0);
  return [
    `${trips.length} moves (${tries} switches tried), ${result.writesPerSecond} writes/s to the moving tenant; ${refused} writes refused, ${lostOrDoubled} lost or doubled`,
    `load average ${loadAverage.before.toFixed(1)} before, ${loadAverage.after.toFixed(1)} after`,
    "",
    `${"".padEnd(22)}     p50      p95      p99      max  ms`,
    ...partsOf(trips).map(([name, one]) => `${name.padEnd(22)}${said(one)}`),
    `${"others, before".padEnd(22)}${said(others.before)}`,
    `${"others, during".padEnd(22)}${said(others.during)}`,
    "",
    ...result.refusals.map((text) => `refused: ${text}`),
    ...sizes.flatMap(sizeText),
  ].join("\n");
}

const ms = (value: number): string => value.toFixed(1).padStart(8);

function sizeText({ name, rows, bytes, seconds, pauseMs, plainCopySeconds, others }: SizedMove) {
  const plain = Math.min(...plainCopySeconds);
  const rate = (took: number) => `${(bytes / mebibyte / took).toFixed(0)} MiB/s`;
  return [
    `${name}: ${rows} rows, ${(bytes / mebibyte).toFixed(1)} MiB copied in ${seconds.copy.toFixed(2)} s (${rate(seconds.copy)}); plain COPY ${plain.toFixed(2)} s (${rate(plain)}): ${(plain / seconds.copy).toFixed(2)} of its rate`,
    `  served by the target after ${seconds.served.toFixed(1)} s, over after ${seconds.all.toFixed(1)} s; verified in ${seconds.verify.toFixed(1)} s; pause ${pauseMs.toFixed(0)} ms`,
    `  others p50 / p99: ${others.before.p50} / ${others.before.p99} ms before, ${others.during.p50} / ${others.during.p99} ms during`,
  ];
}
