/** One hop between real sockets: streaming, aborts in both directions, truncation, limits. */
import {
  createServer,
  type IncomingMessage,
  type RequestListener,
  request,
  type Server,
  type ServerResponse,
} from "node:http";
import { connect } from "node:net";
import { afterEach, describe, expect, test, vi } from "vitest";
import { CellError } from "../../contract/errors.ts";
import { systemClock } from "../clock.ts";
import { createEndpoint, type Endpoint, type EndpointLimits } from "./endpoint.ts";
import {
  type ForwardLimits,
  type ForwardOptions,
  forward,
  forwardLimits,
  type HeadVerdict,
  type HopOutcome,
} from "./forward.ts";
import { bodyFraming, stripRequestHeaders } from "./hop-headers.ts";
import { alwaysAnswer, listenPort, rawExchange, startRawPeer } from "./peers.fixture.ts";
import { RequestBody } from "./request-body.ts";

// Real sockets and a real disk on a machine that may be busy: conditions are waited for, not times.
vi.setConfig({ testTimeout: 30_000, hookTimeout: 30_000 });

const closers: Array<() => Promise<unknown> | unknown> = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

type HopOptions = {
  readonly limits?: Partial<ForwardLimits>;
  readonly endpoint?: Partial<EndpointLimits>;
  readonly bytesMax?: number;
  readonly keepBytesMax?: number;
  readonly idleMs?: number;
  readonly attempts?: number;
  readonly more?: Pick<ForwardOptions, "onEventStream">;
  readonly onHead?: (status: number, headers: string[]) => HeadVerdict | Promise<HeadVerdict>;
};
type Hop = {
  readonly port: number;
  readonly outcomes: HopOutcome[];
  readonly endpoint: Endpoint;
  readonly server: Server;
};

function answerFailure(res: ServerResponse, outcome: HopOutcome & { kind: "failed" }): void {
  if (res.destroyed) return;
  res.writeHead(599, { "x-reason": outcome.reason, "x-sent": outcome.sent });
  res.end(outcome.error?.code ?? "");
}

async function serveOne(
  req: IncomingMessage,
  res: ServerResponse,
  endpoint: Endpoint,
  options: HopOptions,
  outcomes: HopOutcome[],
): Promise<void> {
  const stripped = stripRequestHeaders(req.rawHeaders);
  const body = new RequestBody({
    source: req,
    framing: bodyFraming(req.rawHeaders),
    clock: systemClock,
    bytesMax: options.bytesMax ?? 1e9,
    keepBytesMax: options.keepBytesMax ?? 65_536,
    idleMs: options.idleMs ?? 5000,
  });
  for (let left = options.attempts ?? 1; left > 0; left -= 1) {
    const outcome = await forward({
      clock: systemClock,
      endpoint,
      method: req.method ?? "GET",
      path: req.url ?? "/",
      headers: stripped.kind === "stripped" ? stripped.headers : [],
      body,
      client: { req, res },
      limits: { ...forwardLimits, ...options.limits },
      trailers: String(req.headers["te"]).includes("trailers"),
      ...options.more,
      onResponseHead: options.onHead ?? ((_status, headers) => ({ kind: "pass", headers })),
    });
    outcomes.push(outcome);
    if (outcome.kind !== "failed") return;
    if (left > 1 && body.replayable) continue;
    answerFailure(res, outcome);
    body.release();
    return;
  }
}

/** A bare proxy in front of `url`: failures become 599 with the reason. */
async function startHop(url: string, options: HopOptions = {}): Promise<Hop> {
  const endpoint = createEndpoint({ url, clock: systemClock, limits: options.endpoint ?? {} });
  const outcomes: HopOutcome[] = [];
  const server = createServer((req, res) => void serveOne(req, res, endpoint, options, outcomes));
  const port = await listenPort(server);
  closers.push(
    () => endpoint.close(),
    () => {
      server.closeAllConnections();
      server.close();
    },
  );
  return { port, outcomes, endpoint, server };
}

