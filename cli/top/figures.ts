/**
 * Pure: two looks at the metrics of all routers, one after the other, become what `cellctl top` shows:
 * rates and quantiles of the time between them, and what stands now.
 */
import type { Sample } from "./metrics-text.ts";

export type Look = {
  /** By the monotonic clock. */
  readonly atMs: number;
  readonly routers: ReadonlyMap<string, readonly Sample[]>;
};

export type CellFigures = {
  readonly id: string;
  readonly requestsPerSecond: number;
  /** Share of answers of 500 and more, and of none; 0 where nothing was asked. */
  readonly errorShare: number;
  readonly p50Ms: number | null;
  readonly p99Ms: number | null;
  readonly inFlight: number;
  readonly pending: number;
  readonly held: number;
  readonly endpointsUp: number | null;
  readonly endpoints: number | null;
};
export type TenantFigures = { readonly id: string; readonly requestsPerSecond: number };
export type RouterFigures = {
  readonly id: string;
  readonly revision: number;
  readonly tableAgeSeconds: number;
  readonly connected: boolean;
  readonly requestsPerSecond: number;
  readonly errorShare: number;
  readonly inFlight: number;
};
export type Figures = {
  readonly seconds: number;
  readonly cells: readonly CellFigures[];
  readonly tenants: readonly TenantFigures[];
  readonly routers: readonly RouterFigures[];
};

const prefix = "cellfleet_router_";

export function figuresOf(before: Look, now: Look): Figures {
  const seconds = Math.max(0.001, (now.atMs - before.atMs) / 1000);
  const grown = [...now.routers].map(([id, samples]) => ({
    id,
    now: samples,
    grown: growth(before.routers.get(id), samples),
  }));
  const all = grown.flatMap((router) => router.grown);
  const standing = grown.flatMap((router) => router.now);
  const cells = namesOf(standing, "requests_total", "cell");
  const tenants = namesOf(standing, "tenant_requests_total", "tenant");
  return {
    seconds,
    cells: cells.map((cell) => cellFigures(cell, all, standing, seconds)),
    tenants: tenants.map((id) => ({
      id,
      requestsPerSecond: total(all, "tenant_requests_total", { tenant: id }) / seconds,
    })),
    routers: grown.map((router) => ({
      id: router.id,
      revision: total(router.now, "table_revision"),
      tableAgeSeconds: total(router.now, "table_age_seconds"),
      connected: total(router.now, "control_plane_connected") > 0,
      ...trafficOf(router.grown, {}, seconds),
      inFlight: total(router.now, "inflight_requests"),
    })),
  };
}

function cellFigures(
  cell: string,
  grown: readonly Sample[],
  now: readonly Sample[],
  seconds: number,
): CellFigures {
  const buckets = bucketsOf(grown, cell);
  const up = matching(now, "endpoint_up", { cell });
  return {
    id: cell,
    ...trafficOf(grown, { cell }, seconds),
    p50Ms: quantileMs(buckets, 0.5),
    p99Ms: quantileMs(buckets, 0.99),
    inFlight: total(now, "inflight_requests", { cell }),
    pending: total(now, "pending_requests", { cell }),
    held: total(now, "held_requests", { cell }),
    endpointsUp: up.length === 0 ? null : endpointsOf(up.filter(({ value }) => value > 0)),
    endpoints: up.length === 0 ? null : endpointsOf(up),
  };
}

/** An endpoint that several routers see is one. */
const endpointsOf = (samples: readonly Sample[]): number =>
  new Set(samples.map(({ labels }) => labels["endpoint"])).size;

type Labels = Readonly<Record<string, string>>;

function trafficOf(grown: readonly Sample[], labels: Labels, seconds: number) {
  const requests = total(grown, "requests_total", labels);
  const failed = ["5xx", "none"].map((code_class) =>
    total(grown, "requests_total", { ...labels, code_class }),
  );
  const errors = failed.reduce((sum, count) => sum + count, 0);
  return {
    requestsPerSecond: requests / seconds,
    errorShare: requests === 0 ? 0 : errors / requests,
  };
}

const keyOf = ({ name, labels }: Sample): string =>
  `${name} ${JSON.stringify(Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1)))}`;

/** A counter that fell began anew: the router was restarted. Who was not there before is not judged. */
function growth(before: readonly Sample[] | undefined, now: readonly Sample[]): Sample[] {
  if (before === undefined) return [];
  const known = new Map(before.map((sample) => [keyOf(sample), sample.value]));
  return now.map((sample) => {
    const was = known.get(keyOf(sample)) ?? 0;
    return { ...sample, value: sample.value >= was ? sample.value - was : sample.value };
  });
}

const matching = (samples: readonly Sample[], rest: string, labels: Labels): Sample[] =>
  samples.filter(
    (sample) =>
      sample.name === `${prefix}${rest}` &&
      Object.entries(labels).every(([name, value]) => sample.labels[name] === value),
  );

const total = (samples: readonly Sample[], rest: string, labels: Labels = {}): number =>
  matching(samples, rest, labels).reduce((sum, { value }) => sum + value, 0);

const namesOf = (samples: readonly Sample[], rest: string, label: string): string[] => [
  ...new Set(matching(samples, rest, {}).flatMap(({ labels }) => labels[label] ?? [])),
];

type Bucket = { readonly bound: number; readonly count: number };

function bucketsOf(grown: readonly Sample[], cell: string): Bucket[] {
  const counts = new Map<number, number>();
  for (const { labels, value } of matching(grown, "request_duration_seconds_bucket", { cell })) {
    const bound = labels["le"] === "+Inf" ? Number.POSITIVE_INFINITY : Number(labels["le"]);
    counts.set(bound, (counts.get(bound) ?? 0) + value);
  }
  return [...counts].map(([bound, count]) => ({ bound, count })).sort((a, b) => a.bound - b.bound);
}

/** As Prometheus' `histogram_quantile`: even within a bucket; above the last bound, that bound. */
export function quantileMs(buckets: readonly Bucket[], share: number): number | null {
  const all = buckets.at(-1)?.count ?? 0;
  if (all === 0) return null;
  const wanted = share * all;
  let lower: Bucket = { bound: 0, count: 0 };
  for (const bucket of buckets) {
    if (bucket.count >= wanted) {
      if (bucket.bound === Number.POSITIVE_INFINITY) return lower.bound * 1000;
      const inside = (wanted - lower.count) / (bucket.count - lower.count);
      return (lower.bound + (bucket.bound - lower.bound) * inside) * 1000;
    }
    lower = bucket;
  }
  return lower.bound * 1000;
}
