/**
 * What is sent over HTTP/2: streams whose heads keep or break the rules, with frames between them that do
 * so too. Fields carry `@M@` where the mark of their stream goes.
 */
import fc from "fast-check";

export type Fields = ReadonlyArray<readonly [string, string]>;
export type Noise =
  | "ping"
  | "settings"
  | "window"
  | "window-zero"
  | "window-too-large"
  | "stream-window-zero"
  | "priority"
  | "priority-of-itself"
  | "unknown"
  | "continuation"
  | "push"
  | "goaway"
  | "data-after-end"
  | "even-stream"
  | "old-stream"
  | "too-long"
  | "reset-idle";
export type StreamPlan = {
  readonly fields: Fields;
  readonly body: string;
  /** Sizes of the body's pieces; zero: an empty frame. */
  readonly cuts: readonly number[];
  /** The head's block is spread over so many frames. */
  readonly continuations: number;
  readonly padded: boolean;
  readonly prioritised: boolean;
  readonly trailers: "none" | "good" | "pseudo" | "open";
  readonly reset: boolean;
  readonly noise: Noise | undefined;
};
export type Http2Plan = {
  readonly streams: readonly StreamPlan[];
  /** Windows begin at nothing and open when all is sent. */
  readonly windowZero: boolean;
};

const rarely = <T>(usual: fc.Arbitrary<T>, odd: fc.Arbitrary<T>): fc.Arbitrary<T> =>
  fc.oneof({ arbitrary: usual, weight: 25 }, { arbitrary: odd, weight: 1 });
const hosts = ["acme.cells.test", "globex.cells.test"];

const method = rarely(
  fc.constantFrom("GET", "GET", "POST", "POST", "PUT", "DELETE", "HEAD"),
  fc.constantFrom("CONNECT", "TRACE", "get", "G T", "", "PRI", "FOO"),
);
const path = rarely(
  fc.constantFrom("/@M@", "/a/../@M@", "//@M@?q=%zz", "/@M@?a=b&c"),
  fc.constantFrom(
    ...[
      "",
      "*",
      "@M@",
      "/@M@#x",
      "/a b@M@",
      "/\xe9@M@",
      "/@M@\r\nX: 1",
      "http://globex.cells.test/@M@",
    ],
    "/@M@ HTTP/1.1\r\nHost: globex.cells.test\r\n\r\n",
  ),
);
const scheme = rarely(fc.constantFrom("http", "https"), fc.constantFrom("", "ftp", "ht tp"));
const goodField = fc.constantFrom<readonly [string, string]>(
  ...([
    ["accept", "*/*"],
    ["cookie", "a=b"],
    ["cookie", "c=d"],
    ["x-empty", ""],
    ["te", "trailers"],
    ["user-agent", "\xe9"],
    ["x-forwarded-for", "203.0.113.9"],
    ["x-cellfleet-epoch", "7"],
  ] as const),
);
const oddField = fc.constantFrom<readonly [string, string]>(
  ...([
    ["X-Upper", "1"],
    ["connection", "close"],
    ["connection", "x-mark"],
    ["keep-alive", "1"],
    ["proxy-connection", "close"],
    ["transfer-encoding", "chunked"],
    ["upgrade", "websocket"],
    ["te", "gzip"],
    ["host", "globex.cells.test"],
    ["host", "acme.cells.test"],
    ["content-length", "3"],
    ["content-length", "0"],
    ["content-length", "+3"],
    ["content-length", "3, 3"],
    [":path", "/second"],
    [":authority", "globex.cells.test"],
    [":status", "200"],
    [":protocol", "websocket"],
    [":unknown", "1"],
    ["", "no name"],
    ["x y", "1"],
    ["x:y", "1"],
    ["x\r\ny", "1"],
    ["x-value", "a\r\nx-smuggled: 1"],
    ["x-value", "a\0b"],
    ["x-value", " blank"],
    ["x-tenant-id", "globex"],
    ["expect", "100-continue"],
    ["expect", "more"],
    ["transfer_encoding", "chunked"],
  ] as const),
);
const order = rarely(
  fc.constant<"right" | "late" | "mixed">("right"),
  fc.constantFrom<"right" | "late" | "mixed">("late", "mixed"),
);

const fields: fc.Arbitrary<Fields> = fc
  .record({
    ...{ method, path, scheme, order, host: fc.constantFrom(...hosts) },
    good: fc.array(goodField, { maxLength: 3 }),
    odd: rarely(fc.constant(undefined), oddField),
    flood: rarely(fc.constant(0), fc.constantFrom(50, 130, 400)),
    missing: rarely(fc.constant(-1), fc.constantFrom(0, 1, 2, 3)),
  })
  .map((parts) => {
    const all: Fields = [
      [":method", parts.method],
      [":scheme", parts.scheme],
      [":authority", parts.host],
      [":path", parts.path],
    ];
    const pseudo = all.filter((_, at) => at !== parts.missing);
    const plain: Fields = [
      ["x-mark", "@M@"],
      ...parts.good,
      ...(parts.odd === undefined ? [] : [parts.odd]),
      ...Array.from({ length: parts.flood }, (_, at) => [`x-${at}`, "flood"] as const),
    ];
    if (parts.order === "late") return [...plain, ...pseudo];
    if (parts.order === "mixed") return [...pseudo.slice(0, 2), ...plain, ...pseudo.slice(2)];
    return [...pseudo, ...plain];
  });

const noise = fc.constantFrom<Noise>(
  ...(["ping", "settings", "window", "priority", "unknown", "ping", "priority"] as const),
);
const oddNoise = fc.constantFrom<Noise>(
  ...(["window-zero", "window-too-large", "stream-window-zero", "priority-of-itself"] as const),
  ...(["continuation", "push", "goaway", "data-after-end", "even-stream"] as const),
  ...(["old-stream", "too-long", "reset-idle"] as const),
);

const stream: fc.Arbitrary<StreamPlan> = fc.record({
  fields,
  body: fc.constantFrom(
    "",
    "",
    "@M@",
    `@M@${"x".repeat(300)}`,
    "0\r\n\r\nGET /smuggled-@M@ HTTP/1.1\r\n\r\n",
  ),
  cuts: fc.array(fc.constantFrom(0, 0, 1, 5, 200), { maxLength: 4 }),
  continuations: fc.constantFrom(0, 0, 0, 0, 1, 3, 8),
  padded: fc.boolean(),
  prioritised: fc.boolean(),
  trailers: rarely(
    fc.constantFrom<StreamPlan["trailers"]>("none", "none", "good"),
    fc.constantFrom<StreamPlan["trailers"]>("pseudo", "open"),
  ),
  reset: rarely(fc.constant(false), fc.constant(true)),
  noise: fc.oneof(
    { arbitrary: fc.constant(undefined), weight: 12 },
    { arbitrary: noise, weight: 4 },
    { arbitrary: oddNoise, weight: 1 },
  ),
});

export const http2Plan: fc.Arbitrary<Http2Plan> = fc.record({
  streams: fc.array(stream, { minLength: 1, maxLength: 10 }),
  windowZero: rarely(fc.constant(false), fc.constant(true)),
});
