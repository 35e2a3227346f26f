/** Bodies through a whole router: at once, in both directions, bounded, and never whole when they were not. */
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from "node:http";
import { connect as connectHttp2, constants as http2 } from "node:http2";
import { connect, createServer, type Socket } from "node:net";
import { describe, expect, test, vi } from "vitest";
import { type Clock, nextTurn, systemClock } from "../runtime/clock.ts";
import { collectGarbage } from "../runtime/garbage.fixture.ts";
import { listenPort, rawExchange } from "../runtime/http/peers.fixture.ts";
import { openRaw } from "./listen/listener.fixture.ts";
import { codeOf, createBench, metric, until } from "./running.fixture.ts";

// Real sockets on a machine that may be busy: conditions are waited for, not times.
vi.setConfig({ testTimeout: 30_000, hookTimeout: 30_000 });

/** A minute of the router's limits is so much less of ours. */
const hurry = 200;
const hurriedClock: Clock = {
  nowMs: systemClock.nowMs,
  monotonicMs: () => systemClock.monotonicMs() * hurry,
  after: (ms, run, options) => systemClock.after(ms / hurry, run, options),
  sleep: (ms, signal) => systemClock.sleep(ms / hurry, signal),
};
/** What is not to be hurried by it. */
const patient = { connectMs: 60_000, headMs: 3_600_000, queueMs: 60_000, shedLateMs: 0 };

const bench = createBench();
const hurried = createBench({ clock: hurriedClock });

const table = (url: string) => ({ cells: { a: { endpoints: [url] } }, tenants: { acme: "a" } });
const MB = 1_000_000;
const head = (rest: string = "", line: string = "GET /p HTTP/1.1") =>
  `${line}\r\nHost: h\r\nX-Tenant-Id: acme\r\n${rest}\r\n`;
const post = (rest: string) => head(rest, "POST /p HTTP/1.1");
const chunkedPost = post("Transfer-Encoding: chunked\r\n");

type Seen = { req: IncomingMessage; res: ServerResponse };

/** A cell that leaves each request to the test. */
async function startCell(flags: Record<string, unknown> = {}, on: typeof bench = bench) {
  const seen: Seen[] = [];
  const url = await bench.startApp((req, res) => {
    req.on("error", () => {});
    res.on("error", () => {});
    seen.push({ req, res });
  });
  const { router } = await on.startStatic(table(url), flags);
  const next = async (nth: number = 0): Promise<Seen> => {
    await until(() => expect(seen.length).toBeGreaterThan(nth));
    const one = seen[nth];
    if (one === undefined) throw new Error("nobody came");
    return one;
  };
  return { router, next };
}

/** A cell that speaks bytes, and may keep its reading side open when it has said all. */
async function startRawCell(answer: (socket: Socket, soFar: string) => void) {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    let soFar = "";
    bench.closers.push(async () => socket.destroy());
    socket.on("error", () => socket.destroy());
    socket.on("data", (data) => {
      soFar += data.toString("latin1");
      answer(socket, soFar);
    });
  });
  const port = await listenPort(server);
  bench.closers.push(async () => server.close());
  const { router } = await bench.startStatic(table(`http://127.0.0.1:${port}`));
  return router;
}

function open(port: number, bytes: string) {
  const client = openRaw(port, bytes);
  bench.closers.push(async () => client.socket.destroy());
  return client;
}

/** How a client's connection ends: by a FIN, or by a reset. */
const endOf = (socket: Socket) =>
  new Promise<"end" | "reset">((resolve) => {
    socket.once("end", () => resolve("end"));
    socket.once("error", () => resolve("reset"));
  });

/** Resolves when `count` has grown above zero and grows no more. */
async function stalled(count: () => number): Promise<number> {
  let before = -1;
  await vi.waitFor(
    () => {
      const now = count();
      const still = now > 0 && now === before;
      before = now;
      if (!still) throw new Error("still flowing");
    },
    { timeout: 10_000, interval: 200 },
  );
  return before;
}

/** What is held when nothing moves: collected buffers are given back some turns later. */
async function memoryHeld() {
  for (let turn = 0; turn < 3; turn += 1) {
    collectGarbage();
    await nextTurn();
  }
  const { rss, arrayBuffers } = process.memoryUsage();
  return { rss, arrayBuffers };
}

