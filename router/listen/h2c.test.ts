/** Cleartext HTTP/2 into a router, HTTP/1.1 out of it: the same rules, the same answers. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type RequestListener } from "node:http";
import {
  type ClientHttp2Session,
  connect,
  type IncomingHttpHeaders,
  type OutgoingHttpHeaders,
} from "node:http2";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { systemClock } from "../../runtime/clock.ts";
import { startRawPeer } from "../../runtime/http/peers.fixture.ts";
import { createLog } from "../../runtime/log.ts";
import { closeServer, listenOn } from "../../table/table.fixture.ts";
import { parseRouterConfig } from "../config.ts";
import type { RouterEvents } from "../observe/events.ts";
import { type Router, startRouter } from "../run.ts";

// Real sockets and a real disk on a machine that may be busy: conditions are waited for, not times.
vi.setConfig({ testTimeout: 30_000, hookTimeout: 30_000 });

let dir = "";
const closers: Array<() => unknown> = [];
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "cellfleet-h2c-"));
});
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
  await rm(dir, { recursive: true, force: true });
});

async function start(url: string): Promise<{ router: Router; session: ClientHttp2Session }> {
  const file = join(dir, "table.json");
  const table = { cells: { a: { endpoints: [url] } }, tenants: { acme: "a" } };
  await writeFile(file, JSON.stringify(table));
  const any = "127.0.0.1:0";
  const config = parseRouterConfig({
    listen: any,
    admin: any,
    h2c: any,
    table: file,
    ...{ drainDelayMs: 0, drainAnnounceMs: 0, drainMs: 2000, shedLateMs: 0 },
  });
  const log = createLog<RouterEvents>({
    clock: systemClock,
    part: "router",
    level: "error",
    write: () => {},
  });
  const router = await startRouter({ config, log, token: "" });
  closers.push(router.close);
  const session = connect(`http://127.0.0.1:${router.h2cPort}`);
  session.on("error", () => {});
  closers.push(() => session.destroy());
  return { router, session };
}

async function startApp(serve: RequestListener): Promise<string> {
  const server = createServer(serve);
  closers.push(() => closeServer(server));
  return `http://127.0.0.1:${await listenOn(server, 0)}`;
}

type Answer = {
  headers: IncomingHttpHeaders;
  text: string;
  ended: boolean;
  rst: number | undefined;
};
const ask = (
  session: ClientHttp2Session,
  headers: OutgoingHttpHeaders,
  body?: Buffer,
): Promise<Answer> =>
  new Promise((resolve) => {
    const answer: Answer = { headers: {}, text: "", ended: false, rst: undefined };
    const stream = session.request(
      { ":path": "/x", "x-tenant-id": "acme", ...headers },
      { endStream: body === undefined },
    );
    stream.on("response", (got) => Object.assign(answer, { headers: got }));
    stream.on("data", (chunk) => {
      answer.text += chunk;
    });
    stream.on("end", () => {
      answer.ended = stream.rstCode === 0;
    });
    stream.on("error", () => {});
    stream.on("close", () => resolve({ ...answer, rst: stream.rstCode }));
    if (body !== undefined) stream.end(body);
  });

test("a stream is a request like any other", async () => {
  const url = await startApp((req, res) => {
    res.setHeader("set-cookie", ["a=1", "b=2"]);
    res.setHeader("connection", "x-gone");
    res.setHeader("x-gone", "1");
    res.end(JSON.stringify(req.headers));
  });
  const { session } = await start(url);
  const { headers, text } = await ask(session, {
    cookie: ["a=1", "b=2"],
    "x-cellfleet-epoch": "9",
  });
  expect(headers).toMatchObject({ ":status": 200, "x-cell": "a", "set-cookie": ["a=1", "b=2"] });
  expect(headers).not.toHaveProperty("x-gone");
  const seen = JSON.parse(text);
  expect(seen).toMatchObject({
    "x-tenant-id": "acme",
    cookie: "a=1; b=2",
    via: "2 cellfleet-router",
  });
  expect(seen.host).toMatch(/^127.0.0.1:\d+$/);
  expect(text).not.toMatch(/x-cellfleet|":path"|":authority"/);
});

test("bodies stream in both directions, many streams at once", async () => {
  const url = await startApp((req, res) => req.pipe(res));
  const { session } = await start(url);
  const body = Buffer.alloc(1024 * 1024, "y");
  const answers = await Promise.all(
    [...Array(8).keys()].map(() => ask(session, { ":method": "POST" }, body)),
  );
  expect(answers.map(({ text, ended }) => [text.length, ended])).toEqual(
    answers.map(() => [body.length, true]),
  );
});

test.each([
  ["an unknown tenant", { "x-tenant-id": "nobody" }, 404, "TENANT_UNKNOWN"],
  [
    "a host that contradicts the authority",
    { ":authority": "acme.test", host: "globex.test" },
    ...([400, "REQUEST_INVALID"] as const),
  ],
  ["a tenant named twice", { "x-tenant-id": ["acme", "acme"] }, 400, "TENANT_CONFLICT"],
])("%s is refused", async (_name, wrong, status, code) => {
  const { session } = await start("http://127.0.0.1:1");
  const { headers } = await ask(session, wrong);
  expect(headers).toMatchObject({ ":status": status, "x-cellfleet-error": code });
});

test("a host without an authority is the authority", async () => {
  const { session } = await start(await startApp((req, res) => void res.end(req.headers.host)));
  const { headers, text } = await ask(session, { host: "globex.test" });
  expect([headers[":status"], text]).toEqual([200, "globex.test"]);
});

test("an answer that the cell cuts off is a reset stream, and the session lives", async () => {
  const peer = await startRawPeer((socket) =>
    socket.end("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
  );
  closers.push(peer.close);
  const { session } = await start(peer.url);
  const { text, rst, ended } = await ask(session, {});
  expect([text, rst, ended]).toEqual(["hello", 2, false]);
  expect((await ask(session, { "x-tenant-id": "nobody" })).headers[":status"]).toBe(404);
});

test("a stream that its client resets is cancelled at the cell", async () => {
  const peer = await startRawPeer(() => {});
  closers.push(peer.close);
  const { session } = await start(peer.url);
  const stream = session.request({ ":path": "/x", "x-tenant-id": "acme" });
  stream.on("error", () => {});
  await vi.waitFor(() => expect(peer.open()).toBe(1));
  stream.close(8);
  await vi.waitFor(() => expect(peer.open()).toBe(0));
});

test("at the end streams in flight are finished", async () => {
  let finish: (() => void) | undefined;
  const url = await startApp((_req, res) => {
    finish = () => void res.end("finished");
  });
  const { router, session } = await start(url);
  const answer = ask(session, {});
  await vi.waitFor(() => expect(finish).toBeDefined());
  const closing = router.close();
  await vi.waitFor(() => expect(session.closed).toBe(true));
  finish?.();
  expect((await answer).text).toBe("finished");
  await closing;
});
