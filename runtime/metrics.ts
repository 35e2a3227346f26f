/**
 * Counters, gauges and histograms, written out as Prometheus text (exposition format 0.0.4).
 *
 * Label values of a family are fixed in advance where they can be (`preset`), so that rates work
 * from the first event; a family has at most `seriesMax` series, and what does not fit is counted in
 * `cellfleet_metric_series_dropped_total` instead of growing without bound.
 */
export type Labels = Readonly<Record<string, string>>;
export type Counter = { readonly inc: (labels?: Labels, by?: number) => void };
export type Gauge = { readonly set: (value: number, labels?: Labels) => void };
export type Histogram = { readonly observe: (value: number, labels?: Labels) => void };

export type Metrics = {
  readonly counter: (name: string, help: string, preset?: readonly Labels[]) => Counter;
  readonly gauge: (name: string, help: string, preset?: readonly Labels[]) => Gauge;
  /** Calls `read` when scraped. */
  readonly gaugeFrom: (
    name: string,
    help: string,
    read: () => number | ReadonlyArray<readonly [Labels, number]>,
  ) => void;
  readonly histogram: (name: string, help: string, buckets: readonly number[]) => Histogram;
  readonly text: () => string;
};

/** OpenTelemetry's buckets for request durations, in seconds. */
export const durationBuckets = [
  0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10,
] as const;

const seriesMax = 2000;

type Family = {
  readonly name: string;
  readonly help: string;
  readonly type: string;
  readonly lines: () => string[];
};

/** All families of one process, and how many series did not fit into theirs. */
type Registry = {
  readonly add: (family: Family) => void;
  /** May this series be kept? A no is counted. */
  readonly room: (values: ReadonlyMap<string, unknown>, key: string) => boolean;
  readonly text: () => string;
};

export function createMetrics(): Metrics {
  const registry = createRegistry();
  return {
    counter: (name, help, preset = []) => {
      const values = addSeries(registry, { name, help, type: "counter" }, preset);
      return {
        inc: (labels = {}, by = 1) => {
          const key = labelText(labels);
          if (registry.room(values, key)) values.set(key, (values.get(key) ?? 0) + by);
        },
      };
    },
    gauge: (name, help, preset = []) => {
      const values = addSeries(registry, { name, help, type: "gauge" }, preset);
      return {
        set: (value, labels = {}) => {
          const key = labelText(labels);
          if (registry.room(values, key)) values.set(key, value);
        },
      };
    },
    gaugeFrom: (name, help, read) =>
      registry.add({ name, help, type: "gauge", lines: () => readingLines(name, read()) }),
    histogram: (name, help, buckets) => addHistogram(registry, { name, help }, buckets),
    text: registry.text,
  };
}

function createRegistry(): Registry {
  const families = new Map<string, Family>();
  let dropped = 0;
  const own: Family = {
    name: "cellfleet_metric_series_dropped_total",
    help: "Series that did not fit into a family.",
    type: "counter",
    lines: () => [`cellfleet_metric_series_dropped_total ${dropped}`],
  };
  return {
    add: (family) => {
      if (families.has(family.name)) throw new Error(`metric ${family.name} is registered twice`);
      families.set(family.name, family);
    },
    room: (values, key) => {
      if (values.has(key) || values.size < seriesMax) return true;
      dropped += 1;
      return false;
    },
    text: () => `${[...families.values(), own].map(familyText).join("\n")}\n`,
  };
}

const familyText = ({ name, help, type, lines }: Family): string =>
  [`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`, ...lines()].join("\n");

function addSeries(
  registry: Registry,
  family: Omit<Family, "lines">,
  preset: readonly Labels[],
): Map<string, number> {
  const values = new Map<string, number>();
  for (const labels of preset) values.set(labelText(labels), 0);
  registry.add({
    ...family,
    lines: () => [...values].map(([labels, value]) => `${family.name}${labels} ${value}`),
  });
  return values;
}

const readingLines = (
  name: string,
  value: number | ReadonlyArray<readonly [Labels, number]>,
): string[] =>
  typeof value === "number"
    ? [`${name} ${value}`]
    : value.map(([labels, number]) => `${name}${labelText(labels)} ${number}`);

type HistogramSeries = { labels: Labels; counts: number[]; sum: number; count: number };

function addHistogram(
  registry: Registry,
  family: Omit<Family, "lines" | "type">,
  buckets: readonly number[],
): Histogram {
  const all = new Map<string, HistogramSeries>();
  registry.add({
    ...family,
    type: "histogram",
    lines: () => [...all.values()].flatMap((one) => histogramLines(family.name, buckets, one)),
  });
  return {
    observe: (value, labels = {}) => {
      const key = labelText(labels);
      if (!registry.room(all, key)) return;
      const one = all.get(key) ?? { labels, counts: buckets.map(() => 0), sum: 0, count: 0 };
      all.set(key, one);
      const index = buckets.findIndex((bound) => value <= bound);
      if (index >= 0) one.counts[index] = (one.counts[index] ?? 0) + 1;
      one.sum += value;
      one.count += 1;
    },
  };
}

function histogramLines(
  name: string,
  buckets: readonly number[],
  one: Readonly<HistogramSeries>,
): string[] {
  let below = 0;
  const lines = buckets.map((bound, index) => {
    below += one.counts[index] ?? 0;
    return `${name}_bucket${labelText({ ...one.labels, le: String(bound) })} ${below}`;
  });
  const plain = labelText(one.labels);
  return [
    ...lines,
    `${name}_bucket${labelText({ ...one.labels, le: "+Inf" })} ${one.count}`,
    `${name}_sum${plain} ${one.sum}`,
    `${name}_count${plain} ${one.count}`,
  ];
}

function labelText(labels: Labels): string {
  const names = Object.keys(labels);
  if (names.length === 0) return "";
  return `{${names.map((name) => `${name}="${escapeLabel(labels[name] ?? "")}"`).join(",")}}`;
}

const escapeLabel = (value: string): string =>
  value.replace(/\\/g, "\\\\").replace(/"/g, '\\"').replace(/\n/g, "\\n");
