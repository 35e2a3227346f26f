/**
 * A stream of HTTP/2 as a request of HTTP/1.
 *
 * node:http2 offers the same objects as node:http, nearly. The differences end in this file: a stream
 * comes out of it as a request whose headers are those of HTTP/1.1 (one Host, one Cookie line, no
 * pseudo-headers), so that every rule of the request path holds for it as it stands.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import { constants, type Http2ServerRequest, type Http2ServerResponse } from "node:http2";
import { headerValues } from "../../contract/raw-headers.ts";

/** Not a version that a request line of HTTP/1 can carry: only a real stream gets it. */
const streamVersion = "2";

/** Headers of one connection have no place in HTTP/2 (RFC 9113 section 8.2.2). */
const ofConnection: ReadonlySet<string> = new Set([
  "connection",
  "keep-alive",
  "transfer-encoding",
]);

export function asHttp1(
  req: Http2ServerRequest,
  res: Http2ServerResponse,
): { readonly req: IncomingMessage; readonly res: ServerResponse } {
  const write = res.writeHead.bind(res);
  Object.defineProperties(req, {
    rawHeaders: { value: http1Headers(req) },
    httpVersion: { value: streamVersion },
  });
  Object.defineProperties(res, {
    writeHead: {
      value: (status: number, headers: readonly string[]) => {
        const kept: string[] = [];
        for (let at = 0; at + 1 < headers.length; at += 2) {
          const name = (headers[at] ?? "").toLowerCase();
          if (!ofConnection.has(name)) kept.push(name, headers[at + 1] ?? "");
        }
        return write(status, kept);
      },
    },
    destroyed: { get: () => res.stream.destroyed },
    // An answer that is cut off must not look finished.
    destroy: { value: () => res.stream.close(constants.NGHTTP2_INTERNAL_ERROR) },
    // Framed by the protocol: its end cannot be taken for the end of the connection.
    chunkedEncoding: { value: true },
  });
  return { req: req as unknown as IncomingMessage, res: res as unknown as ServerResponse };
}

function http1Headers(req: Http2ServerRequest): string[] {
  const raw = req.rawHeaders;
  const headers: string[] = [];
  // A length of nothing is believed when the stream ends: bytes may come that make the request malformed.
  const isOpen = !req.stream.endAfterHeaders;
  const authorities = headerValues(raw, ":authority");
  for (const authority of authorities) headers.push("Host", authority);
  for (let at = 0; at + 1 < raw.length; at += 2) {
    const name = raw[at] ?? "";
    const value = raw[at + 1] ?? "";
    // Without an authority it is Host that says it (RFC 9113 section 8.3.1).
    const isEcho = name === "host" && value === authorities[0];
    const isUnproved = isOpen && name === "content-length" && /^0+$/.test(value);
    const isLeftOut = name.startsWith(":") || name === "cookie" || isEcho || isUnproved;
    if (!isLeftOut) headers.push(name, value);
  }
  // Crumbs of one header (RFC 9113 section 8.2.3).
  const cookies = headerValues(raw, "cookie");
  if (cookies.length > 0) headers.push("cookie", cookies.join("; "));
  const unframed = isOpen && headerValues(headers, "content-length").length === 0;
  // Of this hop, as in HTTP/1.1: it says that there is a body, and goes no further.
  if (unframed) headers.push("transfer-encoding", "chunked");
  return headers;
}
