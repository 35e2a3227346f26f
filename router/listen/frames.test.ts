/**
 * Floods and broken frames at the HTTP/2 listener, beside a bare server of node:http2: what that one
 * refuses ours refuses too, and it refuses earlier.
 */
import { createServer, type Http2Server } from "node:http2";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { block, flags, frame, head, pseudo, types, word } from "./frame-bytes.fixture.ts";
import { type Said, sayTo } from "./frames.fixture.ts";
import { createListenerBench, ok, openRaw } from "./listener.fixture.ts";

const { start } = createListenerBench();
let bare: Http2Server;
let barePort = 0;
beforeEach(async () => {
  bare = createServer((_req, res) => res.end("ok"));
  bare.on("sessionError", () => {});
  bare.on("stream", (stream) => stream.on("error", () => {}));
  await new Promise<void>((resolve) => bare.listen(0, "127.0.0.1", resolve));
  barePort = (bare.address() as AddressInfo).port;
});
afterEach(async () => {
  await new Promise((resolve) => bare.close(resolve));
});

type Verdict = "ended" | "reset" | "served";
const severity: Readonly<Record<Verdict, number>> = { served: 0, reset: 1, ended: 2 };
const verdictOf = ({ over, resets }: Said): Verdict =>
  over ? "ended" : resets.length > 0 ? "reset" : "served";

const numbers = (count: number) => [...Array(count).keys()];
const post = pseudo("POST");
const [method, scheme, authority, path] = pseudo();
const named = (count: number) => numbers(count).map((at) => [`x-${at}`, "y"] as const);
const data = (stream: number, bytes: number, flag = 0) =>
  frame(types.data, flag, stream, Buffer.alloc(bytes));

/** A head in as many frames as it takes. */
const inPieces = (whole: Buffer) =>
  numbers(Math.ceil(whole.length / 16_000)).map((at, _index, all) =>
    frame(
      at === 0 ? types.headers : types.continuation,
      (at === 0 ? flags.endStream : 0) + (at === all.length - 1 ? flags.endHeaders : 0),
      1,
      whole.subarray(at * 16_000, (at + 1) * 16_000),
    ),
  );

/** Bytes, how many streams want a word, and what becomes of it here. */
const floods: ReadonlyArray<readonly [string, readonly Buffer[], number, Verdict]> = [
  [
    "streams that are reset at once",
    numbers(300).flatMap((at) => [
      head(2 * at + 1, post, false),
      frame(types.rst, 0, 2 * at + 1, word(8)),
    ]),
    0,
    "ended",
  ],
  [
    "more streams than are allowed",
    numbers(150).map((at) => head(2 * at + 1, post, false)),
    150,
    "reset",
  ],
  [
    "pings",
    [Buffer.concat(numbers(20_000).map(() => frame(types.ping, 0, 0, Buffer.alloc(8))))],
    0,
    "ended",
  ],
  ["settings", [Buffer.concat(numbers(20_000).map(() => frame(types.settings, 0, 0)))], 0, "ended"],
  [
    "settings with many entries",
    [
      frame(
        types.settings,
        0,
        0,
        Buffer.concat(numbers(40).map(() => Buffer.from([0, 4, 0, 0, 255, 255]))),
      ),
    ],
    0,
    "ended",
  ],
  ["empty data", [head(1, post, false), ...numbers(300).map(() => data(1, 0))], 0, "ended"],
  [
    "continuations without an end",
    [
      frame(types.headers, 0, 1, block(pseudo())),
      ...numbers(200).map((at) => frame(types.continuation, 0, 1, block([[`x-${at}`, "y"]]))),
    ],
    0,
    "ended",
  ],
  ["more fields than are allowed", [head(1, [...pseudo(), ...named(200)])], 1, "reset"],
];

