/** Routers with real worker threads: their restart, their death, their table, their end. */
import { createHash } from "node:crypto";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { createServer, type RequestListener } from "node:http";
import { type ClientHttp2Session, connect as connectHttp2 } from "node:http2";
import { expect, test, vi } from "vitest";
import { closeServer, listenOn, startControlPlane, tableOf } from "../../table/table.fixture.ts";
import { startCell } from "../fleet.fixture.ts";
import type { Router } from "../run.ts";
import { adminJson, ask, createBench, metric, of, until } from "../running.fixture.ts";
import { Connection, startClients } from "./steady-clients.fixture.ts";

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

const bench = createBench({
  workerThread: new URL("./breaking-thread.fixture.ts", import.meta.url),
});

/** Room for all the clients of a test, which are one address and one tenant. */
const roomy = {
  ...{ workers: 2, accessLog: "off", clientsPerIpMax: 10_000, tenantInflightMax: 0 },
  ...{ connectionsMax: 1000, pendingMax: 4000, cellInflightMax: 4000, cellPendingMax: 4000 },
};
const oneCell = (url: string) => ({ cells: { a: { endpoints: [url] } }, tenants: { acme: "a" } });

/** Answers requests, and takes WebSockets without a word. */
async function startApp(serve: RequestListener = (_req, res) => void res.end("ok")) {
  const server = createServer(serve);
  server.on("upgrade", (req, socket) => {
    const key = `${req.headers["sec-websocket-key"]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`;
    const accept = createHash("sha1").update(key).digest("base64");
    socket.on("error", () => socket.destroy());
    socket.on("end", () => socket.end());
    socket.write(
      `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`,
    );
    socket.resume();
  });
  const port = await listenOn(server, 0);
  bench.closers.push(async () => {
    server.closeAllConnections();
    await closeServer(server);
  });
  return `http://127.0.0.1:${port}`;
}

const workersOf = async (router: Router): Promise<{ worker: number; state: string }[]> =>
  (await adminJson(router, "/workers")).items;
const series = 'cellfleet_router_requests_total{cell="a",method="GET",code_class="2xx"}';

test("all workers are replaced under load, and no request fails", async () => {
  const app = await startApp();
  const drains = { drainAnnounceMs: 1500, drainMs: 2500 };
  const { router, lines } = await bench.startStatic(oneCell(app), { ...roomy, ...drains });
  const clients = startClients({
    ...{ port: router.port, tenant: "acme" },
    ...{ kept: 100, fresh: 2, tunnels: 10 },
  });
  await until(() => expect(clients.answered()).toBeGreaterThan(300));
  const before = (await metric(router, series)) ?? 0;
  const started = await ask(router.adminPort, undefined, {
    path: "/workers/restart",
    method: "POST",
  });
  expect(`${started.status} ${started.text}`).toBe('202 {"restarting":true,"begun":true}\n');
  await vi.waitFor(() => expect(of(lines, "worker.left")).toHaveLength(2), { timeout: 40_000 });
  expect((await metric(router, series)) ?? 0).toBeGreaterThanOrEqual(before);
  await clients.stop();
  expect(clients.failures).toEqual([]);
  expect(await metric(router, series)).toBe(clients.answered());
  // Tunnels were told to go, and came back: some to the worker that was next.
  expect(clients.tunnels()).toBeGreaterThanOrEqual(20);
  expect((await workersOf(router)).map(({ worker, state }) => `${worker} ${state}`)).toEqual([
    "3 open",
    "4 open",
  ]);
  expect(await metric(router, 'cellfleet_router_worker_restarts_total{reason="asked"}')).toBe(2);
  // Nobody is left that the end would have to wait for.
  router.hurry();
});

test("a worker that throws takes along only what it carried", async () => {
  const app = await startApp();
  const { router, lines } = await bench.startStatic(oneCell(app), roomy);
  const request = "GET / HTTP/1.1\r\nHost: a.test\r\nx-tenant-id: acme\r\n\r\n";
  const connections = Array.from({ length: 40 }, () => new Connection(router.port));
  for (const connection of connections) await connection.ask(request);
  const before = (await metric(router, series)) ?? 0;
  expect(before).toBe(40);
  await breakOne();
  await until(() => expect(of(lines, "worker.died")).toMatchObject([{ reason: "crashed" }]));
  expect(of(lines, "worker.died")[0]?.["error"]).toBe("broken by the test");
  const answers = await Promise.allSettled(connections.map((one) => one.ask(request)));
  const lost = answers.filter(({ status }) => status === "rejected").length;
  expect(lost).toBeGreaterThan(0);
  expect(lost).toBeLessThan(40);
  expect((await metric(router, series)) ?? 0).toBe(before + 40 - lost);
  await until(async () =>
    expect((await workersOf(router)).map(({ state }) => state)).toEqual(["open", "open"]),
  );
  expect((await ask(router.port, "acme")).status).toBe(200);
  expect(await metric(router, 'cellfleet_router_worker_restarts_total{reason="crashed"}')).toBe(1);
  for (const connection of connections) connection.end();
});