/** Writes the same bytes over and over, as the socket takes them. */
function pour(to: Socket | ServerResponse, bytes: number): () => number {
  const chunk = Buffer.alloc(256 * 1024, 7);
  let sent = 0;
  const more = () => {
    while (sent < bytes && !to.destroyed) {
      const piece = chunk.subarray(0, Math.min(chunk.length, bytes - sent));
      sent += piece.length;
      if (to.write(piece)) continue;
      to.once("drain", more);
      return;
    }
  };
  more();
  return () => sent;
}

describe("an event stream", () => {
  const events = { "content-type": "text/event-stream; charset=utf-8" };

  test("arrives at once: its head alone, each event alone; its client's end reaches the cell", async () => {
    const { router, next } = await startCell();
    const client = open(router.port, head("Accept: text/event-stream\r\n"));
    const { req, res } = await next();
    res.writeHead(200, events).flushHeaders();
    await until(() => expect(client.text()).toMatch(/^HTTP\/1.1 200 OK\r\n[\s\S]*\r\n\r\n$/));
    for (const event of ["data: 1\n\n", "data: 2\n\n"]) {
      res.write(event);
      await until(() => expect(client.text()).toContain(event));
    }
    const gone = new Promise((resolve) => req.once("close", resolve));
    client.socket.destroy();
    await gone;
    expect(res.writableEnded).toBe(false);
  });

  test("looks cut off when its cell dies", async () => {
    const { router, next } = await startCell();
    const answer = rawExchange(router.port, head());
    const { res } = await next();
    res.writeHead(200, events).write("data: 1\n\n");
    setImmediate(() => res.socket?.destroy());
    const { text } = await answer;
    expect(text).toMatch(/data: 1/);
    expect(text).not.toMatch(/\r\n0\r\n\r\n$/);
  });

  test("may be silent for longer than another answer", async () => {
    const { router, next } = await startCell(patient, hurried);
    const eventful = open(router.port, head());
    const { res: stream } = await next(0);
    stream.writeHead(200, events).write("data: 1\n\n");
    await until(() => expect(eventful.text()).toContain("data: 1"));
    // It begins later, is as silent, and is over first.
    const plain = open(router.port, head());
    const { res: body } = await next(1);
    body.writeHead(200).write("some");
    await plain.closed;
    expect(plain.text()).toContain("some");
    expect(plain.text()).not.toMatch(/\r\n0\r\n\r\n$/);
    expect(eventful.isClosed()).toBe(false);
    stream.end("data: 2\n\n");
    await until(() => expect(eventful.text()).toMatch(/data: 2[\s\S]*\r\n0\r\n\r\n$/));
  });
});

describe("backpressure", () => {
  // What the kernel keeps of two connections, and little more.
  const underWayMax = 64 * MB;
  const buffersMax = 16 * MB;
  const rssMax = 150 * MB;

  /** Reads nothing, then half of all, then the rest; looks at memory in between, when nothing moves. */
  async function readInSteps(
    reader: Socket | IncomingMessage,
    size: number,
    sent: () => number,
  ): Promise<number> {
    const begin = await memoryHeld();
    let got = 0;
    let half = false;
    const ended = new Promise((resolve) => reader.once("end", resolve));
    reader.on("data", (chunk: Buffer) => {
      got += chunk.length;
      if (half || got < size / 2) return;
      half = true;
      reader.pause();
    });
    reader.pause();
    expect(await stalled(sent)).toBeLessThan(underWayMax);
    reader.resume();
    await until(() => expect(half).toBe(true));
    expect((await stalled(sent)) - got).toBeLessThan(underWayMax);
    const { rss, arrayBuffers } = await memoryHeld();
    expect(arrayBuffers - begin.arrayBuffers).toBeLessThan(buffersMax);
    expect(rss - begin.rss).toBeLessThan(rssMax);
    reader.resume();
    await ended;
    return got;
  }

  test("a cell that does not read stops the upload; what waits is bounded, and all of it arrives", async () => {
    const size = 100 * MB;
    const { router, next } = await startCell();
    const client = open(router.port, post(`Content-Length: ${size}\r\n`));
    const sent = pour(client.socket, size);
    const { req, res } = await next();
    expect(await readInSteps(req, size, sent)).toBe(size);
    res.end("whole");
    await until(() => expect(client.text()).toMatch(/^HTTP\/1.1 200 OK[\s\S]*whole/));
  });

  test("a client that does not read stops the cell; what waits is bounded, and all of it arrives", async () => {
    const size = 200 * MB;
    const { router, next } = await startCell();
    const socket = connect(router.port, "127.0.0.1");
    bench.closers.push(async () => socket.destroy());
    socket.on("error", () => {});
    socket.pause();
    socket.write(head("Connection: close\r\n"));
    const { res } = await next();
    res.writeHead(200, { "content-length": size });
    const sent = pour(res, size);
    // With a head before it.
    expect(await readInSteps(socket, size, sent)).toBeGreaterThan(size);
  });
});

