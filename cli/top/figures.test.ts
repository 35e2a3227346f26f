/** Two looks at metrics become rates and quantiles; a page of Prometheus text is read as it is written. */
import { describe, expect, test } from "vitest";
import { figuresOf, type Look, quantileMs } from "./figures.ts";
import { parseMetrics } from "./metrics-text.ts";
import { drawTop, sections } from "./page.ts";

const look = (atMs: number, text: string, router = "router-1"): Look => ({
  atMs,
  routers: new Map([[router, parseMetrics(text)]]),
});
const p = "cellfleet_router_";
const before = `
# TYPE ${p}requests_total counter
${p}requests_total{cell="a",method="GET",code_class="2xx"} 100
${p}requests_total{cell="a",method="GET",code_class="5xx"} 10
${p}requests_total{cell="b",method="GET",code_class="2xx"} 7
${p}tenant_requests_total{tenant="acme"} 50
`;
const after = `
${p}requests_total{cell="a",method="GET",code_class="2xx"} 270
${p}requests_total{cell="a",method="GET",code_class="5xx"} 30
${p}requests_total{cell="a",method="POST",code_class="none"} 10
${p}requests_total{cell="b",method="GET",code_class="2xx"} 4
${p}tenant_requests_total{tenant="acme"} 150
${p}request_duration_seconds_bucket{cell="a",code_class="2xx",le="0.1"} 50
${p}request_duration_seconds_bucket{cell="a",code_class="2xx",le="0.2"} 100
${p}request_duration_seconds_bucket{cell="a",code_class="2xx",le="+Inf"} 100
${p}inflight_requests{cell="a",endpoint="http://a1"} 3
${p}held_requests{cell="b"} 2
${p}endpoint_up{cell="a",endpoint="http://a1"} 1
${p}endpoint_up{cell="a",endpoint="http://a2"} 0
${p}table_revision 12
${p}table_age_seconds 1.5
${p}control_plane_connected 1
`;

describe("figures", () => {
  const figures = figuresOf(look(1000, before), look(3000, after));

  test("are rates over the time between two looks, by cell", () => {
    expect(figures.seconds).toBe(2);
    expect(figures.cells).toEqual([
      {
        ...{ id: "a", requestsPerSecond: 100, errorShare: 0.15, p50Ms: 100, p99Ms: 198 },
        ...{ inFlight: 3, pending: 0, held: 0, endpointsUp: 1, endpoints: 2 },
      },
      // Its router began anew: four requests since.
      {
        ...{ id: "b", requestsPerSecond: 2, errorShare: 0, p50Ms: null, p99Ms: null },
        ...{ inFlight: 0, pending: 0, held: 2, endpointsUp: null, endpoints: null },
      },
    ]);
  });

  test("of tenants and routers", () => {
    expect(figures.tenants).toEqual([{ id: "acme", requestsPerSecond: 50 }]);
    expect(figures.routers).toEqual([
      expect.objectContaining({
        id: "router-1",
        revision: 12,
        tableAgeSeconds: 1.5,
        connected: true,
      }),
    ]);
  });

  test("of a router that was not there before are no rates yet", () => {
    const [cell] = figuresOf(look(0, before, "router-9"), look(1000, after)).cells;
    expect(cell).toMatchObject({ id: "a", requestsPerSecond: 0, inFlight: 3 });
  });

  test("are drawn as tables, the busiest first; a router that does not answer is named", () => {
    const page = drawTop(figures, [{ router: "router-2", why: "refused" }], {
      ...{ shown: sections, rows: 10, sort: "rps", wide: false, names: false, nowMs: 0 },
      paint: (_tone, text) => text,
    });
    expect(page).toContain("CELL  RPS  ERR%    P50    P99  IN-FLIGHT  HELD   UP\n");
    expect(page).toContain("a     100  15.0  100ms  198ms          3     0  1/2\n");
    expect(page).toContain("router router-2 does not answer: refused\n");
  });
});

describe("quantiles", () => {
  test("above the last bound are that bound; of nothing there are none", () => {
    const buckets = [
      { bound: 1, count: 1 },
      { bound: Number.POSITIVE_INFINITY, count: 10 },
    ];
    expect(quantileMs(buckets, 0.99)).toBe(1000);
    expect(quantileMs([], 0.5)).toBeNull();
  });
});

describe("a page of metrics", () => {
  test("is read with escapes, without comments and nonsense", () => {
    const text = '# HELP x y\nx{a="q\\"\\\\n",b="two"} 1.5 1700000000\nnonsense\ny +Inf\nz nope\n';
    expect(parseMetrics(text)).toEqual([
      { name: "x", labels: { a: 'q"\\n', b: "two" }, value: 1.5 },
      { name: "y", labels: {}, value: Number.POSITIVE_INFINITY },
    ]);
  });
});