test("who waits in the queue of a worker that is replaced is served by its successor", async () => {
  const app = await startApp();
  const { router, lines } = await bench.startStatic(oneCell(app), roomy);
  const go = await standStill(2);
  const request = "GET / HTTP/1.1\r\nHost: a.test\r\nx-tenant-id: acme\r\n\r\n";
  const connections = Array.from({ length: 40 }, () => new Connection(router.port));
  const answers = connections.map((connection) => connection.ask(request));
  const restarted = router.restart();
  // The successor is there, and the old worker is asked for its sockets: now it may wake up.
  await until(async () =>
    expect((await workersOf(router)).map(({ state }) => state)).toEqual(["open", "open", "ready"]),
  );
  go();
  const heads = await Promise.all(answers);
  expect(heads.filter((head) => head.startsWith("HTTP/1.1 200 "))).toHaveLength(40);
  for (const connection of connections) connection.end();
  expect(await restarted).toBe(true);
  expect(of(lines, "worker.died")).toEqual([]);
});

/** Holds all threads of workers, `count` of them; what is returned lets them go. */
async function standStill(count: number): Promise<() => void> {
  const channel = new BroadcastChannel("cellfleet-breaking-thread");
  const hold = new Int32Array(new SharedArrayBuffer(4));
  let here = 0;
  await new Promise<void>((resolve) => {
    channel.onmessage = () => {
      here += 1;
      if (here === count) resolve();
    };
    channel.postMessage({ hold });
  });
  channel.close();
  return () => {
    Atomics.store(hold, 0, 1);
    Atomics.notify(hold, 0);
  };
}

test("sessions of HTTP/2 are told to leave, and begin again at the successor", async () => {
  const app = await startApp();
  const drains = { drainAnnounceMs: 50, drainMs: 5000 };
  const flags = { ...roomy, ...drains, h2c: "127.0.0.1:0" };
  const { router } = await bench.startStatic(oneCell(app), flags);
  const session = connectHttp2(`http://127.0.0.1:${router.h2cPort}`);
  bench.closers.push(async () => session.destroy());
  expect(await statusOf(session)).toBe(200);
  const told = once(session, "goaway");
  expect(await router.restart()).toBe(true);
  await told;
  const next = connectHttp2(`http://127.0.0.1:${router.h2cPort}`);
  bench.closers.push(async () => next.destroy());
  expect(await statusOf(next)).toBe(200);
});

async function statusOf(session: ClientHttp2Session): Promise<unknown> {
  const stream = session.request({ ":path": "/", "x-tenant-id": "acme" });
  stream.resume();
  const [headers] = await once(stream, "response");
  return headers[":status"];
}

test("two routers may share an address when both say so, and one may leave", async () => {
  const app = await startApp();
  const shared = { reusePort: "on", drainAnnounceMs: 50 };
  const { router: old } = await bench.startStatic(oneCell(app), shared);
  const listen = `127.0.0.1:${old.port}`;
  await expect(bench.startStatic(oneCell(app), { listen })).rejects.toMatchObject({
    code: "CONFIG_INVALID",
  });
  const { router: fresh } = await bench.startStatic(oneCell(app), {
    ...shared,
    listen,
    workers: 2,
  });
  expect(fresh.port).toBe(old.port);
  const many = () => Promise.all(Array.from({ length: 20 }, () => ask(fresh.port, "acme")));
  expect((await many()).map(({ status }) => status)).toEqual(Array(20).fill(200));
  expect(await metric(old, series)).toBeGreaterThan(0);
  await old.close();
  expect((await many()).map(({ status }) => status)).toEqual(Array(20).fill(200));
  expect((await metric(fresh, series)) ?? 0).toBeGreaterThan(20);
});

/** One of the threads that run, whichever answers first. */
async function breakOne(): Promise<void> {
  const channel = new BroadcastChannel("cellfleet-breaking-thread");
  try {
    const id = await new Promise<number>((resolve) => {
      channel.onmessage = (event) =>
        resolve((event as { readonly data: { readonly here: number } }).data.here);
      channel.postMessage("who");
    });
    channel.postMessage({ break: id });
  } finally {
    channel.close();
  }
}