describe("one side only", () => {
  test("a client that ends its side before the answer has gone, for the cell too", async () => {
    const { router, next } = await startCell();
    const socket = connect({ port: router.port, host: "127.0.0.1", allowHalfOpen: true });
    bench.closers.push(async () => socket.destroy());
    let text = "";
    socket.on("data", (data) => {
      text += data;
    });
    const ended = endOf(socket);
    socket.write(head());
    const { req } = await next();
    const gone = new Promise((resolve) => req.once("close", resolve));
    socket.end();
    await Promise.all([gone, ended]);
    expect(text).toBe("");
  });

  test("a cell that ends its side behind its answer has answered, also before the request is whole", async () => {
    const router = await startRawCell((socket, soFar) => {
      if (soFar.includes("begin") && !socket.writableEnded) {
        socket.end("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nto the end");
      }
    });
    const client = open(router.port, `${chunkedPost}5\r\nbegin\r\n`);
    await until(() => expect(client.text()).toMatch(/to the end\r\n0\r\n\r\n$/));
    expect(client.text()).toMatch(/^HTTP\/1.1 200 OK\r\n/);
  });
});

describe("an upload that is refused never looks whole to its cell", () => {
  const broken = (reason: string) =>
    `cellfleet_router_request_bodies_broken_total{reason="${reason}"}`;

  test("413 by its length: the cell hears nothing of it", async () => {
    const { router, next } = await startCell({ bodyBytesMax: 1000 });
    const { text } = await rawExchange(router.port, post("Content-Length: 1001\r\n"));
    expect(text).toMatch(/^HTTP\/1.1 413 [\s\S]*x-cellfleet-error: BODY_TOO_LARGE/);
    expect(await metric(router, broken("body-too-large"))).toBe(1);
    const after = open(router.port, head());
    // The first that the cell sees is the next request.
    expect((await next()).req.method).toBe("GET");
    after.socket.destroy();
  });

  test.each([
    ["413 as it streams", "body-too-large", { bodyBytesMax: 1000 }, 413, "x".repeat(1001)],
    ["408 when it stops", "body-stalled", { bodyIdleMs: 2000, bodyRateMin: 0 }, 408, undefined],
    ["408 when it is too slow", "body-slow", { bodyRateMin: 1e9 }, 408, "more"],
  ])("%s", async (_name, reason, flags, status, more) => {
    const { router, next } = await startCell({ ...patient, ...flags }, hurried);
    const client = open(router.port, `${chunkedPost}5\r\nbegin\r\n`);
    const { req } = await next();
    let text = "";
    let whole = false;
    req.on("data", (data) => {
      text += data;
    });
    req.on("end", () => {
      whole = true;
    });
    const closed = new Promise((resolve) => req.once("close", resolve));
    await until(() => expect(text).toBe("begin"));
    const chunk = more === undefined ? "" : `${more.length.toString(16)}\r\n${more}\r\n`;
    await until(() => {
      if (!client.text().startsWith("HTTP/1.1 ")) {
        client.socket.write(chunk);
        throw new Error("waiting");
      }
    });
    expect(client.text()).toMatch(new RegExp(`^HTTP/1.1 ${status} `));
    await closed;
    expect([whole, req.complete]).toEqual([false, false]);
    expect(await metric(router, broken(reason))).toBe(1);
  });
});

