/** Bytes into a whole router and bytes out of it: what the parts of the request path do together. */
import { connect } from "node:net";
import { expect, test, vi } from "vitest";
import { rawExchange, startRawPeer } from "../runtime/http/peers.fixture.ts";
import { createBench, metric, until } from "./running.fixture.ts";

// Real sockets on a machine that may be busy: conditions are waited for, not times.
vi.setConfig({ testTimeout: 30_000, hookTimeout: 30_000 });

const bench = createBench();
const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const head = (rest: string = "", line: string = "GET /p HTTP/1.1") =>
  `${line}\r\nHost: h\r\nX-Tenant-Id: acme\r\n${rest}\r\n`;
const last = "Connection: close\r\n";

/** A router before a cell that answers each head with `answer`. */
async function start(answer: string = ok, flags: Record<string, unknown> = {}) {
  const peer = await startRawPeer((socket, soFar) => {
    if (soFar.includes("\r\n\r\n")) socket.write(answer, "latin1");
  });
  bench.closers.push(peer.close);
  const table = { cells: { a: { endpoints: [peer.url] } }, tenants: { acme: "a" } };
  const { router } = await bench.startStatic(table, flags);
  return { peer, router, ask: (text: string) => rawExchange(router.port, text) };
}

test("hints of a cell arrive before its answer, but not at HTTP/1.0, and no other interim answer does", async () => {
  const { ask } = await start(
    `HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nX-Cell: b\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: no link\r\n\r\n${ok}`,
  );
  expect((await ask(head(last))).text).toMatch(
    /^HTTP\/1.1 103 Early Hints\r\nLink: <\/a>; rel=preload\r\n\r\nHTTP\/1.1 200 OK\r\n[\s\S]*ok$/,
  );
  expect((await ask(head("", "GET /p HTTP/1.0"))).text).toMatch(/^HTTP\/1.1 200 OK\r\n/);
});

test.each([
  ["another coding", "Transfer-Encoding: gzip\r\n"],
  ["another coding below chunks", "Transfer-Encoding: gzip, chunked\r\n"],
  ["chunks twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"],
  ["two lengths", "Content-Length: 1\r\nContent-Length: 2\r\n"],
  ["a length that is none", "Content-Length: 2x\r\n"],
])("an answer with %s is the cell's fault", async (_name, framing) => {
  const { ask } = await start(`HTTP/1.1 200 OK\r\n${framing}\r\n2\r\nok\r\n0\r\n\r\n`);
  const { text } = await ask(head(last));
  expect(text).toMatch(/^HTTP\/1.1 502 /);
  expect(text).toMatch(/proxy-status: cellfleet-router; error=http_protocol_error/);
});

test("bytes of headers stay what they are, both ways", async () => {
  const { ask, peer } = await start(ok.replace("\r\n\r\n", "\r\nX-Name: caf\xe9\r\n\r\n"));
  expect((await ask(head(`X-Name: th\xe9\r\n${last}`))).text).toContain("X-Name: caf\xe9\r\n");
  expect(peer.seen.join()).toContain("X-Name: th\xe9\r\n");
});

test("behind an answer that ends the connection nothing is carried", async () => {
  const { ask, peer } = await start();
  const next = head("", "GET /next HTTP/1.1");
  for (const first of [
    head("Host: other\r\n"),
    head("Expect: more\r\n"),
    head("Upgrade: h2c\r\nConnection: Upgrade\r\n", "GET /first HTTP/1.1"),
    head("Proxy-Connection: keep-alive\r\nConnection: close\r\n", "GET /first HTTP/1.0"),
  ]) {
    expect((await ask(first + next)).text.match(/HTTP\/1.1/g)).toHaveLength(1);
  }
  expect(peer.seen.join()).toContain("/first");
  expect(peer.seen.join()).not.toContain("/next");
});

test("the rest of a body behind a refused upgrade is no request", async () => {
  const { router, peer } = await start();
  const socket = connect(router.port, "127.0.0.1");
  const closed = new Promise((resolve) => socket.once("close", resolve));
  const hidden = head("", "GET /hidden HTTP/1.1");
  socket.on("error", () => {});
  socket.write(
    head("Upgrade: h2c\r\nConnection: Upgrade\r\n", "GET /first HTTP/1.1") +
      head(`Content-Length: ${hidden.length}\r\n`, "POST /second HTTP/1.1"),
  );
  await new Promise((resolve) => socket.once("data", resolve));
  socket.write(hidden);
  socket.resume();
  await closed;
  expect(peer.seen.join()).toContain("/first");
  expect(peer.seen.join()).not.toMatch(/second|hidden/);
});

test("whole requests are answered before the bad bytes behind them end the connection", async () => {
  const { ask } = await start();
  const { text } = await ask(`${head()}${head()}nonsense\r\n\r\n`);
  expect(text.match(/HTTP\/1.1 \d+/g)).toEqual(["HTTP/1.1 200", "HTTP/1.1 200"]);
});

test("a request is answered once, also when its body breaks after the answer", async () => {
  const { router } = await start();
  let text = "";
  const socket = connect(router.port, "127.0.0.1");
  const closed = new Promise((resolve) => socket.once("close", resolve));
  socket.on("error", () => {});
  socket.on("data", (data) => {
    text += data;
  });
  const post = head("Transfer-Encoding: chunked\r\n", "POST /p HTTP/1.1");
  socket.write(post.replace("acme", "nobody"));
  await until(() => expect(text).toContain("TENANT_UNKNOWN"));
  socket.write("zz\r\n");
  await closed;
  expect(text.match(/HTTP\/1.1 \d+/g)).toEqual(["HTTP/1.1 404"]);
});

test("a body that comes too slowly or stops is refused, counted, and never whole for the cell", async () => {
  const { router, peer, ask } = await start("", { bodyIdleMs: 50 });
  const { text } = await ask(`${head("Content-Length: 10\r\n", "POST /p HTTP/1.1")}hello`);
  expect(text).toMatch(
    /^HTTP\/1.1 408 [\s\S]*x-cellfleet-error: REQUEST_TIMEOUT[\s\S]*connection: close/i,
  );
  const series = 'cellfleet_router_request_bodies_broken_total{reason="body-stalled"}';
  await until(async () => expect(await metric(router, series)).toBe(1));
  await until(() => expect(peer.open()).toBe(0));
});

test("names of the connection are gone in any spelling", async () => {
  const { ask, peer } = await start();
  await ask(
    head(`Transfer_Encoding: chunked\r\nContent_Length: 9\r\nProxy_Connection: x\r\n${last}`),
  );
  expect(peer.seen.join()).not.toMatch(/_encoding|_length|_connection/i);
});
