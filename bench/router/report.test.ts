import { expect, test } from "vitest";
import { chartSvg } from "./chart.ts";
import { calm, median, type ProxyResult, type RouterResult, reportText } from "./report.ts";

const proxy = (name: string, calmUs: number, errors = 0): ProxyResult => ({
  name,
  cpuUs: { calm: calmUs, all: calmUs + 1, rounds: [calmUs] },
  requestsPerSecond: 20_000,
  latencyMs: { p50: 1, p99: 2, p999: 3 },
  throughput: name === "http-proxy" ? {} : { "64KiB": 512 },
  rssMiB: 100,
  errors,
});

const result = (proxies: readonly ProxyResult[]): RouterResult => ({
  bench: "router",
  date: "2026-01-02T03:04:05.678Z",
  commit: "abc1234",
  machine: { processor: 'A <fast> & "quiet" one', node: "v24" },
  method: {},
  notInstalled: ["haproxy"],
  proxies: [...proxies],
});

test("calm leaves out what noise has added", () => {
  expect(median([3, 1, 2])).toBe(2);
  expect(median([4, 1])).toBe(2.5);
  expect(calm([90, 30, 31, 80, 32])).toBe(31);
  expect(calm([30])).toBe(30);
});

test("ratios are of the same run, and what is missing or failed is said", () => {
  const text = reportText(
    result([proxy("bare-undici", 20), proxy("cellfleet", 25), proxy("http-proxy", 50, 7)]),
  );
  const [head = "", , ours = ""] = text.split("\n");
  expect(head.trimEnd().split(/ {2,}/).slice(-3)).toEqual([
    "x bare-undici",
    "x http-proxy",
    "x nginx",
  ]);
  expect(ours.split(/ {2,}/).slice(-3)).toEqual(["1.25", "0.50", "-"]);
  expect(text).toContain("haproxy: not installed");
  expect(text).toContain("http-proxy: 7 requests failed");
});

test("the chart shows the cheapest first, and no text breaks out of it", () => {
  const svg = chartSvg(result([proxy("http-proxy", 50), proxy("cellfleet", 25)]));
  expect(svg.indexOf('class="ours"')).toBeLessThan(svg.indexOf('class="other" x'));
  expect(svg).toContain("A &#60;fast&#62; &#38; &#34;quiet&#34; one");
  expect(svg).toContain('width="215.0"');
  expect(svg).toContain('width="430.0"');
});
