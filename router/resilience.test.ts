/** One endpoint, cell or tenant that goes wrong, on real sockets: the others do not notice. */
import { createServer, type RequestListener, type ServerResponse } from "node:http";
import { expect, test } from "vitest";
import { startRawPeer } from "../runtime/http/peers.fixture.ts";
import { closeServer, listenOn } from "../table/table.fixture.ts";
import type { Router } from "./run.ts";
import {
  type Answer,
  type Ask,
  ask,
  codeOf,
  createBench,
  metric,
  until,
} from "./running.fixture.ts";

const bench = createBench();
const name = (rest: string) => `cellfleet_router_${rest}`;

/** An application that can be killed with all its connections, and come back at the same port. */
async function startMortal(serve: RequestListener) {
  const listen = async (port: number) => {
    const server = createServer(serve);
    return { server, port: await listenOn(server, port) };
  };
  let life = await listen(0);
  const { port } = life;
  const kill = async () => closeServer(life.server);
  bench.closers.push(kill);
  return {
    url: `http://127.0.0.1:${port}`,
    kill,
    revive: async () => {
      life = await listen(port);
    },
  };
}

/** An application that answers when it is told to. */
async function startHanging() {
  const waiting: ServerResponse[] = [];
  const url = await bench.startApp((req, res) => {
    if (req.url === "/quick") res.end("quick");
    else waiting.push(res);
  });
  const letGo = () => {
    for (const res of waiting.splice(0)) res.end("late");
  };
  return { url, waiting, letGo };
}

const many = (router: Router, tenant: string, count: number, wish: Ask = {}) =>
  Array.from({ length: count }, () => ask(router.port, tenant, wish));
const codes = (answers: readonly Answer[]) => {
  const counts: Record<string, number> = {};
  for (const answer of answers) counts[codeOf(answer)] = (counts[codeOf(answer)] ?? 0) + 1;
  return counts;
};

test("a cell whose only endpoint is killed under load: its tenants get 503 at once, nobody else notices", async () => {
  const dying = await startMortal((_req, res) => void res.end("a"));
  const well = await bench.startApp((_req, res) => void res.end("b"));
  const { router } = await bench.startStatic({
    cells: { a: { endpoints: [dying.url] }, b: { endpoints: [well] } },
    tenants: { acme: "a", globex: "b" },
  });
  let running = true;
  let most = 0;
  const seen: Record<string, Answer[]> = { acme: [], globex: [] };
  const load = async (tenant: string) => {
    while (running) {
      seen[tenant]?.push(await ask(router.port, tenant));
      const gauges = [
        name('cell_inflight_requests{cell="a"}'),
        name('cell_pending_requests{cell="a"}'),
      ];
      const [inFlight = 0, pending = 0] = await Promise.all(
        gauges.map((one) => metric(router, one)),
      );
      most = Math.max(most, inFlight + pending);
    }
  };
  const clients = ["acme", "acme", "acme", "globex", "globex", "globex"].map(load);
  try {
    await until(() => expect(seen["acme"]?.length).toBeGreaterThan(5));
    await dying.kill();
    const since = seen["acme"]?.length ?? 0;
    await until(() => expect(seen["acme"]?.length).toBeGreaterThan(since + 30));
    const series = `{cell="a",endpoint="${dying.url}"}`;
    expect(await metric(router, name(`breaker_state${series}`))).toBeGreaterThan(0);
    expect(await metric(router, name(`endpoint_up${series}`))).toBe(0);
    expect(
      await metric(router, name('ejections_total{cell="a",reason="connect"}')),
    ).toBeGreaterThan(0);
    // What was on its way to the endpoint when it died may say so.
    const after = codes((seen["acme"] ?? []).slice(since + 6));
    expect(Object.keys(after)).toEqual(["503 CELL_UNREACHABLE"]);
    await dying.revive();
    await until(async () => expect((await ask(router.port, "acme")).status).toBe(200));
  } finally {
    running = false;
    await Promise.all(clients);
  }
  expect(Object.keys(codes(seen["globex"] ?? []))).toEqual(["200 undefined"]);
  // As many as there are clients, never a pile.
  expect(most).toBeLessThanOrEqual(3);
  expect(await metric(router, name('cell_inflight_requests{cell="a"}'))).toBe(0);
}, 30_000);

