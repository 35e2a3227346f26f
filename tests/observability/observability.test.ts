/** What stands in observability/ is whole: alerts have runbooks and both tests, dashboards hang together. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { expect, test } from "vitest";
import {
  alertFaults,
  expressionsOf,
  filledIn,
  metricsIn,
  metricsOfPage,
  parseCases,
  parseDashboard,
  parseRules,
} from "./expressions.ts";

const root = resolve(import.meta.dirname, "../..");
const read = (path: string) => readFileSync(join(root, path), "utf8");
const rules = parseRules(read("observability/alerts.yml"));
const cases = parseCases(read("observability/alerts_test.yml"));
const folder = "observability/dashboards";
const dashboards = readdirSync(join(root, folder)).map((name) =>
  parseDashboard(read(join(folder, name))),
);

test("every alert has its runbook, its severity, and a test each way", () => {
  expect(rules.filter(({ alert }) => alert !== undefined).length).toBeGreaterThan(15);
  expect(alertFaults(rules, cases, (path) => existsSync(join(root, path)))).toEqual([]);
});

test("and an alert without them would be seen", () => {
  const bare = { alert: "Bare", expr: "up == 0" };
  expect(alertFaults([bare], cases, () => false)).toEqual([
    "Bare: its runbook  is not there",
    "Bare: its severity is neither page nor ticket",
    "Bare: no test in which it fires",
    "Bare: no test in which it does not fire",
  ]);
});

test("every runbook of an alert says what it means, what users see, what to check, what to do, and when it is over", () => {
  const paths = new Set(rules.flatMap(({ annotations }) => annotations?.runbook_url ?? []));
  for (const path of paths) {
    const text = read(path);
    for (const part of [/\*\*(Means|Shows as):?\*\*|asks before it grants/, /over when|normal/]) {
      expect(text, path).toMatch(part);
    }
    expect(read("docs/runbooks/README.md")).toContain(path.replace("docs/runbooks/", ""));
  }
});

test("metrics of ours are made by some part", () => {
  const all = [
    ...rules.map(({ expr }) => expr),
    ...dashboards.flatMap(expressionsOf).map(({ expr }) => filledIn(expr)),
  ].flatMap(metricsIn);
  const recorded = new Set(rules.flatMap(({ record }) => record ?? []));
  const names = [...new Set(all)].filter((name) => name.includes(":"));
  expect(names.length).toBeGreaterThan(3);
  expect(names.filter((name) => !recorded.has(name))).toEqual([]);
});

test("dashboards have panels that do not overlap, under names of their own", () => {
  expect(dashboards.map(({ uid }) => uid).sort((a, b) => a.localeCompare(b))).toEqual([
    "cellfleet-cell",
    "cellfleet-control-plane",
    "cellfleet-fleet",
    "cellfleet-router",
  ]);
  for (const { panels } of dashboards) {
    expect(new Set(panels.map(({ id }) => id)).size).toBe(panels.length);
    expect(Math.max(...panels.map(({ gridPos }) => gridPos.x + gridPos.w))).toBeLessThanOrEqual(24);
    const places = panels.map(({ gridPos }) => `${gridPos.x} ${gridPos.y}`);
    expect(new Set(places).size).toBe(places.length);
  }
});

test("names of metrics are read from expressions and pages", () => {
  const expr = `rate(cellfleet_router_x_total{cell="$cell"}[$__rate_interval]) / up{job="y"} > cell:cellfleet_e:r5m`;
  expect(filledIn(expr)).toContain(`{cell=".*"}[1m]`);
  expect(metricsIn(filledIn(expr))).toEqual([
    "cellfleet_router_x_total",
    "up",
    "cell:cellfleet_e:r5m",
  ]);
  expect([...metricsOfPage("# TYPE a_seconds histogram\n# TYPE b gauge\nb 1\n")]).toEqual([
    "a_seconds_bucket",
    "a_seconds_sum",
    "a_seconds_count",
    "b",
  ]);
});
