/**
 * Pure: requests that two readers of HTTP may take for different ones. `@M@` stands for the mark of a case;
 * what must never arrive anywhere as a request of its own asks for `/smuggled`.
 */

export type SmugglingCase = {
  readonly name: string;
  readonly bytes: string;
  /** Requests that a reader may find in it: `/p-MARK`, `/q-MARK`. */
  readonly asked: number;
};

const host = "Host: acme.cells.test\r\n";
const hidden = `GET /smuggled-@M@ HTTP/1.1\r\n${host}\r\n`;
const hex = hidden.length.toString(16);
const post = (headers: string, body: string, version: string = "1.1"): string =>
  `POST /p-@M@ HTTP/${version}\r\n${host}${headers}\r\n${body}`;
const chunk = (text: string): string => `${text.length.toString(16)}\r\n${text}\r\n`;
const chunked = "Transfer-Encoding: chunked\r\n";

/** A body that ends at once for a reader of chunks; the rest is within the length for the other reader. */
const zeroFirst = `0\r\n\r\n${hidden}`;
const withLength = (body: string): string => `Content-Length: ${body.length}\r\n`;

const codings = [
  ["in both framings", chunked],
  ["with a tab", "Transfer-Encoding:\tchunked\r\n"],
  ["with a vertical tab", "Transfer-Encoding: \vchunked\r\n"],
  ["with a space before the colon", "Transfer-Encoding : chunked\r\n"],
  ["of an unknown kind", "Transfer-Encoding: xchunked\r\n"],
  ["that is empty", "Transfer-Encoding:\r\n"],
  ["identity", "Transfer-Encoding: identity\r\n"],
  ["twice", `${chunked}${chunked}`],
  ["then identity", `${chunked}Transfer-Encoding: identity\r\n`],
  ["after gzip", "Transfer-Encoding: gzip, chunked\r\n"],
  ["with a parameter", "Transfer-Encoding: chunked;q=1\r\n"],
  ["in quotes", 'Transfer-Encoding: "chunked"\r\n'],
  ["behind a comma", "Transfer-Encoding: ,chunked\r\n"],
  ["behind a bare LF", "X-A: y\nTransfer-Encoding: chunked\r\n"],
  ["behind a bare CR", "X-A: y\rTransfer-Encoding: chunked\r\n"],
  ["in a folded line", "Transfer-Encoding:\r\n chunked\r\n"],
  ["under an underscore", "Transfer_Encoding: chunked\r\n"],
  ["with a NUL", "Transfer-Encoding: chunked\0\r\n"],
  ["above ASCII", "Transfer-Encoding: chunked\xff\r\n"],
  ["in small and capital letters", "tRANSFER-eNCODING: ChUnKeD\r\n"],
] as const;

const lengths = [
  ["twice, the first shorter", `Content-Length: 0\r\n${withLength(hidden)}`],
  ["twice, the second shorter", `${withLength(hidden)}Content-Length: 0\r\n`],
  ["as a list", `Content-Length: 0, ${hidden.length}\r\n`],
  ["with a plus", `Content-Length: +${hidden.length}\r\n`],
  ["with a minus", "Content-Length: -1\r\n"],
  ["in hexadecimal", `Content-Length: 0x${hex}\r\n`],
  ["with an underscore", "Content-Length: 1_0\r\n"],
  ["with a space within", "Content-Length: 1 0\r\n"],
  ["before a space and a colon", `Content-Length : ${hidden.length}\r\n`],
  [
    "under an underscore",
    `Content_Length: ${hidden.length}\r\nContent-Length: ${hidden.length}\r\n`,
  ],
  ["that Connection takes away", `Connection: Content-Length\r\n${withLength(hidden)}`],
  ["beyond all numbers", "Content-Length: 99999999999999999999\r\n"],
] as const;

const chunks = [
  ["whose size has a sign", `+${hex}\r\n${hidden}\r\n0\r\n\r\n`],
  ["whose size is a C number", `0x${hex}\r\n${hidden}\r\n0\r\n\r\n`],
  ["whose size overflows", `10000000000000000${hex}\r\n${hidden}\r\n0\r\n\r\n`],
  ["whose line ends with LF", `${hex}\n${hidden}\r\n0\r\n\r\n`],
  ["whose data end with LF", `${hex}\r\n${hidden}\n0\r\n\r\n`],
  ["whose extension has a LF", `2;a\nxx\r\n${hex}\r\n${hidden}\r\n0\r\n\r\n`],
  ["whose extension has a CR", `2;a\rxx\r\n${hex}\r\n${hidden}\r\n0\r\n\r\n`],
  ["shorter than their data", `1\r\nab\r\n0\r\n\r\n${hidden}`],
  ["behind an empty size", `\r\n0\r\n\r\n${hidden}`],
  [
    "with a length in the trailers",
    `${chunk("hello")}0\r\nContent-Length: ${hidden.length}\r\n\r\n`,
  ],
] as const;

const methods = ["GET", "HEAD", "DELETE", "OPTIONS", "PUT", "PATCH"] as const;
const upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";

const one = (name: string, bytes: string): SmugglingCase => ({ name, bytes, asked: 1 });

export const smugglingCases: readonly SmugglingCase[] = [
  ...codings.map(([name, line]) =>
    one(`a coding ${name}`, post(`${withLength(zeroFirst)}${line}`, zeroFirst)),
  ),
  // Under an underscore it is another header, so that what follows four bytes is a request indeed.
  ...codings
    .filter(([name]) => name !== "under an underscore")
    .map(([name, line]) =>
      one(
        `a coding ${name}, a short length`,
        post(`Content-Length: 4\r\n${line}`, `${hex}\r\n${hidden}\r\n0\r\n\r\n`),
      ),
    ),
  ...lengths.map(([name, line]) => one(`a length ${name}`, post(line, hidden))),
  ...chunks.map(([name, body]) => one(`chunks ${name}`, post(chunked, body))),
  ...methods.map((method) =>
    one(
      `a request in the chunks of ${method}`,
      post(chunked, `${chunk(hidden)}0\r\n\r\n`).replace("POST", method),
    ),
  ),
  ...methods.map((method) =>
    one(
      `a request in the body of ${method}`,
      post(withLength(hidden), hidden).replace("POST", method),
    ),
  ),
  one("chunks in HTTP/1.0", post(`${chunked}`, zeroFirst, "1.0")),
  one(
    "a body in the answer to an expectation",
    post(`Expect: 100-continue\r\n${withLength(hidden)}`, hidden),
  ),
  one(
    "a websocket with a body",
    post(`${upgrade}${withLength(hidden)}`, hidden).replace("POST", "GET"),
  ),
  one(
    "bytes behind a websocket",
    `${post(upgrade, "").replace("POST", "GET")}${hidden.replace("GET", "HID")}`,
  ),
  one("a body that is cut", post(`Content-Length: ${hidden.length + 50}\r\n`, hidden)),
  one("a header in the target", `GET /p-@M@ HTTP/1.1\r\nX: /smuggled HTTP/1.1\r\n${host}\r\n`),
  {
    name: "two requests, one behind the other",
    bytes: `${post(withLength(hidden), hidden)}GET /q-@M@ HTTP/1.1\r\n${host}\r\n`,
    asked: 2,
  },
];
