import { expect, test } from "vitest";
import { createMetrics, durationBuckets, renderMetrics } from "./metrics.ts";

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

test("a bound child is the same series, and the same child, as its labels", () => {
  const metrics = createMetrics();
  const done = metrics.counter("done_total", "Done.");
  const child = done.with({ cell: "a", method: "GET" });
  expect(done.with({ cell: "a", method: "GET" })).toBe(child);
  child.inc();
  child.inc(2);
  done.inc({ cell: "a", method: "GET" });
  const took = metrics.histogram("took_seconds", "Took.", [1, 2]);
  took.with({ cell: "a" }).observe(2);
  took.observe(3, { cell: "a" });
  metrics.gauge("depth", "Depth.").with({}).set(7);
  const text = metrics.text();
  expect(linesOf(text, "done_total")).toEqual(['done_total{cell="a",method="GET"} 4']);
  expect(linesOf(text, "depth")).toEqual(["depth 7"]);
  expect(linesOf(text, "took_seconds")).toEqual([
    'took_seconds_bucket{cell="a",le="1"} 0',
    'took_seconds_bucket{cell="a",le="2"} 1',
    'took_seconds_bucket{cell="a",le="+Inf"} 2',
    'took_seconds_sum{cell="a"} 5',
    'took_seconds_count{cell="a"} 2',
  ]);
});

test("a removed series leaves the page and makes room for another", () => {
  const metrics = createMetrics();
  const top = metrics.counter("top_total", "Top tenants.");
  for (let n = 0; n < 2000; n += 1) top.inc({ tenant: `t${n}` });
  top.inc({ tenant: "new" });
  const left = top.with({ tenant: "t7" });
  top.remove({ tenant: "t7" });
  left.inc();
  top.inc({ tenant: "new" });
  const text = metrics.text();
  expect(text).not.toContain('tenant="t7"');
  expect(text).toContain('top_total{tenant="new"} 1\n');
  expect(text).toContain("cellfleet_metric_series_dropped_total 1\n");
  top.inc({ tenant: "one more" });
  expect(metrics.text()).toContain("cellfleet_metric_series_dropped_total 2\n");
});

const threadPage = (requests: number, revision: number, tookSeconds: number) => {
  const metrics = createMetrics();
  metrics.counter("requests_total", "Requests.").inc({ cell: "a" }, requests);
  metrics.gauge("inflight", "Now.").set(requests);
  metrics.gaugeFrom("revision", "Revision.", () => revision, "max");
  metrics.gaugeFrom("build_info", "Always 1.", () => [[{ part: "router" }, 1]], "first");
  metrics.histogram("took_seconds", "Took.", [1]).observe(tookSeconds);
  return metrics;
};

test("the pages of several threads are one: sums, and for gauges what their family asks for", () => {
  const pages = [threadPage(2, 7, 0.5), threadPage(3, 6, 1.5)].map((one) =>
    structuredClone(one.dump()),
  );
  const text = renderMetrics(pages);
  for (const line of [
    'requests_total{cell="a"} 5',
    "inflight 5",
    "revision 7",
    'build_info{part="router"} 1',
    'took_seconds_bucket{le="1"} 1',
    'took_seconds_bucket{le="+Inf"} 2',
    "took_seconds_sum 2",
  ]) {
    expect(text).toContain(`${line}\n`);
  }
  expect(text.match(/# TYPE requests_total/g)).toHaveLength(1);
});

test("one thread's page is its own text, and a dump is a moment, not a view", () => {
  const metrics = threadPage(2, 7, 0.5);
  const before = metrics.dump();
  const text = metrics.text();
  metrics.counter("later_total", "Later.").inc();
  expect(renderMetrics([before])).toBe(text);
});

test("two meanings of one name are refused instead of added up", () => {
  const one = createMetrics();
  one.histogram("took_seconds", "Took.", [1]);
  const other = createMetrics();
  other.histogram("took_seconds", "Took.", [2]);
  expect(() => renderMetrics([one.dump(), other.dump()])).toThrow("took_seconds has two shapes");
});

test("numbers without end are written as Prometheus reads them", () => {
  const metrics = createMetrics();
  metrics.gauge("up_to", "Limit.\nA second line.").set(Number.POSITIVE_INFINITY);
  expect(metrics.text()).toContain("# HELP up_to Limit.\\nA second line.\n");
  expect(metrics.text()).toContain("up_to +Inf\n");
});

test("labels in whatever order and number find their own series, and nobody else's", () => {
  const metrics = createMetrics();
  const odd = metrics.counter("odd_total", "Odd.");
  for (let round = 0; round < 2; round += 1) {
    odd.inc();
    odd.inc({ a: "1" });
    odd.inc({ a: "1", b: "2" });
    odd.inc({ b: "2", a: "1" });
    odd.inc({ b: "1" });
  }
  expect(linesOf(metrics.text(), "odd_total")).toEqual([
    "odd_total 2",
    'odd_total{a="1"} 2',
    'odd_total{a="1",b="2"} 2',
    'odd_total{b="2",a="1"} 2',
    'odd_total{b="1"} 2',
  ]);
});
