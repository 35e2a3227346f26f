/** A router without a control plane in front of plain servers; its tunnels; its end. */

import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type RequestListener, type Server } from "node:http";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { systemClock } from "../runtime/clock.ts";
import { rawExchange } from "../runtime/http/peers.fixture.ts";
import { createLog } from "../runtime/log.ts";
import { closeServer, listenOn } from "../table/table.fixture.ts";
import { parseRouterConfig } from "./config.ts";
import type { RouterEvents } from "./observe/events.ts";
import { type Router, startRouter } from "./run.ts";

// Real sockets and a real disk on a machine that may be busy: conditions are waited for, not times.
vi.setConfig({ testTimeout: 30_000, hookTimeout: 30_000 });

let dir = "";
const closers: Array<() => unknown> = [];
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "cellfleet-static-"));
});
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
  await rm(dir, { recursive: true, force: true });
});
const until = <T>(check: () => T | Promise<T>) =>
  vi.waitFor(check, { timeout: 25_000, interval: 10 });

async function startApp(serve: RequestListener): Promise<{ url: string; server: Server }> {
  const server = createServer(serve);
  const port = await listenOn(server, 0);
  closers.push(() => closeServer(server));
  return { url: `http://127.0.0.1:${port}`, server };
}

type Lines = Array<Record<string, unknown> & { event: string }>;
async function start(table: object, flags: Record<string, unknown> = {}) {
  const file = join(dir, "table.json");
  await writeFile(file, JSON.stringify(table));
  const lines: Lines = [];
  const log = createLog<RouterEvents>({
    clock: systemClock,
    part: "router",
    level: "info",
    write: (line) => lines.push(JSON.parse(line)),
  });
  const config = parseRouterConfig({
    ...{ drainDelayMs: 0, drainAnnounceMs: 0, drainMs: 2000, shedLateMs: 0 },
    ...{ listen: "127.0.0.1:0", admin: "127.0.0.1:0", table: file },
    ...flags,
  });
  const router: Router = await startRouter({ config, log, token: "" });
  closers.push(router.close);
  return { router, lines, file };
}
const get = (tenant: string, path = "/", more = "") =>
  `GET ${path} HTTP/1.1\r\nHost: api.test\r\nx-tenant-id: ${tenant}\r\nConnection: close\r\n${more}\r\n`;
