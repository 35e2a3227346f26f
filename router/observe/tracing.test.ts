/** Traces reach a collector by OTLP, as OpenTelemetry's conventions name things; a collector that is gone costs spans and nothing else. */
import { createServer } from "node:http";
import { describe, expect, test, vi } from "vitest";
import { z } from "zod";
import { closeServer, listenOn, textOf } from "../../table/table.fixture.ts";
import { ask, createBench, metric, of, until } from "../running.fixture.ts";

vi.setConfig({ testTimeout: 30_000, hookTimeout: 30_000 });

const bench = createBench();

const valueSchema = z.object({
  stringValue: z.string().optional(),
  intValue: z.coerce.number().optional(),
  doubleValue: z.number().optional(),
});
const attributesSchema = z.array(z.object({ key: z.string(), value: valueSchema }));
const spanSchema = z.object({
  traceId: z.string(),
  spanId: z.string(),
  parentSpanId: z.string().optional(),
  name: z.string(),
  kind: z.number(),
  startTimeUnixNano: z.coerce.bigint(),
  endTimeUnixNano: z.coerce.bigint(),
  attributes: attributesSchema,
  status: z.object({ code: z.number() }),
});
const exportSchema = z.object({
  resourceSpans: z.array(
    z.object({
      resource: z.object({ attributes: attributesSchema }),
      scopeSpans: z.array(z.object({ spans: z.array(spanSchema) })),
    }),
  ),
});

const plain = (attributes: z.infer<typeof attributesSchema>) =>
  Object.fromEntries(
    attributes.map(({ key, value }) => [
      key,
      value.stringValue ?? value.intValue ?? value.doubleValue,
    ]),
  );
type Span = Omit<z.infer<typeof spanSchema>, "attributes"> & {
  readonly attributes: Record<string, unknown>;
  readonly resource: Record<string, unknown>;
};

/** A collector that takes what it is sent, or what `answer` makes of it. */
async function startCollector(answer: () => number = () => 200) {
  const spans: Span[] = [];
  const paths: string[] = [];
  const server = createServer(async (req, res) => {
    paths.push(`${req.method} ${req.url}`);
    const body = exportSchema.parse(JSON.parse(await textOf(req)));
    const status = answer();
    if (status === 200) {
      for (const { resource, scopeSpans } of body.resourceSpans) {
        for (const span of scopeSpans.flatMap((scope) => scope.spans)) {
          const attributes = plain(span.attributes);
          spans.push({ ...span, attributes, resource: plain(resource.attributes) });
        }
      }
    }
    res.writeHead(status, { "content-type": "application/json" }).end("{}");
  });
  const port = await listenOn(server, 0);
  bench.closers.push(() => closeServer(server));
  return { url: `http://127.0.0.1:${port}`, spans, paths };
}

async function startRouter(flags: Record<string, unknown>, routes: readonly object[] = []) {
  const parents: string[] = [];
  const app = await bench.startApp((req, res) => {
    parents.push(String(req.headers["traceparent"]));
    res.statusCode = req.url === "/broken" ? 500 : 200;
    res.end("fine\n");
  });
  const table = {
    tenantKey: [{ header: "x-tenant-id" }],
    cells: { a: { endpoints: [app] }, dead: { endpoints: ["http://127.0.0.1:9"] } },
    tenants: { acme: "a", lost: "dead" },
    ...(routes.length === 0 ? {} : { serviceRoutes: routes }),
  };
  return { ...(await bench.startStatic(table, { accessLog: "off", ...flags })), parents };
}

const traceId = "4bf92f3577b34da6a3ce929d0e0e4736";
const parentId = "00f067aa0ba902b7";
const fromClient = (flags: string) => ({ traceparent: `00-${traceId}-${parentId}-${flags}` });
const server = 2;
const client = 3;

describe("a traced request", () => {
  test("is a span of the router and one of its attempt, under the client's trace; the cell goes on under the attempt", async () => {
    const collector = await startCollector();
    const { router, parents } = await startRouter({ otlp: collector.url, id: "r-7" });
    await ask(router.port, "acme", { path: "/orders?card=4111", headers: fromClient("01") });
    await until(() => expect(collector.spans).toHaveLength(2));
    expect(collector.paths[0]).toBe("POST /v1/traces");
    const request = collector.spans.find(({ kind }) => kind === server);
    const attempt = collector.spans.find(({ kind }) => kind === client);
    expect(request).toMatchObject({
      ...{ name: "GET", traceId, parentSpanId: parentId, status: { code: 0 } },
      resource: { "service.name": "cellfleet-router", "service.instance.id": "r-7" },
      attributes: {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "url.path": "/orders",
        "network.protocol.version": "1.1",
        "cellfleet.cell": "a",
        "cellfleet.service": "default",
        "cellfleet.route_class": "tenant",
      },
    });
    expect(attempt).toMatchObject({
      ...{ name: "GET", traceId, parentSpanId: request?.spanId },
      attributes: { "server.address": "127.0.0.1", "http.response.status_code": 200 },
    });
    expect(parents).toEqual([`00-${traceId}-${attempt?.spanId}-01`]);
    const span = (one: Span | undefined) =>
      Number((one?.endTimeUnixNano ?? 0n) - (one?.startTimeUnixNano ?? 0n));
    expect(span(request)).toBeGreaterThanOrEqual(span(attempt));
    expect(Number((request?.startTimeUnixNano ?? 0n) / 1_000_000n)).toBeGreaterThan(
      Date.now() - 60_000,
    );
    expect(
      JSON.stringify(collector.spans, (_, value) => (typeof value === "bigint" ? "" : value)),
    ).not.toMatch(/4111|acme/);
  });

  test("that fails is an error, by code and by the reason of the attempt; odd methods are _OTHER", async () => {
    const collector = await startCollector();
    const { router } = await startRouter({ otlp: collector.url, traceTenants: "on" });
    await ask(router.port, "lost", { method: "PROPFIND" });
    await until(() => expect(collector.spans).toHaveLength(2));
    expect(collector.spans.find(({ kind }) => kind === server)).toMatchObject({
      name: "HTTP",
      status: { code: 2 },
      attributes: {
        "http.request.method": "_OTHER",
        "http.request.method_original": "PROPFIND",
        "http.response.status_code": 503,
        "error.type": "CELL_UNREACHABLE",
        "cellfleet.tenant": "lost",
      },
    });
    expect(collector.spans.find(({ kind }) => kind === client)).toMatchObject({
      status: { code: 2 },
      attributes: { "error.type": "connect" },
    });
  });

  test("that was refused before a cell was asked has no attempt, and is no fault of the router", async () => {
    const collector = await startCollector();
    const { router } = await startRouter({ otlp: `${collector.url}/custom/traces` });
    await ask(router.port, "nobody");
    await until(() => expect(collector.spans).toHaveLength(1));
    expect(collector.spans[0]).toMatchObject({
      status: { code: 0 },
      attributes: { "http.response.status_code": 404, "error.type": "TENANT_UNKNOWN" },
    });
    expect(collector.paths[0]).toBe("POST /custom/traces");
  });
});