const broken: ReadonlyArray<readonly [string, readonly Buffer[], number, Verdict]> = [
  ["data on no stream", [data(0, 1)], 0, "ended"],
  ["data on a stream that is not open", [data(1, 1)], 0, "ended"],
  ["a head on a stream of the server's", [head(2, pseudo())], 0, "ended"],
  ["a head on a stream of the past", [head(5, pseudo()), head(3, pseudo())], 0, "served"],
  ["a promise of the client's", [frame(types.push, flags.endHeaders, 1, word(2))], 0, "ended"],
  ["a frame that is too long", [head(1, post, false), data(1, 20_000)], 0, "ended"],
  [
    "more data than the window",
    [head(1, post, false), ...numbers(5).map(() => data(1, 16_384))],
    1,
    "ended",
  ],
  ["a window that grows by nothing", [frame(types.window, 0, 0, word(0))], 0, "ended"],
  ["a window that grows beyond all", [frame(types.window, 0, 0, word(2 ** 31 - 1))], 0, "ended"],
  ["settings that are no settings", [frame(types.settings, 0, 0, Buffer.alloc(5))], 0, "ended"],
  [
    "an acknowledgement with words",
    [frame(types.settings, flags.ack, 0, Buffer.alloc(6))],
    0,
    "ended",
  ],
  ["a ping that is no ping", [frame(types.ping, 0, 0, Buffer.alloc(7))], 0, "ended"],
  ["a reset of nothing", [frame(types.rst, 0, 9, word(8))], 0, "ended"],
  [
    "another frame between a head's",
    [frame(types.headers, 0, 1, block(pseudo())), data(1, 1)],
    0,
    "ended",
  ],
  [
    "a head that is no HPACK",
    [frame(types.headers, 5, 1, Buffer.from([0xff, 0xff, 0xff]))],
    0,
    "ended",
  ],
  [
    "a stream that waits for itself",
    [frame(types.priority, 0, 1, Buffer.concat([word(1), Buffer.alloc(1)]))],
    0,
    "served",
  ],
  ["an upper case name", [head(1, [...pseudo(), ["X-A", "1"]])], 1, "reset"],
  ["a pseudo field behind others", [head(1, [["x", "1"], ...pseudo()])], 1, "reset"],
  ["a pseudo field twice", [head(1, [...pseudo(), [":path", "/2"]])], 1, "reset"],
  ["an unknown pseudo field", [head(1, [...pseudo(), [":tenant", "acme"]])], 1, "reset"],
  [
    "no method",
    [
      head(
        1,
        [scheme, authority, path].filter((one) => one !== undefined),
      ),
    ],
    1,
    "reset",
  ],
  [
    "no path",
    [
      head(
        1,
        [method, scheme, authority].filter((one) => one !== undefined),
      ),
    ],
    1,
    "reset",
  ],
  ["a field of the connection", [head(1, [...pseudo(), ["connection", "x"]])], 1, "reset"],
  ["a coding of HTTP/1", [head(1, [...post, ["transfer-encoding", "chunked"]], false)], 1, "reset"],
  [
    "a length that lies",
    [head(1, [...post, ["content-length", "3"]], false), data(1, 5, flags.endStream)],
    1,
    "ended",
  ],
  [
    "a frame of an unknown type",
    [frame(99, 0, 0, Buffer.alloc(3)), head(1, pseudo())],
    1,
    "served",
  ],
  [
    "a head in pieces",
    [
      frame(types.headers, flags.endStream, 1, block(pseudo().slice(0, 2))),
      frame(types.continuation, flags.endHeaders, 1, block(pseudo().slice(2))),
    ],
    1,
    "served",
  ],
];

describe.each([
  ["floods", floods],
  ["broken frames", broken],
] as const)("%s", (_kind, cases) => {
  test.each(cases)("%s", async (_name, bytes, streams, verdict) => {
    // Streams stay open here, so that those beyond the limit are beyond it.
    const { port } = await start(
      (req, res) => {
        if (req.method === "GET") res.writeHead(200, []).end("ok");
        else res.writeHead(200, []).flushHeaders();
      },
      { protocol: "h2c" },
    );
    const ours = await sayTo(port, bytes, streams);
    const theirs = await sayTo(barePort, bytes, streams);
    expect(verdictOf(ours)).toBe(verdict);
    expect(severity[verdict]).toBeGreaterThanOrEqual(severity[verdictOf(theirs)]);
  });
});

test("the size of a head is limited before the client has agreed to our settings", async () => {
  const { port, told } = await start(ok, { protocol: "h2c" });
  const fields = numbers(9).map((at) => [`x-${at}`, "y".repeat(4000)] as const);
  await sayTo(port, inPieces(block([...pseudo(), ...fields])), 1);
  expect(told).toEqual(["HEADERS_TOO_LARGE"]);
});

test("who says nothing after connecting is sent away", async () => {
  const { port } = await start(() => {}, { protocol: "h2c", limits: { headersMs: 100 } });
  for (const bytes of ["", "PRI * HTTP/2.0\r\n\r\nSM"]) {
    const client = openRaw(port, bytes);
    await client.closed;
    expect(client.isClosed()).toBe(true);
  }
});

test("an idle session is closed, one with a stream in flight is not", async () => {
  const { port } = await start(
    (req, res) => {
      if (req.method === "GET") res.writeHead(200, []).end("ok");
    },
    { protocol: "h2c", limits: { keepAliveMs: 150 } },
  );
  const busy = sayTo(port, [head(1, post, false)], 1).catch((error: unknown) => error);
  const idle = sayTo(port, [head(1, pseudo())], 2);
  expect(await idle).toMatchObject({ over: true, goaway: 0, answers: 1 });
  expect(await Promise.race([busy, Promise.resolve("waiting")])).toBe("waiting");
});