test("a cell that hangs holds no more than its bulkhead, and the rest of it is refused at once", async () => {
  const hanging = await startHanging();
  const well = await bench.startApp((_req, res) => void res.end("b"));
  const { router } = await bench.startStatic(
    {
      cells: { a: { endpoints: [hanging.url] }, b: { endpoints: [well] } },
      tenants: { acme: "a", globex: "b" },
    },
    { cellInflightMax: 6, cellPendingMax: 4, queueMs: 60_000 },
  );
  const asked = many(router, "acme", 30);
  await until(async () => {
    expect(await metric(router, name('cell_inflight_requests{cell="a"}'))).toBe(6);
    expect(await metric(router, name('cell_pending_requests{cell="a"}'))).toBe(4);
    expect(await metric(router, name('overflow_total{cell="a"}'))).toBe(20);
  });
  expect(codes(await Promise.all(many(router, "globex", 20)))).toEqual({ "200 undefined": 20 });
  const drip = setInterval(hanging.letGo, 5);
  const answers = codes(await Promise.all(asked));
  clearInterval(drip);
  expect(answers).toEqual({ "200 undefined": 10, "503 ROUTER_OVERLOADED": 20 });
});

test("a tenant that floods its cell takes its own share; the others of the cell are served meanwhile", async () => {
  const hanging = await startHanging();
  const { router } = await bench.startStatic(
    { cells: { a: { endpoints: [hanging.url] } }, tenants: { acme: "a", globex: "a" } },
    { connectionsMax: 32, tenantInflightMax: 40, queueMs: 60_000 },
  );
  const flood = many(router, "acme", 100);
  await until(async () =>
    expect(await metric(router, name('tenant_limited_total{reason="in-flight"}'))).toBe(60),
  );
  // Four seats of 32 are out of its reach.
  await until(() => expect(hanging.waiting.length).toBe(28));
  expect(codes(await Promise.all(many(router, "globex", 20, { path: "/quick" })))).toEqual({
    "200 undefined": 20,
  });
  expect(hanging.waiting.length).toBe(28);
  const drip = setInterval(hanging.letGo, 5);
  const answers = await Promise.all(flood);
  clearInterval(drip);
  expect(codes(answers)).toEqual({ "200 undefined": 40, "429 TENANT_LIMITED": 60 });
  expect(answers.find(({ status }) => status === 429)?.headers["retry-after"]).toBe("1");
});

test("limits of the table: a rate is refused with the time to wait, another tenant is not", async () => {
  const url = await bench.startApp((_req, res) => void res.end("ok"));
  const { router } = await bench.startStatic({
    cells: { a: { endpoints: [url] } },
    tenants: { acme: "a", globex: "a" },
    policy: { tenantLimits: { tenants: { acme: { perSecond: 0.05, burst: 3 } } } },
  });
  const answers = await Promise.all(many(router, "acme", 5));
  expect(codes(answers)).toEqual({ "200 undefined": 3, "429 TENANT_LIMITED": 2 });
  const wait = Number(answers.find(({ status }) => status === 429)?.headers["retry-after"]);
  expect([wait > 10, wait <= 20]).toEqual([true, true]);
  expect(codes(await Promise.all(many(router, "globex", 5)))).toEqual({ "200 undefined": 5 });
  expect(await metric(router, name('tenant_limited_total{reason="rate"}'))).toBe(2);
});

test("an endpoint that answers 503 is passed over; one that answers 500 is not", async () => {
  const hits = { sick: 0, rude: 0, well: 0 };
  const app = (who: keyof typeof hits, status: number) =>
    bench.startApp((_req, res) => {
      hits[who] += 1;
      res.writeHead(status).end(who);
    });
  const [sick, rude, well] = await Promise.all([
    app("sick", 503),
    app("rude", 500),
    app("well", 200),
  ]);
  const { router } = await bench.startStatic({
    cells: { a: { endpoints: [sick, well] }, b: { endpoints: [rude, well] } },
    tenants: { acme: "a", globex: "b" },
  });
  for (let nth = 0; nth < 60; nth += 1) await ask(router.port, "acme");
  expect(hits.sick).toBe(5);
  for (let nth = 0; nth < 60; nth += 1) await ask(router.port, "globex");
  expect(hits.rude).toBeGreaterThan(10);
  expect(await metric(router, name('ejections_total{cell="a",reason="answer"}'))).toBe(1);
  expect(await metric(router, name('ejections_total{cell="b",reason="answer"}'))).toBeUndefined();
});