test("a change reaches every worker, frees what waits in each, and then is acknowledged", async () => {
  const owned = { acme: "a 1" };
  const a = await startCell("a", () => owned);
  bench.closers.push(a.close);
  const table = tableOf(1, { acme: "a 1" }, { a: [a.url] });
  const plane = await startControlPlane(table);
  bench.closers.push(plane.close);
  // Longer than a busy machine needs to bring in all twelve.
  const { router } = await bench.startRemote(plane.url, { workers: 2, holdMs: 60_000 });
  expect((await ask(router.port, "acme")).status).toBe(200);
  plane.change({ acme: "a 1 hold" });
  await until(() => expect(plane.asked.at(-1)?.revision).toBe(2));
  // Acknowledged: from here on no worker may answer by the table before.
  const held = Array.from({ length: 12 }, () => ask(router.port, "acme"));
  await until(async () =>
    expect(await metric(router, 'cellfleet_router_held_requests{cell="a"}')).toBe(12),
  );
  plane.change({ acme: "a 1" });
  expect((await Promise.all(held)).map(({ status }) => status)).toEqual(Array(12).fill(200));
  await until(() => expect(plane.asked.at(-1)?.revision).toBe(3));
  // Each call tells what is new since the one before; a change makes it come at once.
  await until(() => {
    plane.change({ acme: "a 1" });
    const seen = plane.asked.flatMap((one) => one.seen ?? []);
    const requests = seen.reduce((sum, one) => sum + one.requests, 0);
    expect(requests).toBe(13);
  });
});

test("a static table is read again for all, and what a worker remembers is found", async () => {
  const app = await startApp();
  const { router, file } = await bench.startStatic(oneCell(app), { workers: 3 });
  expect((await ask(router.port, "globex")).status).toBe(404);
  await writeFile(file, JSON.stringify({ ...oneCell(app), tenants: { globex: "a" } }));
  await router.reload();
  await until(async () =>
    expect(await metric(router, "cellfleet_router_table_settled_revision")).toBe(2),
  );
  const many = await Promise.all(Array.from({ length: 12 }, () => ask(router.port, "globex")));
  expect(many.map(({ status }) => status)).toEqual(Array(12).fill(200));
  const refused = await ask(router.port, "acme");
  const id = refused.headers["x-request-id"];
  const { items } = await adminJson(router, `/explain?request=${id}`);
  expect(items).toMatchObject([{ id, status: 404, code: "TENANT_UNKNOWN" }]);
});

test("the end finishes what is in flight, and loses no line of the log", async () => {
  let finish: (() => void) | undefined;
  const app = await startApp((req, res) => {
    if (req.url === "/slow") finish = () => void res.end("late");
    else res.end("ok");
  });
  const { router, lines } = await bench.startStatic(oneCell(app), { workers: 2, drainMs: 20_000 });
  await Promise.all(Array.from({ length: 20 }, () => ask(router.port, "acme")));
  const slow = ask(router.port, "acme", { path: "/slow" });
  await until(() => expect(finish).toBeDefined());
  const closed = router.close();
  await until(() => expect(of(lines, "router.draining")).toHaveLength(1));
  finish?.();
  expect(await slow).toMatchObject({ status: 200, text: "late" });
  await closed;
  expect(of(lines, "request.done")).toHaveLength(21);
});

test("what the end has to cut is told, too", async () => {
  let arrived = false;
  const app = await startApp(() => {
    arrived = true;
  });
  const { router, lines } = await bench.startStatic(oneCell(app), { workers: 2, drainMs: 100 });
  const cut = ask(router.port, "acme").catch((error: unknown) => error);
  await until(() => expect(arrived).toBe(true));
  await router.close();
  expect(await cut).toBeInstanceOf(Error);
  expect(of(lines, "request.done")).toMatchObject([{ status: 0, cell: "a" }]);
});

test("an address that is taken is refused, although workers share theirs", async () => {
  const app = await startApp();
  const { router } = await bench.startStatic(oneCell(app), { workers: 2 });
  const listen = `127.0.0.1:${router.port}`;
  await expect(bench.startStatic(oneCell(app), { workers: 2, listen })).rejects.toMatchObject({
    code: "CONFIG_INVALID",
    message: expect.stringMatching(/another process listens there/),
  });
});

test("workers start in a process with flags of Node, too: a heap that an operator bounded", async () => {
  const { execArgv } = process;
  process.execArgv = [...execArgv, "--max-old-space-size=512"];
  bench.closers.push(async () => {
    process.execArgv = execArgv;
  });
  const { router } = await bench.startStatic(oneCell(await startApp()), { workers: 2 });
  expect((await ask(router.port, "acme")).status).toBe(200);
});

test("settings that only a worker can see to be wrong are refused as settings", async () => {
  const app = await startApp();
  const tls = { tls: "127.0.0.1:0", tlsCerts: "/nowhere" };
  await expect(bench.startStatic(oneCell(app), { workers: 2, ...tls })).rejects.toMatchObject({
    code: "CONFIG_INVALID",
  });
});
