/**
 * Counters, gauges and histograms, written out as Prometheus text (exposition format 0.0.4).
 *
 * Label values of a family are fixed in advance where they can be (`preset`), so that rates work
 * from the first event; a family has at most `seriesMax` series, and what does not fit is counted in
 * `cellfleet_metric_series_dropped_total` instead of growing without bound.
 *
 * Who counts often binds its labels once (`with`): the child's call writes a number and makes nothing.
 * Several threads or processes are one page: each gives a `dump`, `renderMetrics` adds them up.
 */
export type Labels = Readonly<Record<string, string>>;

/** The series of a family, each known by its labels. */
type Family<Child> = {
  /** The same child for the same labels; its series is there from now on. */
  readonly with: (labels: Labels) => Child;
  /** The series is gone, and its room is free. A child of it that is still held counts nowhere. */
  readonly remove: (labels: Labels) => void;
};
export type CounterChild = { readonly inc: (by?: number) => void };
export type GaugeChild = { readonly set: (value: number) => void };
export type HistogramChild = { readonly observe: (value: number) => void };

export type Counter = Family<CounterChild> & {
  readonly inc: (labels?: Labels, by?: number) => void;
};
export type Gauge = Family<GaugeChild> & {
  readonly set: (value: number, labels?: Labels) => void;
};
export type Histogram = Family<HistogramChild> & {
  readonly observe: (value: number, labels?: Labels) => void;
};

/** What several threads' values of one gauge are together: `first` is for what all of them say alike. */
export type GaugeMerge = "sum" | "max" | "first";

export type Metrics = {
  readonly counter: (name: string, help: string, preset?: readonly Labels[]) => Counter;
  readonly gauge: (
    name: string,
    help: string,
    preset?: readonly Labels[],
    merge?: GaugeMerge,
  ) => Gauge;
  /** Calls `read` when scraped. */
  readonly gaugeFrom: (
    name: string,
    help: string,
    read: () => number | ReadonlyArray<readonly [Labels, number]>,
    merge?: GaugeMerge,
  ) => void;
  readonly histogram: (name: string, help: string, buckets: readonly number[]) => Histogram;
  /** Everything as plain values that can be sent to another thread. */
  readonly dump: () => MetricsDump;
  readonly text: () => string;
};

export type MetricsDump = readonly FamilyDump[];
export type FamilyDump = {
  readonly name: string;
  readonly help: string;
  readonly type: "counter" | "gauge" | "histogram";
  readonly merge: GaugeMerge;
  /** Upper bounds of a histogram, rising; of others none. */
  readonly buckets: readonly number[];
  readonly series: readonly SeriesDump[];
};
export type SeriesDump = {
  /** As in the text, without braces: `a="1",b="2"`. */
  readonly labels: string;
  /** One value; of a histogram the count of each bucket alone, then those above all, then the sum. */
  readonly values: readonly number[];
};

/** OpenTelemetry's buckets for request durations, in seconds. */
export const durationBuckets = [
  0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10,
] as const;

const seriesMax = 2000;

/** All families of one process, and how many events fell on series that did not fit into theirs. */
type Registry = {
  readonly add: (name: string, dump: () => FamilyDump) => void;
  readonly drop: () => void;
  readonly dump: () => MetricsDump;
};