test("a trial that streams without end opens the endpoint to others when its answer begins", async () => {
  const dying = await startMortal((req, res) => {
    if (req.url === "/stream")
      res.writeHead(200, { "content-type": "text/event-stream" }).flushHeaders();
    else res.end("ok");
  });
  const { router } = await bench.startStatic({
    cells: { a: { endpoints: [dying.url] } },
    tenants: { acme: "a" },
  });
  await dying.kill();
  for (let nth = 0; nth < 8; nth += 1) await ask(router.port, "acme");
  const state = () => metric(router, name(`breaker_state{cell="a",endpoint="${dying.url}"}`));
  expect(await state()).toBe(2);
  await dying.revive();
  const streaming = new AbortController();
  await until(async () => {
    const answer = await fetch(`http://127.0.0.1:${router.port}/stream`, {
      headers: { "x-tenant-id": "acme" },
      signal: streaming.signal,
    });
    expect(answer.status).toBe(200);
  });
  expect(await state()).toBe(0);
  expect((await ask(router.port, "acme")).status).toBe(200);
  streaming.abort();
});

test("a cell that comes back is up again before anybody asks for it, and is sent nothing for that", async () => {
  const asked: string[] = [];
  const dying = await startMortal((req, res) => {
    asked.push(String(req.url));
    res.end("ok");
  });
  const { router } = await bench.startStatic({
    cells: { a: { endpoints: [dying.url] } },
    tenants: { acme: "a" },
  });
  await dying.kill();
  for (let nth = 0; nth < 8; nth += 1) await ask(router.port, "acme");
  const series = `{cell="a",endpoint="${dying.url}"}`;
  const seen = async () => [
    await metric(router, name(`endpoint_up${series}`)),
    await metric(router, name(`breaker_state${series}`)),
  ];
  expect(await seen()).toEqual([0, 2]);
  await dying.revive();
  await until(async () => expect(await seen()).toEqual([1, 0]));
  expect(asked).toEqual([]);
}, 30_000);

test("an endpoint that fails its probes is passed over until it passes them again", async () => {
  const hits = [0, 0];
  let isSick = true;
  const app = (nth: number) =>
    bench.startApp((req, res) => {
      if (req.url !== "/healthz") hits[nth] = (hits[nth] ?? 0) + 1;
      res.writeHead(req.url === "/healthz" && nth === 0 && isSick ? 500 : 200).end();
    });
  const endpoints = await Promise.all([app(0), app(1)]);
  const { router } = await bench.startStatic(
    { cells: { a: { endpoints, health: "/healthz" } }, tenants: { acme: "a" } },
    { probeMs: 20 },
  );
  const up = () => metric(router, name(`endpoint_up{cell="a",endpoint="${endpoints[0]}"}`));
  await until(async () => expect(await up()).toBe(0));
  const before = hits[0];
  await Promise.all(many(router, "acme", 30));
  expect(hits[0]).toBe(before);
  isSick = false;
  await until(async () => expect(await up()).toBe(1));
  await until(async () => {
    await ask(router.port, "acme");
    expect(hits[0]).toBeGreaterThan(before ?? 0);
  });
});

