/**
 * What is sent: requests by a grammar that knows the rules and the ways around them, several of them on a
 * connection, some with bytes changed afterwards. Every request carries a mark of its own in its path, in
 * a header and in its body, put in by `render`.
 */
import fc from "fast-check";

/** Stands for the mark of a request. */
const mark = "@M@";

type Piece = { readonly text: string };
export type Edit = {
  /** Where, as a share of the stream's length. */
  readonly at: number;
  readonly cut: number;
  readonly insert: string;
};
export type Plan = {
  readonly requests: readonly string[];
  readonly edits: readonly Edit[];
  /** Where the stream is cut into writes, as shares of its length. */
  readonly writes: readonly number[];
};

const hosts = ["acme.cells.test", "globex.cells.test"];
const smuggled = `GET /smuggled-${mark} HTTP/1.1\r\nHost: globex.cells.test\r\nX-Mark: ${mark}\r\n\r\n`;
const websocket = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13";

const method = fc.constantFrom(
  "GET",
  "GET",
  "POST",
  "POST",
  "PUT",
  "DELETE",
  "OPTIONS",
  "PATCH",
  "HEAD",
);
const oddMethod = fc.constantFrom(
  "TRACE",
  "CONNECT",
  "get",
  "PRI",
  "QUERY",
  "FOO",
  "SOURCE",
  "M-SEARCH",
);
const path = fc.constantFrom(
  `/${mark}`,
  `/a/../${mark}`,
  `//${mark}?q=%zz`,
  `/${mark}?a=b&c`,
  `/%2f${mark};x`,
);
const oddPath = fc.constantFrom(
  ...[`/${mark}#x`, `*`, `${mark}`, `/a b${mark}`, `/\xe9${mark}`, `/${mark}\\`],
  ...[
    `http://globex.cells.test/${mark}`,
    `http://u@acme.cells.test/${mark}`,
    `ftp://acme.cells.test/${mark}`,
  ],
);
const version = fc.constant("HTTP/1.1");
const oddVersion = fc.constantFrom(
  "HTTP/1.0",
  "HTTP/2.0",
  "HTTP/0.9",
  "HTTP/1.2",
  "http/1.1",
  "HTTP/1.1 ",
  "",
  "RTSP/1.0",
);

const goodLine = fc.constantFrom(
  ...["Accept: */*", "Cookie: a=b; c=d", "X-Empty:", "User-Agent: \xe9", "TE: trailers"],
  ...["Via: 1.1 other", "Connection: X-Gone\r\nX-Gone: 1", "X-Forwarded-For: 203.0.113.9"],
  ...["Connection: keep-alive", "Max-Forwards: 3", "X-Tenant_Id: globex", "Trailer: X-Sum"],
  ...["Proxy-Connection: keep-alive", "X-Cellfleet-Epoch: 7"],
);
/** Behind these a connection ends, or may. */
const endingLine = fc.constantFrom(
  ...[
    "Connection: close",
    "Expect: 100-continue",
    websocket,
    "Upgrade: h2c\r\nConnection: Upgrade",
  ],
);
const oddLine = fc.constantFrom(
  ...[
    "Host: globex.cells.test",
    "Host : acme.cells.test",
    "X-Tenant-Id: globex",
    "Connection: Host",
    "\tx: y",
  ],
  ...[
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding:\vchunked",
    "X: a\0b",
  ],
  ...[
    "Content-Length: 5",
    "Content-Length: +5",
    "Content-Length: 0",
    "Content-Length: 5, 5",
    "X: a\rb",
    "X: a\nb",
  ],
  ...[
    "Transfer-Encoding: identity",
    "Transfer_Encoding: chunked",
    "Expect: more",
    "No colon",
    ": none",
    "X : y",
  ],
  ...[
    "Connection: Content-Length",
    "Connection: Transfer-Encoding",
    " folded: 1",
    "Upgrade: websocket, h2c",
  ],
);

const content = fc.constantFrom(
  mark,
  `${mark}${"x".repeat(300)}`,
  `${smuggled}`,
  `0\r\n\r\n${smuggled}`,
);
const hex = (count: number): string => count.toString(16);
/** The framing is put in when the mark is known, because it counts bytes. */
const framing = fc.constantFrom(
  ...[
    "none",
    "none",
    "none",
    "length",
    "length",
    "length",
    "chunked",
    "chunked",
    "chunks",
    "trailers",
  ],
  ...["extension"],
);
const oddFraming = fc.constantFrom("short", "long", "both", "bad-chunk", "open");

const rarely = <T>(usual: fc.Arbitrary<T>, odd: fc.Arbitrary<T>): fc.Arbitrary<T> =>
  fc.oneof({ arbitrary: usual, weight: 30 }, { arbitrary: odd, weight: 1 });