test("a fan-out is a span of the router and one for each cell, also for one that is missing", async () => {
  const collector = await startCollector();
  const { router, parents } = await startRouter({ otlp: collector.url }, [
    { pathPrefix: "/all", service: "default", class: "fan-out" },
  ]);
  await ask(router.port, undefined, { path: "/all" });
  // The dead cell's endpoint may be tried once more.
  await until(() => expect(collector.spans.length).toBeGreaterThanOrEqual(3));
  const clients = collector.spans.filter(({ kind }) => kind === client);
  const [request] = collector.spans.filter(({ kind }) => kind === server);
  expect(new Set(clients.map(({ parentSpanId }) => parentSpanId))).toEqual(
    new Set([request?.spanId]),
  );
  const well = clients.find(({ status }) => status.code === 0);
  expect(parents).toEqual([expect.stringContaining(`-${well?.spanId}-01`)]);
  expect(clients.find(({ status }) => status.code === 2)?.attributes).toMatchObject({
    "error.type": "unreachable",
  });
});

describe("sampling", () => {
  test("is the parent's word where there is a parent, else chance; the cell hears of it", async () => {
    const collector = await startCollector();
    const { router, parents } = await startRouter({ otlp: collector.url, traceSample: 0 });
    await ask(router.port, "acme");
    await ask(router.port, "acme", { headers: fromClient("00") });
    await ask(router.port, "acme", { headers: fromClient("01") });
    await until(() => expect(collector.spans).toHaveLength(2));
    expect(collector.spans.map((span) => span.traceId)).toEqual([traceId, traceId]);
    expect(parents.map((parent) => parent.slice(-3))).toEqual(["-00", "-00", "-01"]);
    // An own span of the router all the same, for its log.
    expect(parents[1]).not.toContain(parentId);
  });

  test("of everything marks the trace for the cell", async () => {
    const collector = await startCollector();
    const { router, parents } = await startRouter({ otlp: collector.url });
    await ask(router.port, "acme");
    await until(() => expect(collector.spans).toHaveLength(2));
    expect(parents[0]).toMatch(/-01$/);
  });
});

describe("a collector", () => {
  const spans = (result: string) => `cellfleet_router_trace_spans_total{result="${result}"}`;

  test("that is gone costs spans, which are counted, and no request", async () => {
    const { router } = await startRouter({ otlp: "http://127.0.0.1:9" });
    for (let nth = 0; nth < 3; nth += 1) {
      expect((await ask(router.port, "acme")).status).toBe(200);
    }
    await until(async () => expect(await metric(router, spans("failed"))).toBe(6));
    expect(await metric(router, "cellfleet_router_trace_spans_waiting")).toBe(0);
  });

  test("that refuses is counted", async () => {
    const collector = await startCollector(() => 400);
    const { router } = await startRouter({ otlp: collector.url });
    await ask(router.port, "acme");
    await until(async () => expect(await metric(router, spans("failed"))).toBe(2));
  });

  test("gets what still waits when the router ends", async () => {
    const collector = await startCollector();
    const { router } = await startRouter({ otlp: collector.url });
    await ask(router.port, "acme");
    await router.close();
    expect(collector.spans).toHaveLength(2);
  });

  test("that hangs does not keep the router from ending, nor grow its memory", async () => {
    const silent = createServer(() => undefined);
    const port = await listenOn(silent, 0);
    bench.closers.push(() => closeServer(silent));
    const { router, lines } = await startRouter({ otlp: `http://127.0.0.1:${port}` });
    await ask(router.port, "acme");
    await until(async () =>
      expect(await metric(router, "cellfleet_router_trace_spans_waiting")).toBe(2),
    );
    await router.close();
    // Nothing had to be left behind when the time to end was over.
    expect(of(lines, "router.trouble")).toEqual([]);
  });

  test("is not spoken of where nobody asked for traces", async () => {
    const { router } = await startRouter({});
    await ask(router.port, "acme");
    expect(await metric(router, spans("sent"))).toBeUndefined();
  });
});