describe("an answer that its cell cuts off is not whole for the client", () => {
  const chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n";
  test.each([
    ["with a length", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nsome", "1.1"],
    ["in chunks", chunked, "1.1"],
    ["in chunks, to HTTP/1.0", chunked, "1.0"],
    ["with a length, to HTTP/1.0", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nsome", "1.0"],
    ["until the end of the connection", "HTTP/1.1 200 OK\r\n\r\nsome", "1.1"],
    ["until the end of the connection, to HTTP/1.0", "HTTP/1.0 200 OK\r\n\r\nsome", "1.0"],
  ])("%s", async (_name, answer, version) => {
    let inside: Socket | undefined;
    const router = await startRawCell((socket, soFar) => {
      if (!soFar.endsWith("\r\n\r\n")) return;
      socket.write(answer);
      inside = socket;
    });
    const client = open(router.port, head("", `GET /p HTTP/${version}`));
    const ended = endOf(client.socket);
    await until(() => expect(client.text()).toContain("some"));
    inside?.resetAndDestroy();
    await client.closed;
    expect(client.text()).not.toMatch(/\r\n0\r\n\r\n$/);
    // Without a frame of its own only the way in which it ends tells.
    const isFramed = /content-length|transfer-encoding/i.test(client.text());
    expect(isFramed || (await ended) === "reset").toBe(true);
  });
});

const everyByte = Buffer.from(Array.from({ length: 256 }, (_, code) => code));

test("frames of gRPC-web, trailers among them, pass byte for byte, both ways", async () => {
  const { router, next } = await startCell();
  const grpcFrame = (flag: number, payload: Buffer) => {
    const prefix = Buffer.alloc(5);
    prefix.writeUInt8(flag);
    prefix.writeUInt32BE(payload.length, 1);
    return Buffer.concat([prefix, payload]);
  };
  const trailers = Buffer.from("grpc-status: 0\r\ngrpc-message: \r\n");
  const said = Buffer.concat([grpcFrame(0, everyByte), grpcFrame(0x80, trailers)]);
  const client = open(
    router.port,
    post(`Content-Type: application/grpc-web+proto\r\nContent-Length: ${said.length}\r\n`),
  );
  client.socket.write(said);
  const { req, res } = await next();
  const got: Buffer[] = [];
  for await (const chunk of req) got.push(chunk);
  expect(Buffer.concat(got).equals(said)).toBe(true);
  res.writeHead(200, { "content-type": "application/grpc-web+proto" });
  res.end(said);
  const last = said.toString("latin1");
  await until(() => expect(client.text()).toContain(last));
  expect(client.text()).toMatch(/content-type: application\/grpc-web\+proto\r\n/i);
});

describe("HTTP/2 before a cell of HTTP/1", () => {
  async function openStream(
    flags: Record<string, unknown> = {},
    first: Record<string, string> = {},
  ) {
    const cell = await startCell({ h2c: "127.0.0.1:0", ...flags });
    const session = connectHttp2(`http://127.0.0.1:${cell.router.h2cPort}`);
    session.on("error", () => {});
    bench.closers.push(async () => session.destroy());
    const post = { ":method": "POST", ":path": "/p", "x-tenant-id": "acme" };
    const stream = session.request({ ...post, ...first });
    stream.on("error", () => {});
    const heads: IncomingHttpHeaders[] = [];
    let text = "";
    stream.on("response", (headers) => heads.push(headers));
    stream.on("data", (data) => {
      text += data;
    });
    return { ...cell, stream, heads, text: () => text };
  }

  test("streams both ways at once: the answer comes while the request is not whole", async () => {
    const { stream, next, heads, text } = await openStream();
    stream.write("one ");
    const { req, res } = await next();
    res.writeHead(200).flushHeaders();
    req.pipe(res);
    await until(() => expect([heads.length, text()]).toEqual([1, "one "]));
    stream.write("two ");
    await until(() => expect(text()).toBe("one two "));
    stream.end("three");
    await new Promise((resolve) => stream.once("end", resolve));
    expect([text(), stream.rstCode]).toEqual(["one two three", http2.NGHTTP2_NO_ERROR]);
  });

  test("a body that its length denies is not carried as a request without one", async () => {
    const { router, stream, next } = await openStream({}, { "content-length": "0" });
    const closed = new Promise((resolve) => stream.once("close", resolve));
    stream.write("more");
    await closed;
    open(router.port, head());
    // The first that the cell sees is the next request.
    expect((await next()).req.method).toBe("GET");
  });

  // A request's head goes to its cell with the first byte of its body: who waits for the answer's head
  // before that byte waits in vain, and is told so.
  test("a client that waits for an answer before its body's first byte is told that it is late", async () => {
    const { heads, stream, text } = await openStream({ bodyIdleMs: 100 });
    await until(() => expect(heads).toHaveLength(1));
    const status = Number(heads[0]?.[":status"]);
    expect(codeOf({ status, headers: { ...heads[0] }, text: text() })).toBe("408 REQUEST_TIMEOUT");
    stream.destroy();
  });
});
