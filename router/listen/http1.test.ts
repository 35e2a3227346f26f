/** The limits of the HTTP/1 listener, each met once from outside. */
import { expect, test, vi } from "vitest";
import { errorBodySchema } from "../../contract/errors.ts";
import { peerOf } from "./connections.ts";
import { createListenerBench, type Handler, ok, openRaw } from "./listener.fixture.ts";

const { start } = createListenerBench();
const get = (path = "/", more = "") => `GET ${path} HTTP/1.1\r\nHost: acme.test\r\n${more}\r\n`;
/** Statuses and codes of all answers in what came. */
const answers = (text: string) =>
  [...text.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => Number(status));
const codeIn = (text: string) => {
  const body = text.slice(text.indexOf("\r\n\r\n") + 4);
  return errorBodySchema.parse(JSON.parse(body)).error.code;
};
const until = <T>(check: () => T | Promise<T>) =>
  vi.waitFor(check, { timeout: 25_000, interval: 10 });

test.each([
  ["no HTTP at all", "\u0016\u0003\u0001nonsense\r\n\r\n", 400, "REQUEST_INVALID"],
  ["a long field", get("/", `x: ${"y".repeat(3000)}\r\n`), 431, "HEADERS_TOO_LARGE"],
  ["a long target", get(`/${"y".repeat(3000)}`), 414, "URL_TOO_LONG"],
  ["a target without an end", `GET /${"y".repeat(3000)}`, 414, "URL_TOO_LONG"],
  ["CONNECT", "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 405, "METHOD_NOT_ALLOWED"],
])("%s is refused with a code, and the connection ends", async (_name, bytes, status, code) => {
  const { port, told } = await start(ok, { limits: { headerBytesMax: 2000 } });
  const client = openRaw(port, bytes);
  await client.closed;
  expect(answers(client.text())).toEqual([status]);
  expect(client.text()).toMatch(/connection: close/i);
  expect([codeIn(client.text()), ...told]).toEqual([code, code]);
});

test("a head that does not come to its end in time is refused", async () => {
  const { port, told } = await start(ok, { limits: { headersMs: 150 } });
  const slow = openRaw(port, "GET / HTTP/1.1\r\nHost: a");
  await slow.closed;
  expect(slow.text()).toMatch(/^HTTP\/1.1 408 /);
  expect(codeIn(slow.text())).toBe("REQUEST_TIMEOUT");
  expect(told).toEqual(["REQUEST_TIMEOUT"]);
});

test("after stray line ends a request is served, and the time for a head runs again", async () => {
  const { port } = await start(ok, { limits: { headersMs: 150 } });
  const client = openRaw(port, `\r\n${get()}`);
  await until(() => expect(client.text()).toMatch(/ok$/));
  client.socket.write(`\r\n\r\n${get("/again")}`);
  await until(() => expect(answers(client.text())).toEqual([200, 200]));
  client.socket.write("\r\nGET / HT");
  await client.closed;
  expect(answers(client.text())).toEqual([200, 200, 408]);
});

test("an idle connection is closed after its time, also if line ends came", async () => {
  const { port } = await start(ok, { limits: { keepAliveMs: 200 } });
  const clients = [openRaw(port, get()), openRaw(port, get())];
  await until(() => expect(clients[1]?.text()).toMatch(/ok$/));
  clients[1]?.socket.write("\r\n");
  await Promise.all(clients.map(({ closed }) => closed));
  expect(clients.map(({ text }) => answers(text()))).toEqual([[200], [200]]);
});

/** Answers as the request path does: at once, and for good. */
const refuseAll: Handler = (_req, res) => {
  res.writeHead(400, { connection: "close" });
  res.end("no");
};

test.each([
  ["an unknown coding with a body", "Transfer-Encoding: gzip\r\n\r\n5\r\nhello\r\n0\r\n\r\n"],
  ["junk after the head", "Content-Length: 0\r\n\r\n\u0000\u0001junk\r\n\r\n"],
  ["a body that is no chunk", "Transfer-Encoding: chunked\r\n\r\nzz\r\nhello"],
])("%s gets one answer", async (_name, rest) => {
  const { port } = await start(refuseAll);
  const client = openRaw(port, `POST / HTTP/1.1\r\nHost: a\r\n${rest}`);
  await client.closed;
  expect(answers(client.text())).toEqual([400]);
});

test("an answer that streams while its request breaks is cut, not ended", async () => {
  const { port } = await start((_req, res) => void res.write("first"));
  const head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
  const client = openRaw(port, head);
  await until(() => expect(client.text()).toMatch(/first/));
  client.socket.write("zz\r\n");
  await client.closed;
  expect(client.text()).not.toMatch(/\r\n0\r\n\r\n$|HTTP\/1.1 400/);
});

test("beyond all connections, and beyond those of one address, nobody is let in", async () => {
  const few = await start(ok, { perPeerMax: 2 });
  const kept = [openRaw(few.port, get()), openRaw(few.port, get())];
  await until(() => expect(kept.map(({ text }) => answers(text()))).toEqual([[200], [200]]));
  const third = openRaw(few.port, get());
  await third.closed;
  expect([third.text(), ...few.told]).toEqual(["", "peer"]);
  // A place that was left is free again.
  kept[0]?.socket.destroy();
  await until(() => expect(few.connections.open()).toBe(1));
  const next = openRaw(few.port, get());
  await until(() => expect(answers(next.text())).toEqual([200]));

  const trusting = await start(ok, { clientsMax: 3, perPeerMax: 1, isTrusted: () => true });
  const all = [1, 2, 3].map(() => openRaw(trusting.port, get()));
  await until(() => expect(all.map(({ text }) => answers(text()))).toEqual([[200], [200], [200]]));
  await openRaw(trusting.port, get()).closed;
  expect(trusting.told).toEqual(["total"]);
});

test("a peer is an address, of IPv6 a network", () => {
  const peers = [
    "1.2.3.4",
    "::ffff:1.2.3.4",
    "2001:db8:1:2:3::9",
    "2001:db8:1:2::",
    "::1",
    "fe80::1%eth0",
  ];
  expect(peers.map(peerOf)).toEqual([
    ...["1.2.3.4", "1.2.3.4", "2001:db8:1:2", "2001:db8:1:2", "0:0:0:0", "fe80:0:0:0"],
  ]);
});

test("after so many requests a connection is closed in good order", async () => {
  const { port } = await start(ok, { requestsPerConnectionMax: 2 });
  const client = openRaw(port, get());
  await until(() => expect(client.text()).toMatch(/Connection: keep-alive[\s\S]*ok$/));
  client.socket.write(get());
  await client.closed;
  expect(client.text()).toMatch(/Connection: close\r\n[\s\S]*ok$/);
});

test("two listeners share an address", async () => {
  const one = await start(ok, { reusePort: true });
  const two = await start(ok, { reusePort: true, port: one.port });
  expect(two.port).toBe(one.port);
});