export function createMetrics(): Metrics {
  const registry = createRegistry();
  return {
    counter: (name, help, preset = []) => {
      const about = { name, help, type: "counter", merge: "sum", buckets: [] } as const;
      const family = addFamily(registry, about, preset, counterChild, { inc: registry.drop });
      return { ...family, inc: (labels = {}, by = 1) => family.with(labels).inc(by) };
    },
    gauge: (name, help, preset = [], merge = "sum") => {
      const about = { name, help, type: "gauge", merge, buckets: [] } as const;
      const family = addFamily(registry, about, preset, gaugeChild, { set: registry.drop });
      return { ...family, set: (value, labels = {}) => family.with(labels).set(value) };
    },
    gaugeFrom: (name, help, read, merge = "sum") =>
      registry.add(name, () => {
        const about = { name, help, type: "gauge", merge, buckets: [] } as const;
        return { ...about, series: readSeries(read()) };
      }),
    histogram: (name, help, buckets) => {
      const about = { name, help, type: "histogram", merge: "sum", buckets } as const;
      const child = (values: number[]) => histogramChild(buckets, values);
      const family = addFamily(registry, about, [], child, { observe: registry.drop });
      return { ...family, observe: (value, labels = {}) => family.with(labels).observe(value) };
    },
    dump: registry.dump,
    text: () => renderMetrics([registry.dump()]),
  };
}

function createRegistry(): Registry {
  const families = new Map<string, () => FamilyDump>();
  let dropped = 0;
  const own = (): FamilyDump => ({
    name: "cellfleet_metric_series_dropped_total",
    help: "Series that did not fit into a family.",
    type: "counter",
    merge: "sum",
    buckets: [],
    series: [{ labels: "", values: [dropped] }],
  });
  return {
    add: (name, dump) => {
      if (families.has(name)) throw new Error(`metric ${name} is registered twice`);
      families.set(name, dump);
    },
    drop: () => {
      dropped += 1;
    },
    dump: () => [...families.values(), own].map((dump) => dump()),
  };
}

/** `overflow` takes the events of series for which there is no room, and only counts them. */
function addFamily<Child>(
  registry: Registry,
  about: Omit<FamilyDump, "series">,
  preset: readonly Labels[],
  createChild: (values: number[]) => Child,
  overflow: Child,
): Family<Child> {
  const known = new Map<string, { readonly values: number[]; readonly child: Child }>();
  const width = about.type === "histogram" ? about.buckets.length + 2 : 1;
  let seen = newBranch<Child>();
  const create = (labels: Labels): Child => {
    const key = labelText(labels);
    const found = known.get(key);
    if (found === undefined && known.size >= seriesMax) return overflow;
    const values = new Array<number>(width).fill(0);
    const child = found?.child ?? createChild(values);
    if (found === undefined) known.set(key, { values, child });
    plant(seen, labels, child);
    return child;
  };
  const bind = (labels: Labels): Child => findChild(seen, labels) ?? create(labels);
  for (const labels of preset) bind(labels);
  registry.add(about.name, () => ({
    ...about,
    series: [...known].map(([labels, { values }]) => ({ labels, values: [...values] })),
  }));
  return {
    with: bind,
    remove: (labels) => {
      if (known.delete(labelText(labels))) seen = newBranch();
    },
  };
}

/** Children by the values of their labels, so that a call with labels builds no text to find its series. */
type Branch<Child> = {
  /** The label whose values lead on from here. */
  name: string | undefined;
  readonly byValue: Map<string, Branch<Child>>;
  child: Child | undefined;
};

const newBranch = <Child>(): Branch<Child> => ({
  name: undefined,
  byValue: new Map(),
  child: undefined,
});

function findChild<Child>(root: Branch<Child>, labels: Labels): Child | undefined {
  let branch: Branch<Child> | undefined = root;
  for (const name in labels) {
    if (branch.name !== name) return undefined;
    branch = branch.byValue.get(labels[name] ?? "");
    if (branch === undefined) return undefined;
  }
  return branch.child;
}

/** Labels in an order that another series has not begun with are found by their text. */
function plant<Child>(root: Branch<Child>, labels: Labels, child: Child): void {
  let branch = root;
  for (const name in labels) {
    branch.name ??= name;
    if (branch.name !== name) return;
    const value = labels[name] ?? "";
    const next: Branch<Child> = branch.byValue.get(value) ?? newBranch<Child>();
    branch.byValue.set(value, next);
    branch = next;
  }
  branch.child = child;
}

const counterChild = (values: number[]): CounterChild => ({
  inc: (by = 1) => {
    values[0] = (values[0] ?? 0) + by;
  },
});