const admin = (router: Router, path: string) =>
  rawExchange(router.adminPort, `GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);

describe("static mode", () => {
  test("needs no epochs: any server is a cell, and sees its tenant", async () => {
    const app = await startApp((req, res) => res.end(JSON.stringify(req.headers)));
    const { router } = await start({
      cells: { a: { endpoints: [`${app.url}/base/`] } },
      tenants: { acme: "a" },
    });
    const { text } = await rawExchange(router.port, get("acme", "/x", "X-Cellfleet-Epoch: 9\r\n"));
    expect(text).toMatch(/^HTTP\/1.1 200[\s\S]*x-cell: a\r\nx-cell-epoch: 1/);
    expect(text).toMatch(/"x-tenant-id":"acme"/);
    expect(text).not.toMatch(/"x-cellfleet-/);
    expect((await rawExchange(router.port, get("nobody"))).text).toMatch(
      /^HTTP\/1.1 404[\s\S]*TENANT_UNKNOWN/,
    );
    expect((await admin(router, "/explain?tenant=acme")).text).toMatch(/"cell":"a"/);
    expect((await admin(router, "/explain?tenant=nobody")).text).toMatch(
      /404[\s\S]*TENANT_UNKNOWN/,
    );
    expect((await admin(router, "/table?full=1")).text).toMatch(/"values":\["acme"\]/);
  });

  test("passes what is not listed through, to the cell that is named, and only then", async () => {
    const old = await startApp((_req, res) => res.end("the old world"));
    const { router } = await start({
      cells: { legacy: { endpoints: [old.url] } },
      passThrough: "legacy",
    });
    expect((await rawExchange(router.port, get("anybody"))).text).toMatch(
      /x-cell: legacy[\s\S]*the old world/,
    );
    expect(
      (await rawExchange(router.port, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
        .text,
    ).toMatch(/x-cell: legacy[\s\S]*the old world/);
  });

  test("reads its file again when told, and keeps the old one if the new one is bad", async () => {
    const app = await startApp((_req, res) => res.end("ok"));
    const table = { cells: { a: { endpoints: [app.url] } }, tenants: { acme: "a" } };
    const { router, file, lines } = await start(table);
    await writeFile(file, JSON.stringify({ ...table, tenants: { globex: "nowhere" } }));
    await router.reload();
    expect((await rawExchange(router.port, get("acme"))).text).toMatch(/200 OK/);
    expect(lines.find(({ event }) => event === "table.refused")?.["text"]).toMatch(
      /there is no cell nowhere/,
    );
    await writeFile(file, JSON.stringify({ ...table, tenants: { globex: "a" } }));
    await router.reload();
    expect((await rawExchange(router.port, get("globex"))).text).toMatch(/200 OK/);
    expect((await rawExchange(router.port, get("acme"))).text).toMatch(/TENANT_UNKNOWN/);
  });

  test("chooses the service, and balances over what lives", async () => {
    const web = await startApp((_req, res) => res.end("web"));
    const dead = await startApp(() => {});
    await closeServer(dead.server);
    const { router, lines } = await start({
      serviceRoutes: [{ pathPrefix: "/web", service: "web" }],
      cells: {
        a: {
          services: { web: { endpoints: [web.url, dead.url] }, default: { endpoints: [dead.url] } },
        },
      },
      tenants: { acme: "a" },
    });
    for (let nth = 0; nth < 12; nth += 1) {
      const post = `POST /web HTTP/1.1\r\nHost: x\r\nx-tenant-id: acme\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi`;
      expect((await rawExchange(router.port, post)).text).toMatch(/200 OK[\s\S]*web/);
    }
    expect((await rawExchange(router.port, get("acme"))).text).toMatch(
      /503[\s\S]*CELL_UNREACHABLE/,
    );
    const attempts = lines
      .filter(({ event }) => event === "request.done")
      .map((line) => line["attempt"]);
    expect(Math.max(...attempts.map(Number))).toBeLessThanOrEqual(2);
  });

  test("repeats a GET once whose connection died before an answer, and never a POST", async () => {
    const seen: string[] = [];
    const app = await startApp((req, res) => {
      seen.push(`${req.method} ${req.url}`);
      const first = seen.filter((line) => line === `${req.method} ${req.url}`).length === 1;
      if (first || req.url === "/never") req.socket.resetAndDestroy();
      else res.end("second");
    });
    const { router } = await start({
      cells: { a: { endpoints: [app.url] } },
      tenants: { acme: "a" },
    });
    expect((await rawExchange(router.port, get("acme", "/once"))).text).toMatch(
      /200 OK[\s\S]*second/,
    );
    expect((await rawExchange(router.port, get("acme", "/never"))).text).toMatch(
      /502[\s\S]*CELL_PROTOCOL/,
    );
    const post = get("acme", "/once").replace("GET", "POST");
    expect((await rawExchange(router.port, post)).text).toMatch(/502[\s\S]*CELL_PROTOCOL/);
    expect(seen).toEqual(["GET /once", "GET /once", "GET /never", "GET /never", "POST /once"]);
  });

  test("keeps quiet about cells if it is told to", async () => {
    const app = await startApp((_req, res) => res.end("ok"));
    const table = { cells: { a: { endpoints: [app.url] } }, tenants: { acme: "a" } };
    const { router } = await start(table, { cellHeaders: "off" });
    expect((await rawExchange(router.port, get("acme"))).text).not.toMatch(/x-cell/);
  });

  test("strips the tenant's prefix from the path", async () => {
    const app = await startApp((req, res) =>
      res.end(`${req.url} of ${req.headers["x-tenant-id"]}`),
    );
    const { router } = await start({
      tenantKey: [{ path: "/t/{tenant}", strip: true }],
      cells: { a: { endpoints: [app.url] } },
      tenants: { acme: "a" },
    });
    const { text } = await rawExchange(
      router.port,
      "GET /t/acme/orders?x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    );
    expect(text).toMatch(/\/orders\?x of acme/);
  });
});

describe("bad bytes", () => {
  test("after a good request do not destroy its answer", async () => {
    const app = await startApp((_req, res) => setTimeout(() => res.end("the answer"), 50));
    const { router } = await start({
      cells: { a: { endpoints: [app.url] } },
      tenants: { acme: "a" },
    });
    const keep = get("acme").replace("Connection: close\r\n", "");
    const { text } = await rawExchange(router.port, `${keep}\u0000nonsense\r\n\r\n`);
    expect(text).toMatch(/^HTTP\/1.1 200 OK[\s\S]*the answer/);
    expect(text.match(/HTTP\/1.1/g)).toHaveLength(1);
  });

  test.each([
    ["nonsense", "nonsense\r\n\r\n", "400", "REQUEST_INVALID"],
    [
      "a huge header",
      `GET / HTTP/1.1\r\nX: ${"x".repeat(40_000)}\r\n\r\n`,
      "431",
      "HEADERS_TOO_LARGE",
    ],
    ["CONNECT", "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", "405", "METHOD_NOT_ALLOWED"],
    [
      "an unknown expectation",
      "POST / HTTP/1.1\r\nHost: a\r\nExpect: more\r\nContent-Length: 1\r\n\r\n",
      "417",
      "EXPECTATION_FAILED",
    ],
  ])("%s: the answer", async (_name, bytes, status, code) => {
    const { router } = await start({ cells: { a: { endpoints: ["http://127.0.0.1:9"] } } });
    const { text } = await rawExchange(router.port, bytes);
    expect(text.startsWith(`HTTP/1.1 ${status} `)).toBe(true);
    expect(text).toMatch(new RegExp(`x-cellfleet-error: ${code}`));
    expect((await admin(router, "/metrics")).text).toMatch(
      new RegExp(`refusals_total{code="${code}"} 1`),
    );
  });
});

describe("100-continue", () => {
  const post =
    "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 2\r\n";
  test("is said when the request goes on, and not when it is refused", async () => {
    const app = await startApp((req, res) =>
      req.resume().on("end", () => res.end(`expect ${req.headers.expect}`)),
    );
    const { router } = await start({
      cells: { a: { endpoints: [app.url] } },
      tenants: { acme: "a" },
    });
    const good = await rawExchange(router.port, `${post}x-tenant-id: acme\r\n\r\nhi`);
    expect(good.text).toMatch(
      /^HTTP\/1.1 100 Continue\r\n\r\nHTTP\/1.1 200 OK[\s\S]*expect undefined/,
    );
    const bad = await rawExchange(router.port, `${post}x-tenant-id: nobody\r\n\r\n`);
    expect(bad.text).toMatch(/^HTTP\/1.1 404/);
  });
});

describe("WebSocket", () => {
  const upgrade = (tenant: string) =>
    `GET /ws//x HTTP/1.1\r\nHost: x\r\nx-tenant-id: ${tenant}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nTrailer: x\r\nX-Cell: evil\r\n\r\n`;
  const open = (port: number, text: string) => {
    const got = { text: "", closed: false };
    const socket = connect(port, "127.0.0.1", () => socket.write(text));
    socket.on("data", (data) => {
      got.text += data.toString("latin1");
    });
    socket.on("error", () => {});
    socket.on("close", () => {
      got.closed = true;
    });
    closers.push(() => socket.destroy());
    return { got, socket };
  };
  const startTunnelApp = async (onUpgrade: (head: string, socket: Socket) => void) => {
    const app = await startApp((_req, res) => res.end("plain"));
    app.server.on("upgrade", (req, socket: Socket) => {
      closers.push(() => socket.destroy());
      socket.on("error", () => {});
      onUpgrade(`${req.url} ${JSON.stringify(req.headers)}`, socket);
    });
    return start({ cells: { a: { endpoints: [app.url] } }, tenants: { acme: "a" } });
  };
  const accept =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\nX-Cell: evil\r\n\r\n";

  test("tunnels bytes both ways after the cell's 101, and ends with either side", async () => {
    let head = "";
    let inner: Socket | undefined;
    const { router, lines } = await startTunnelApp((seen, socket) => {
      head = seen;
      inner = socket;
      socket.write(accept);
      socket.on("data", (data) => socket.write(`echo ${data}`));
    });
    const { got, socket } = open(router.port, upgrade("acme"));
    await until(() => expect(got.text).toMatch(/^HTTP\/1.1 101[\s\S]*\r\n\r\n$/));
    expect(got.text).toMatch(/x-cell: a\r\n/);
    expect(got.text).not.toMatch(/evil/);
    expect(head).toMatch(/^\/ws\/\/x [\s\S]*"x-tenant-id":"acme"/);
    expect(head).not.toMatch(/evil|trailer/);
    socket.write("ping");
    await until(() => expect(got.text).toMatch(/echo ping$/));
    expect((await admin(router, "/metrics")).text).toMatch(/ws_open 1/);
    inner?.destroy();
    await until(() => expect(got.closed).toBe(true));
    await until(() =>
      expect(lines.at(-1)).toMatchObject({ event: "request.done", status: 101, tenant: "acme" }),
    );
  });

  test("a client that goes before the answer takes the cell's connection with it, and the router lives", async () => {
    let cut: boolean | undefined;
    const { router } = await startTunnelApp((_head, socket) => {
      cut = false;
      socket.resume().on("end", () => {
        cut = true;
      });
    });
    const { socket } = open(router.port, upgrade("acme"));
    await until(async () => expect((await admin(router, "/metrics")).text).toMatch(/ws_open 1/));
    socket.resetAndDestroy();
    await until(async () => expect((await admin(router, "/metrics")).text).toMatch(/ws_open 0/));
    await until(() => expect(cut).toBe(true));
    expect((await rawExchange(router.port, get("acme"))).text).toMatch(/200 OK/);
  });

  test("another answer than 101 comes through whole, and ends the connection", async () => {
    const { router } = await startTunnelApp((_head, socket) => {
      socket.end(
        "HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
      );
    });
    const { text } = await rawExchange(router.port, upgrade("acme"));
    expect(text).toMatch(/^HTTP\/1.1 403 Forbidden[\s\S]*\r\n\r\nno$/);
    expect(text).not.toMatch(/transfer-encoding/i);
  });

  test("an unknown tenant and a dead cell are refused like any request", async () => {
    const dead = await startApp(() => {});
    await closeServer(dead.server);
    const { router } = await start({
      cells: { a: { endpoints: [dead.url] } },
      tenants: { acme: "a" },
    });
    expect((await rawExchange(router.port, upgrade("nobody"))).text).toMatch(
      /^HTTP\/1.1 404[\s\S]*TENANT_UNKNOWN/,
    );
    expect((await rawExchange(router.port, upgrade("acme"))).text).toMatch(
      /^HTTP\/1.1 503[\s\S]*CELL_UNREACHABLE/,
    );
    expect((await rawExchange(router.port, get("acme"))).text).toMatch(/503/);
  });
});

describe("the end", () => {
  test("what is in flight is finished, nothing new is taken, and readiness falls first", async () => {
    let finish: (() => void) | undefined;
    const app = await startApp((_req, res) => {
      finish = () => void res.end("finished");
    });
    const table = { cells: { a: { endpoints: [app.url] } }, tenants: { acme: "a" } };
    const { router, lines } = await start(table);
    const answer = rawExchange(router.port, get("acme").replace("Connection: close\r\n", ""));
    await until(() => expect(finish).toBeDefined());
    const closing = router.close();
    await until(async () =>
      expect((await admin(router, "/readyz")).text).toMatch(/^HTTP\/1.1 503[\s\S]*draining/),
    );
    finish?.();
    expect((await answer).text).toMatch(/Connection: close[\s\S]*finished/i);
    await closing;
    await expect(rawExchange(router.port, get("acme"))).resolves.toMatchObject({ text: "" });
    expect(lines.at(-1)?.event).toBe("router.stopped");
  });
});
