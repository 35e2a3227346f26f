import { expect, test } from "vitest";
import { createMetrics, durationBuckets } from "./metrics.ts";

const linesOf = (text: string, name: string): string[] =>
  text.split("\n").filter((line) => line.startsWith(name));

test("preset labels are there before the first event, at 0", () => {
  const metrics = createMetrics();
  const refused = metrics.counter("refused_total", "Refusals.", [{ code: "a" }, { code: "b" }]);
  refused.inc({ code: "b" });
  refused.inc({ code: "c" }, 4);
  expect(linesOf(metrics.text(), "refused_total")).toEqual([
    'refused_total{code="a"} 0',
    'refused_total{code="b"} 1',
    'refused_total{code="c"} 4',
  ]);
});

test("a gauge keeps its last value; a gauge that is read is read at each scrape", () => {
  const metrics = createMetrics();
  const depth = metrics.gauge("depth", "Depth.");
  depth.set(3);
  depth.set(2);
  let age = 10;
  metrics.gaugeFrom("age_seconds", "Age.", () => age);
  metrics.gaugeFrom("cell_up", "Up.", () => [[{ cell: "cell-01" }, 1]]);
  age = 11;
  const text = metrics.text();
  expect(linesOf(text, "depth")).toEqual(["depth 2"]);
  expect(linesOf(text, "age_seconds")).toEqual(["age_seconds 11"]);
  expect(linesOf(text, "cell_up")).toEqual(['cell_up{cell="cell-01"} 1']);
});

test("a histogram's buckets are cumulative and include their bound", () => {
  const metrics = createMetrics();
  const took = metrics.histogram("took_seconds", "Duration.", [0.1, 1]);
  for (const value of [0.1, 0.5, 1, 7]) took.observe(value, { cell: "cell-01" });
  expect(linesOf(metrics.text(), "took_seconds")).toEqual([
    'took_seconds_bucket{cell="cell-01",le="0.1"} 1',
    'took_seconds_bucket{cell="cell-01",le="1"} 3',
    'took_seconds_bucket{cell="cell-01",le="+Inf"} 4',
    'took_seconds_sum{cell="cell-01"} 8.6',
    'took_seconds_count{cell="cell-01"} 4',
  ]);
});

test("a family does not grow without bound: what does not fit is counted", () => {
  const metrics = createMetrics();
  const perTenant = metrics.counter("per_tenant_total", "Requests.");
  for (let n = 0; n < 2500; n += 1) perTenant.inc({ tenant: `t${n}` });
  perTenant.inc({ tenant: "t7" });
  const text = metrics.text();
  expect(linesOf(text, "per_tenant_total{")).toHaveLength(2000);
  expect(text).toContain('per_tenant_total{tenant="t7"} 2\n');
  expect(text).toContain("cellfleet_metric_series_dropped_total 500\n");
});

test("a name is registered once", () => {
  const metrics = createMetrics();
  metrics.counter("a_total", "A.");
  expect(() => metrics.gauge("a_total", "A again.")).toThrow("a_total is registered twice");
});

test("label values cannot break out of their quotes", () => {
  const metrics = createMetrics();
  metrics.counter("odd_total", "Odd.").inc({ path: 'a"b\\c\nd' });
  expect(linesOf(metrics.text(), "odd_total")).toEqual(['odd_total{path="a\\"b\\\\c\\nd"} 1']);
});

test("buckets rise", () => {
  expect([...durationBuckets].sort((a, b) => a - b)).toEqual([...durationBuckets]);
});