const gaugeChild = (values: number[]): GaugeChild => ({
  set: (value) => {
    values[0] = value;
  },
});

function histogramChild(buckets: readonly number[], values: number[]): HistogramChild {
  const above = buckets.length;
  const sum = above + 1;
  return {
    observe: (value) => {
      let at = 0;
      while (at < above && value > (buckets[at] ?? 0)) at += 1;
      values[at] = (values[at] ?? 0) + 1;
      values[sum] = (values[sum] ?? 0) + value;
    },
  };
}

const readSeries = (value: number | ReadonlyArray<readonly [Labels, number]>): SeriesDump[] =>
  typeof value === "number"
    ? [{ labels: "", values: [value] }]
    : value.map(([labels, one]) => ({ labels: labelText(labels), values: [one] }));

function labelText(labels: Labels): string {
  let text = "";
  for (const name in labels) {
    text += `${text === "" ? "" : ","}${name}="${escapeLabel(labels[name] ?? "")}"`;
  }
  return text;
}

const escapeLabel = (value: string): string =>
  value.replace(/\\/g, "\\\\").replace(/"/g, '\\"').replace(/\n/g, "\\n");

/** Pure. Families in the order in which they first appear; throws when two threads mean different things. */
export function renderMetrics(dumps: readonly MetricsDump[]): string {
  const merged = new Map<string, Merged>();
  for (const family of dumps.flat()) merge(merged, family);
  return `${[...merged.values()].map(familyText).join("\n")}\n`;
}

type Merged = { readonly family: FamilyDump; readonly series: Map<string, number[]> };

function merge(all: Map<string, Merged>, family: FamilyDump): void {
  const merged = all.get(family.name) ?? { family, series: new Map() };
  all.set(family.name, merged);
  const { type, buckets } = merged.family;
  if (type !== family.type || buckets.join() !== family.buckets.join()) {
    throw new Error(`metric ${family.name} has two shapes`);
  }
  for (const { labels, values } of family.series) {
    const before = merged.series.get(labels);
    const sum = before === undefined ? [...values] : together(family.merge, before, values);
    merged.series.set(labels, sum);
  }
}

function together(how: GaugeMerge, before: number[], values: readonly number[]): number[] {
  if (how === "first") return before;
  return before.map((value, at) => {
    const other = values[at] ?? 0;
    return how === "max" ? Math.max(value, other) : value + other;
  });
}

function familyText({ family, series }: Merged): string {
  const { name, help, type, buckets } = family;
  const lines = [...series].flatMap(([labels, values]) =>
    type === "histogram"
      ? histogramLines(name, buckets, labels, values)
      : [`${name}${braced(labels)} ${numberText(values[0] ?? 0)}`],
  );
  const plainHelp = help.replace(/\\/g, "\\\\").replace(/\n/g, "\\n");
  return [`# HELP ${name} ${plainHelp}`, `# TYPE ${name} ${type}`, ...lines].join("\n");
}

function histogramLines(
  name: string,
  buckets: readonly number[],
  labels: string,
  values: readonly number[],
): string[] {
  let below = 0;
  const before = labels === "" ? "" : `${labels},`;
  const lines = [...buckets, Number.POSITIVE_INFINITY].map((bound, at) => {
    below += values[at] ?? 0;
    return `${name}_bucket{${before}le="${numberText(bound)}"} ${below}`;
  });
  const sum = numberText(values[buckets.length + 1] ?? 0);
  return [
    ...lines,
    `${name}_sum${braced(labels)} ${sum}`,
    `${name}_count${braced(labels)} ${below}`,
  ];
}

const braced = (labels: string): string => (labels === "" ? "" : `{${labels}}`);

function numberText(value: number): string {
  if (value === Number.POSITIVE_INFINITY) return "+Inf";
  return value === Number.NEGATIVE_INFINITY ? "-Inf" : String(value);
}
