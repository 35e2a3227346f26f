/**
 * Pure: what a worker that has ended leaves on the page of metrics. Its counts stay, so that no counter
 * falls when a worker is replaced; its gauges spoke of a now that is over.
 */
import type { FamilyDump, MetricsDump, SeriesDump } from "../../runtime/metrics.ts";

/** Of one family, as in the registry of a thread: series that come and go must not pile up for ever. */
const seriesMax = 2000;

/** The counts of `kept` and of a worker that ended after them. */
export function keepCounts(kept: MetricsDump, ended: MetricsDump): MetricsDump {
  const families = new Map(kept.map((family) => [family.name, family]));
  for (const family of ended) {
    if (family.type === "gauge") continue;
    const before = families.get(family.name);
    families.set(family.name, before === undefined ? family : addSeries(before, family));
  }
  return [...families.values()];
}

function addSeries(before: FamilyDump, more: FamilyDump): FamilyDump {
  const series = new Map<string, SeriesDump>(before.series.map((one) => [one.labels, one]));
  for (const { labels, values } of more.series) {
    const old = series.get(labels);
    if (old === undefined && series.size >= seriesMax) continue;
    const sum = values.map((value, at) => value + (old?.values[at] ?? 0));
    series.set(labels, { labels, values: sum });
  }
  return { ...before, series: [...series.values()] };
}