const request: fc.Arbitrary<Piece> = fc
  .record({
    method: rarely(method, oddMethod),
    path: rarely(path, oddPath),
    version: rarely(version, oddVersion),
    host: fc.constantFrom(...hosts),
    lines: fc.array(goodLine, { maxLength: 3 }),
    ending: rarely(fc.constant(""), endingLine),
    odd: rarely(fc.constant(""), oddLine),
    content,
    framing: rarely(framing, oddFraming),
  })
  .map((parts) => {
    const { lines, ending, odd, ...rest } = parts;
    const all = [
      `Host: ${rest.host}`,
      `X-Mark: ${mark}`,
      ...lines,
      ...[ending, odd].filter((line) => line !== ""),
    ];
    const head = `${rest.method} ${rest.path} ${rest.version}\r\n${all.join("\r\n")}`;
    return { text: `${head}\r\n@F@${rest.framing}@${rest.content}` };
  });

const bits = fc.constantFrom(
  ...[
    "\r\n",
    "\n",
    "\r",
    "\0",
    " ",
    "\t",
    ":",
    ",",
    ";",
    "0",
    "\r\n\r\n",
    "0\r\n\r\n",
    "\xff",
    "\x7f",
    "chunked",
  ],
  ...[
    "Content-Length: 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Host: globex.cells.test\r\n",
    "HTTP/1.1",
  ],
);
const edit: fc.Arbitrary<Edit> = fc.record({
  at: fc.double({ min: 0, max: 1, noNaN: true }),
  cut: fc.constantFrom(0, 0, 1, 1, 2, 8, 40),
  insert: fc.oneof(
    fc.constant(""),
    bits,
    fc.integer({ min: 0, max: 255 }).map((code) => String.fromCharCode(code)),
  ),
});

export const plan: fc.Arbitrary<Plan> = fc.record({
  requests: fc
    .array(request, { minLength: 1, maxLength: 8 })
    .map((all) => all.map(({ text }) => text)),
  edits: fc.oneof(
    { arbitrary: fc.constant([]), weight: 2 },
    { arbitrary: fc.array(edit, { minLength: 1, maxLength: 3 }), weight: 1 },
  ),
  writes: fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 2 }),
});

/** The bytes of a connection. */
export function render({ requests, edits }: Plan, marks: readonly string[]): string {
  let stream = requests.map((text, nth) => frame(text.replaceAll(mark, marks[nth] ?? ""))).join("");
  for (const { at, cut, insert } of edits) {
    const from = Math.floor(at * stream.length);
    stream = stream.slice(0, from) + insert + stream.slice(from + cut);
  }
  return stream;
}

function frame(text: string): string {
  const at = text.indexOf("@F@");
  const head = text.slice(0, at);
  const [, kind = "", body = ""] = /^@F@([a-z-]+)@([\s\S]*)$/.exec(text.slice(at)) ?? [];
  return head + framed(kind, body);
}

function framed(kind: string, body: string): string {
  const chunked = "Transfer-Encoding: chunked\r\n\r\n";
  const whole = `${hex(body.length)}\r\n${body}\r\n`;
  switch (kind) {
    case "length":
      return `Content-Length: ${body.length}\r\n\r\n${body}`;
    case "short":
      return `Content-Length: ${Math.floor(body.length / 2)}\r\n\r\n${body}`;
    case "long":
      return `Content-Length: ${body.length + 7}\r\n\r\n${body}`;
    case "chunked":
      return `${chunked}${whole}0\r\n\r\n`;
    case "chunks":
      return `${chunked}1\r\n${body.slice(0, 1)}\r\n${hex(body.length - 1)}\r\n${body.slice(1)}\r\n0\r\n\r\n`;
    case "trailers":
      return `${chunked}${whole}0\r\nX-Sum: 1\r\nContent-Length: 3\r\n\r\n`;
    case "extension":
      return `${chunked}${hex(body.length)};a="b"\r\n${body}\r\n0;c\r\n\r\n`;
    case "both":
      return `Content-Length: ${body.length}\r\n${chunked}${whole}0\r\n\r\n`;
    case "bad-chunk":
      return `${chunked}${hex(body.length - 1)}\r\n${body}\r\n0\r\n\r\n`;
    case "open":
      return `${chunked}${whole}`;
    default:
      return "\r\n";
  }
}

/** A request that nothing is wrong with: asked on a connection after all that was done to it. */
export const soundRequest = (mark: string): string =>
  `GET /${mark} HTTP/1.1\r\nHost: acme.cells.test\r\nX-Mark: ${mark}\r\n\r\n`;