async function startApp(serve: RequestListener): Promise<string> {
  const server = createServer(serve);
  const port = await listenPort(server);
  closers.push(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${port}`;
}

async function startPeer(...args: Parameters<typeof startRawPeer>) {
  const peer = await startRawPeer(...args);
  closers.push(peer.close);
  return peer;
}

const get = (path = "/p", more = "") =>
  `GET ${path} HTTP/1.1\r\nHost: acme.test\r\nConnection: close\r\n${more}\r\n`;
const until = (check: () => void) => vi.waitFor(check, { timeout: 25_000, interval: 10 });

describe("a request", () => {
  test("arrives with its bytes unchanged and without headers of the connection", async () => {
    const peer = await startPeer(alwaysAnswer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"));
    const hop = await startHop(peer.url);
    const answer = await rawExchange(hop.port, get("/a//b/../%2e?q=%zz&x", "X-A: 1\r\nx-a: 2\r\n"));
    expect(answer.text).toMatch(/^HTTP\/1.1 200 OK\r\n/);
    expect(answer.text).toMatch(/\r\n\r\nok$/);
    expect(peer.seen[0]).toBe(
      "GET /a//b/../%2e?q=%zz&x HTTP/1.1\r\nhost: acme.test\r\nconnection: keep-alive\r\nX-A: 1\r\nx-a: 2\r\n\r\n",
    );
    expect(hop.outcomes).toMatchObject([{ kind: "answered", status: 200, bytesOut: 2 }]);
  });

  test("of any size streams through, both ways", async () => {
    const url = await startApp((req, res) => {
      res.writeHead(200, { "x-length": String(req.headers["content-length"]) });
      req.pipe(res);
    });
    const hop = await startHop(url);
    const size = 24 * 1024 * 1024;
    let got = 0;
    let sum = 0;
    await new Promise<void>((resolve, reject) => {
      const out = request({ port: hop.port, method: "POST", headers: { "content-length": size } });
      out.on("error", reject);
      out.on("response", (res) => {
        expect(res.headers["x-length"]).toBe(String(size));
        res.on("data", (chunk: Buffer) => {
          got += chunk.length;
          sum = (sum + (chunk[0] ?? 0)) % 251;
        });
        res.on("end", resolve);
      });
      for (let sent = 0; sent < size; sent += 1024 * 1024) out.write(Buffer.alloc(1024 * 1024, 7));
      out.end();
    });
    expect(got).toBe(size);
  });

  test("whose client stops reading stops the endpoint: nothing is collected in between", async () => {
    let sent = 0;
    const url = await startApp((_req, res) => {
      const more = () => {
        sent += 256 * 1024;
        if (!res.destroyed && !res.write(Buffer.alloc(256 * 1024))) res.once("drain", more);
      };
      more();
    });
    const hop = await startHop(url);
    const socket = connect(hop.port, "127.0.0.1", () => socket.write(get()));
    closers.push(() => socket.destroy());
    socket.pause();
    let before = -1;
    await vi.waitFor(
      () => {
        const stalled = sent === before && sent > 0;
        before = sent;
        if (!stalled) throw new Error("still flowing");
      },
      { timeout: 25_000, interval: 300 },
    );
    // Kernel buffers of two connections, and little more.
    expect(sent).toBeLessThan(40 * 1024 * 1024);
  });

  test("cut off in its body never looks whole to the endpoint", async () => {
    const peer = await startPeer(() => {});
    const hop = await startHop(peer.url);
    for (const [nth, framing] of [
      "Content-Length: 10\r\n\r\nhello",
      "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ].entries()) {
      const socket = connect(hop.port, "127.0.0.1", () =>
        socket.write(`POST /p HTTP/1.1\r\nHost: acme.test\r\n${framing}`),
      );
      await until(() => expect(peer.seen[nth]).toMatch(/hello/));
      socket.destroy();
      await until(() => expect(peer.open()).toBe(0));
      expect(peer.seen.at(-1)).not.toMatch(/content-length: 0|\r\n0\r\n\r\n$/);
    }
    await until(() => expect(hop.outcomes.map((one) => one.kind)).toEqual(["failed", "failed"]));
  });

  test("whose client has gone before a connection was free is not sent at all", async () => {
    const peer = await startPeer(() => {});
    const hop = await startHop(peer.url, { endpoint: { connectionsMax: 1 } });
    const first = connect(hop.port, "127.0.0.1", () => first.write(get("/first")));
    await until(() => expect(peer.seen[0]).toMatch(/first/));
    const second = connect(hop.port, "127.0.0.1", () => second.write(get("/second")));
    await until(() => expect(hop.endpoint.slots.pending).toBe(1));
    second.destroy();
    await until(() =>
      expect(hop.outcomes).toMatchObject([
        { kind: "failed", reason: "client-gone", sent: "nothing" },
      ]),
    );
    first.destroy();
    await until(() => expect(hop.endpoint.slots.inFlight).toBe(0));
    expect(peer.seen.join()).not.toMatch(/second/);
  });

  test("is cancelled at the endpoint when its client goes", async () => {
    const peer = await startPeer(() => {});
    const hop = await startHop(peer.url);
    const socket = connect(hop.port, "127.0.0.1", () => socket.write(get()));
    await until(() => expect(peer.open()).toBe(1));
    socket.destroy();
    await until(() => expect(peer.open()).toBe(0));
    expect(hop.outcomes).toMatchObject([{ kind: "failed", reason: "client-gone", sent: "maybe" }]);
  });

  test("above the size limit is refused, in its declaration and while it streams", async () => {
    const peer = await startPeer(() => {});
    const hop = await startHop(peer.url, { bytesMax: 8 });
    const post = (framing: string) =>
      rawExchange(hop.port, `POST /p HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n${framing}`);
    expect((await post("Content-Length: 9\r\n\r\n123456789")).text).toMatch(
      /x-reason: body-too-large/,
    );
    expect(
      (await post("Transfer-Encoding: chunked\r\n\r\n9\r\n123456789\r\n0\r\n\r\n")).text,
    ).toMatch(/x-reason: body-too-large/);
    expect(peer.seen.join()).not.toMatch(/123456789/);
  });

  test("whose body falls silent is given up", async () => {
    const peer = await startPeer(() => {});
    const hop = await startHop(peer.url, { idleMs: 50 });
    const answer = rawExchange(
      hop.port,
      "POST /p HTTP/1.1\r\nHost: a.test\r\nContent-Length: 9\r\n\r\nhel",
    );
    await until(() => expect(hop.outcomes).toMatchObject([{ reason: "body-stalled" }]));
    hop.server.closeAllConnections();
    expect((await answer).text).toMatch(/x-reason: body-stalled/);
  });

  test("that failed can be sent again with the same small body, to its last byte", async () => {
    let nth = 0;
    const peer = await startPeer((socket, soFar) => {
      if (!soFar.includes("hello")) return;
      nth += 1;
      if (nth === 1) socket.destroy();
      else socket.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    const hop = await startHop(peer.url, { attempts: 2 });
    const answer = await rawExchange(
      hop.port,
      "POST /p HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
    );
    expect(answer.text).toMatch(/200 OK/);
    expect(hop.outcomes.map((one) => one.kind)).toEqual(["failed", "answered"]);
    expect(peer.seen.map((text) => text.endsWith("content-length: 5\r\n\r\nhello"))).toEqual([
      true,
      true,
    ]);
  });

  test("with a large body is not kept for a second attempt", async () => {
    const peer = await startPeer((socket, soFar) => {
      if (soFar.includes("hello")) socket.destroy();
    });
    const hop = await startHop(peer.url, { attempts: 2, keepBytesMax: 4 });
    await rawExchange(
      hop.port,
      "POST /p HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
    );
    expect(hop.outcomes).toMatchObject([{ kind: "failed", reason: "reset", sent: "maybe" }]);
  });
});

describe("an answer", () => {
  test.each([
    ["with a length", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", "HTTP/1.1"],
    [
      "in chunks",
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
      "HTTP/1.1",
    ],
    [
      "in chunks, to an HTTP/1.0 client",
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
      "HTTP/1.0",
    ],
  ])("truncated by the endpoint looks truncated: %s", async (_name, cut, version) => {
    const peer = await startPeer((socket) => socket.end(cut, "latin1"));
    const hop = await startHop(peer.url);
    const answer = await rawExchange(hop.port, get().replace("HTTP/1.1", version));
    expect(answer.text).not.toMatch(/\r\n0\r\n\r\n$/);
    if (version === "HTTP/1.0") expect(answer.ended).toBe("reset");
    await until(() => expect(hop.outcomes).toMatchObject([{ kind: "broken", status: 200 }]));
  });

  test("keeps both cookies and loses what belongs to the connection", async () => {
    const head =
      "HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nConnection: x-gone\r\nX-Gone: 1\r\nKeep-Alive: timeout=9\r\nContent-Length: 0\r\n\r\n";
    const peer = await startPeer(alwaysAnswer(head));
    const hop = await startHop(peer.url);
    const { text } = await rawExchange(hop.port, get());
    expect(text.match(/Set-Cookie: [ab]=\d/g)).toEqual(["Set-Cookie: a=1", "Set-Cookie: b=2"]);
    expect(text).not.toMatch(/x-gone|timeout=9/i);
  });

  test("without content has no length, and the connection goes on", async () => {
    const peer = await startPeer(
      alwaysAnswer("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"),
    );
    const hop = await startHop(peer.url);
    const { text } = await rawExchange(hop.port, get());
    expect(text).toMatch(/^HTTP\/1.1 204/);
    expect(text).not.toMatch(/content-length|transfer-encoding/i);
  });

  test("to HEAD has the head of GET and nothing else", async () => {
    const peer = await startPeer(alwaysAnswer("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"));
    const hop = await startHop(peer.url);
    const { text } = await rawExchange(hop.port, get().replace("GET", "HEAD"));
    expect(text).toMatch(/^HTTP\/1.1 200 OK[\s\S]*Content-Length: 5[\s\S]*\r\n\r\n$/);
  });

  test("brings its trailers when the client asked for them, and none that frame or route", async () => {
    const body =
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\nSet-Cookie: a=1\r\nX-Cell: b\r\n\r\n";
    const peer = await startPeer(alwaysAnswer(body));
    const hop = await startHop(peer.url);
    expect((await rawExchange(hop.port, get("/", "TE: trailers\r\n"))).text).toMatch(
      /0\r\nX-Sum: 7\r\n\r\n$/,
    );
    expect((await rawExchange(hop.port, get("/"))).text).toMatch(/0\r\n\r\n$/);
  });

  test("after interim answers is the final one", async () => {
    const early = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    const peer = await startPeer(
      alwaysAnswer(`${early}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok`),
    );
    const hop = await startHop(peer.url);
    expect((await rawExchange(hop.port, get())).text).toMatch(/^HTTP\/1.1 200 OK[\s\S]*ok$/);
  });

  test.each([
    ["a 100 that nobody asked for", "HTTP/1.1 100 Continue\r\n\r\n"],
    [
      "a 101 that nobody asked for",
      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ],
    ["nonsense", "SMTP ready\r\n\r\n"],
    ["a head without end", `HTTP/1.1 200 OK\r\nX: ${"x".repeat(100_000)}`],
  ])("that is %s fails the exchange, not the process", async (_name, bytes) => {
    const peer = await startPeer((socket) => socket.write(bytes, "latin1"));
    const hop = await startHop(peer.url);
    expect((await rawExchange(hop.port, get())).text).toMatch(
      /599[\s\S]*x-reason: protocol\r\nx-sent: maybe/,
    );
  });

  test("that is an event stream can be ended whole, and the endpoint hears of it", async () => {
    const ends: Array<() => void> = [];
    let gone = false;
    const url = await startApp((req, res) => {
      res.on("close", () => {
        gone = true;
      });
      res.writeHead(200, {
        "content-type": req.url === "/events" ? "text/event-stream; x" : "a/b",
      });
      res.write("data: one\n\n");
    });
    const hop = await startHop(url, { more: { onEventStream: (end) => ends.push(end) } });
    const plain = request({ port: hop.port, path: "/" });
    plain.on("error", () => {});
    plain.end();
    const head = "GET /events HTTP/1.1\r\nhost: x\r\n\r\n";
    const socket = connect(hop.port, "127.0.0.1", () => socket.write(head));
    let text = "";
    socket.on("data", (chunk) => {
      text += chunk.toString();
    });
    await vi.waitFor(() => expect(text).toContain("data: one"));
    expect(ends).toHaveLength(1);
    ends[0]?.();
    ends[0]?.();
    await vi.waitFor(() =>
      expect(text).toMatch(/data: one\n\n\r\nc\r\nretry: 500\n\n\r\n0\r\n\r\n$/),
    );
    await vi.waitFor(() => expect(gone).toBe(true));
    await vi.waitFor(() => expect(hop.outcomes).toMatchObject([{ kind: "answered" }]));
    plain.destroy();
    socket.destroy();
  });

  test("can be replaced by the caller before the client sees a byte, and the connection is kept", async () => {
    const peer = await startPeer(
      alwaysAnswer(
        "HTTP/1.1 421 Misdirected Request\r\nX-Secret: 1\r\nContent-Length: 2\r\n\r\nno",
      ),
    );
    const error = new CellError("OUTCOME_UNKNOWN", "no");
    const hop = await startHop(peer.url, { onHead: () => ({ kind: "replace", error }) });
    for (let nth = 0; nth < 3; nth += 1) {
      const { text } = await rawExchange(hop.port, get());
      expect(text).toMatch(/^HTTP\/1.1 599[\s\S]*OUTCOME_UNKNOWN\r\n/);
      expect(text).not.toMatch(/X-Secret/);
    }
    expect(peer.connections()).toBe(1);
  });

  test("that comes before the request is whole leaves the client's connection usable", async () => {
    const peer = await startPeer((socket, soFar) => {
      if (/POST[\s\S]*\r\n\r\n/.test(soFar))
        socket.write("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
      else socket.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    const hop = await startHop(peer.url);
    let got = "";
    const socket = connect(hop.port, "127.0.0.1", () =>
      socket.write("POST /p HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\nhello"),
    );
    closers.push(() => socket.destroy());
    socket.on("data", (data) => {
      got += data.toString("latin1");
    });
    await until(() => expect(got).toMatch(/403 Forbidden/));
    socket.write(`world${get("/next")}`);
    await until(() => expect(got).toMatch(/200 OK/));
  });
});

describe("limits", () => {
  test("a dead endpoint is known at once, and nothing was sent", async () => {
    const peer = await startRawPeer(() => {});
    await peer.close();
    const hop = await startHop(peer.url);
    expect((await rawExchange(hop.port, get())).text).toMatch(
      /x-reason: connect\r\nx-sent: nothing/,
    );
  });

  test("a full queue and a long wait are told apart, and seats come back", async () => {
    const peer = await startPeer(() => {});
    const hop = await startHop(peer.url, {
      endpoint: { connectionsMax: 1, pendingMax: 1, queueMs: 60 },
    });
    const first = connect(hop.port, "127.0.0.1", () => first.write(get("/first")));
    await until(() => expect(peer.seen[0]).toMatch(/first/));
    const second = rawExchange(hop.port, get("/second"));
    await until(() => expect(hop.endpoint.slots.pending + hop.outcomes.length).toBe(1));
    const third = rawExchange(hop.port, get("/third"));
    const texts = [(await second).text, (await third).text].join();
    expect(texts).toMatch(/x-reason: queue-timeout/);
    first.destroy();
    await until(() => expect(hop.endpoint.slots.inFlight).toBe(0));
  });

  test("an endpoint that never answers, or stops in the middle, is given up", async () => {
    const silent = await startPeer(() => {});
    const hop = await startHop(silent.url, { limits: { headMs: 50 } });
    expect((await rawExchange(hop.port, get())).text).toMatch(/x-reason: head-timeout/);
    await until(() => expect(silent.open()).toBe(0));

    const half = await startPeer(
      alwaysAnswer("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"),
    );
    const other = await startHop(half.url, { limits: { bodyIdleMs: 50 } });
    expect((await rawExchange(other.port, get())).text).toMatch(/hello$/);
    expect(other.outcomes).toMatchObject([{ kind: "broken", reason: "body-timeout" }]);
  });
});

describe("a verdict that takes its time", () => {
  const late = () => {
    const { promise, resolve } = Promise.withResolvers<HeadVerdict>();
    const seen: number[] = [];
    const onHead = (status: number) => {
      seen.push(status);
      return promise;
    };
    return { resolve, seen, onHead };
  };

  test.each([
    ["a body", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", "GET", "hello"],
    [
      "chunks",
      "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
      "GET",
      "hello",
    ],
    ["an empty body", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "GET", ""],
    ["no body", "HTTP/1.1 204 No Content\r\n\r\n", "GET", ""],
    ["a HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", "HEAD", ""],
  ])("holds back %s until it is there, and loses nothing", async (_what, text, method, body) => {
    const peer = await startRawPeer(alwaysAnswer(text));
    closers.push(peer.close);
    const { resolve, seen, onHead } = late();
    const hop = await startHop(peer.url, { onHead });
    const answer = rawExchange(
      hop.port,
      `${method} / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n`,
    );
    let over = false;
    void answer.then(() => {
      over = true;
    });
    await vi.waitFor(() => expect(seen.length).toBe(1));
    await new Promise((next) => setTimeout(next, 30));
    expect(over).toBe(false);
    resolve({
      kind: "pass",
      headers: ["x-late", "yes", ...(body === "" ? [] : ["content-length", "5"])],
    });
    const { text: got, ended } = await answer;
    expect(got).toContain("x-late: yes");
    expect(got.endsWith(`\r\n\r\n${body}`) || got.includes("0\r\n\r\n")).toBe(true);
    expect(ended).toBe("end");
    expect(hop.outcomes[0]).toMatchObject({ kind: "answered" });
  });

  test("may still be a replacement", async () => {
    const peer = await startRawPeer(
      alwaysAnswer("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"),
    );
    closers.push(peer.close);
    const { resolve, onHead } = late();
    const hop = await startHop(peer.url, { onHead });
    const answer = rawExchange(hop.port, "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    resolve({ kind: "replace", error: new CellError("OUTCOME_UNKNOWN", "too late") });
    expect((await answer).text).toContain("599");
    expect(hop.outcomes[0]).toMatchObject({ kind: "failed", reason: "replaced" });
  });

  test("comes to nothing when the client has left meanwhile", async () => {
    const peer = await startRawPeer(
      alwaysAnswer("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"),
    );
    closers.push(peer.close);
    const { resolve, seen, onHead } = late();
    const hop = await startHop(peer.url, { onHead });
    const socket = connect(hop.port, "127.0.0.1");
    socket.write("GET / HTTP/1.1\r\nhost: x\r\n\r\n");
    await vi.waitFor(() => expect(seen.length).toBe(1));
    socket.destroy();
    await vi.waitFor(() => expect(hop.outcomes.length).toBe(1));
    resolve({ kind: "pass", headers: [] });
    expect(hop.outcomes[0]).toMatchObject({ kind: "failed", reason: "client-gone" });
    await vi.waitFor(() => expect(hop.endpoint.slots.inFlight).toBe(0));
  });
});