test("a deadline of the route, of the client or of the router is a 504 with its name", async () => {
  const told: Array<Record<string, unknown>> = [];
  const url = await bench.startApp((req, res) => {
    told.push(req.headers);
    if (req.url !== "/slow" && req.url !== "/route") res.end("ok");
  });
  const { router } = await bench.startStatic({
    cells: { a: { endpoints: [url] } },
    tenants: { acme: "a" },
    serviceRoutes: [{ pathPrefix: "/route", service: "default", deadlineMs: 50 }],
  });
  const over = "504 DEADLINE_EXCEEDED";
  const asking = (path: string, headers: Record<string, string> = {}) =>
    ask(router.port, "acme", { path, headers }).then(codeOf);
  expect(await asking("/route")).toBe(over);
  expect(await asking("/route", { "x-request-timeout-ms": "60000" })).toBe(over);
  expect(await asking("/slow", { "x-request-timeout-ms": "50" })).toBe(over);
  expect(await asking("/slow", { "x-request-deadline": String(Date.now() + 50) })).toBe(over);
  expect(await asking("/slow", { "grpc-timeout": "50m" })).toBe(over);
  const before = told.length;
  const failed = () =>
    metric(router, name('requests_total{cell="a",method="GET",code_class="5xx"}'));
  const blamed = await failed();
  expect(await asking("/slow", { "x-request-deadline": String(Date.now() - 1) })).toBe(over);
  const late = await ask(router.port, "acme", { headers: { "grpc-timeout": "0S" } });
  expect(codeOf(late)).toBe(over);
  expect(JSON.parse(late.text).error.message).toMatch(/client's own deadline was over when/);
  expect(told.length).toBe(before);
  // Neither the cell nor its error budget had a part in it.
  expect(await failed()).toBe(blamed);
  expect(
    await metric(router, name('requests_total{cell="_none",method="GET",code_class="5xx"}')),
  ).toBe(2);
  expect(await asking("/", { "grpc-timeout": "soon" })).toBe("400 REQUEST_INVALID");
  expect(await metric(router, name("deadline_exceeded_total"))).toBe(7);
  // No endpoint is blamed for the haste of a client.
  expect(await metric(router, name(`breaker_state{cell="a",endpoint="${url}"}`))).toBe(0);

  expect(
    await asking("/", { "grpc-timeout": "20S", "x-request-deadline": "999999999999999" }),
  ).toBe("200 undefined");
  const last = told.at(-1) ?? {};
  const left = Number(last["x-request-timeout-ms"]);
  expect([left > 0, left <= 20_000, last["grpc-timeout"]]).toEqual([true, true, `${left}m`]);
  expect(Number(last["x-request-deadline"])).toBeLessThanOrEqual(Date.now() + 20_000);
  expect(await asking("/")).toBe("200 undefined");
  expect(told.at(-1)?.["x-request-deadline"]).toBeUndefined();
});

test("a deadline ends a wait for a seat, at the endpoint and at the cell", async () => {
  const hanging = await startHanging();
  const table = { cells: { a: { endpoints: [hanging.url] } }, tenants: { acme: "a" } };
  const over = { headers: { "x-request-timeout-ms": "40" } };
  for (const flags of [{ connectionsMax: 1 }, { cellInflightMax: 1 }]) {
    const { router } = await bench.startStatic(table, { ...flags, queueMs: 60_000 });
    const first = ask(router.port, "acme");
    await until(() => expect(hanging.waiting.length).toBe(1));
    expect(codeOf(await ask(router.port, "acme", over))).toBe("504 DEADLINE_EXCEEDED");
    // It was the client's own, and nothing was sent.
    const failed = (cell: string) =>
      metric(router, name(`requests_total{cell="${cell}",method="GET",code_class="5xx"}`));
    expect(await Promise.all([failed("a"), failed("_none")])).toEqual([0, 1]);
    hanging.letGo();
    expect((await first).status).toBe(200);
    expect(codeOf(await ask(router.port, "acme", { path: "/quick" }))).toBe("200 undefined");
  }
});

test("too much to do: the least important are refused first, critical ones at the ceiling alone", async () => {
  const hanging = await startHanging();
  const priority = (one: string) => ({ pathPrefix: `/${one}`, service: "default", priority: one });
  const { router, lines } = await bench.startStatic(
    {
      cells: { a: { endpoints: [hanging.url] } },
      tenants: { acme: "a" },
      serviceRoutes: ["low", "normal", "high", "critical"].map(priority),
    },
    { inflightMax: 20 },
  );
  const held: Array<Promise<Answer>> = [];
  const fill = async (total: number) => {
    held.push(...many(router, "acme", total - held.length, { path: "/critical" }));
    await until(async () => expect(await metric(router, name("requests_under_way"))).toBe(total));
  };
  const refused = async (path: string) => {
    const answer = await ask(router.port, "acme", { path, method: "POST", body: "x" });
    expect(Number(answer.headers["retry-after"])).toBeGreaterThan(0);
    return codeOf(answer);
  };
  await fill(14);
  expect(await refused("/low")).toBe("503 ROUTER_OVERLOADED");
  await fill(17);
  expect(await refused("/normal")).toBe("503 ROUTER_OVERLOADED");
  await fill(19);
  expect(await refused("/high")).toBe("503 ROUTER_OVERLOADED");
  await fill(20);
  expect(await refused("/critical")).toBe("503 ROUTER_OVERLOADED");
  hanging.letGo();
  expect(codes(await Promise.all(held))).toEqual({ "200 undefined": 20 });
  expect(codeOf(await ask(router.port, "acme", { path: "/quick" }))).toBe("200 undefined");
  const shed = ["low", "normal", "high", "critical"].map((one) =>
    metric(router, name(`shed_total{priority="${one}"}`)),
  );
  expect(await Promise.all(shed)).toEqual([1, 1, 1, 1]);
  expect(await metric(router, name("event_loop_late_seconds"))).toBe(0);
  const told = lines.filter(({ event }) => event.startsWith("shedding."));
  expect(told).toMatchObject([
    { event: "shedding.began", level: 1, underWay: 14 },
    { event: "shedding.ended", level: 0, underWay: 11 },
  ]);
});

test("an endpoint that closes idle connections costs no GET, and no POST is sent twice", async () => {
  const bodies: string[] = [];
  // Each connection takes one request, and is closed without a word when the next one comes.
  const peer = await startRawPeer((socket, soFar) => {
    const heads = soFar.split("\r\n\r\n").length - 1;
    const posted = /x-nth: (\d+)/.exec(soFar.slice(soFar.lastIndexOf("POST")));
    if (posted?.[1] !== undefined && soFar.includes("POST")) bodies.push(posted[1]);
    if (heads > 1) socket.resetAndDestroy();
    else socket.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
  });
  bench.closers.push(peer.close);
  const { router } = await bench.startStatic({
    cells: { a: { endpoints: [peer.url] } },
    tenants: { acme: "a" },
  });
  const answers: Answer[] = [];
  // Ten at a time, so that many connections lie idle: the second attempt must take none of them.
  for (let round = 0; round < 20; round += 1) {
    answers.push(...(await Promise.all(many(router, "acme", 10))));
  }
  expect(codes(answers)).toEqual({ "200 undefined": 200 });
  expect(await metric(router, name('retries_total{reason="reset-idempotent"}'))).toBeGreaterThan(
    50,
  );
  const posts: Answer[] = [];
  for (let nth = 0; nth < 50; nth += 1) {
    const headers = { "x-nth": String(nth), "content-length": "0" };
    posts.push(await ask(router.port, "acme", { method: "POST", headers }));
  }
  expect(bodies.length).toBe(new Set(bodies).size);
  expect(new Set(Object.keys(codes(posts)))).toEqual(
    new Set(["200 undefined", "502 CELL_PROTOCOL"]),
  );
}, 30_000);

test("when everything is reset, second attempts end with their budget", async () => {
  const peer = await startRawPeer((socket) => socket.resetAndDestroy());
  bench.closers.push(peer.close);
  const { router } = await bench.startStatic({
    cells: { a: { endpoints: [peer.url] } },
    tenants: { acme: "a" },
  });
  for (let nth = 0; nth < 120; nth += 1) await ask(router.port, "acme");
  const attempts = peer.seen.filter((text) => text !== "").length;
  expect(attempts).toBeGreaterThan(120);
  // 30 are free, and a fifth of all attempts.
  expect(attempts).toBeLessThanOrEqual(120 + 30 + 0.2 * attempts + 1);
  expect(await metric(router, name('retry_budget_exhausted_total{cell="a"}'))).toBeGreaterThan(0);
});
