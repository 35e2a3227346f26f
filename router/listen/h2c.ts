/**
 * Cleartext HTTP/2 with prior knowledge (`--h2c`), for load balancers that speak it to their backends.
 *
 * node:http2 offers the same objects as node:http, nearly. The differences end in this file: a stream
 * comes out of it as a request whose headers are those of HTTP/1.1 (one Host, one Cookie line, no
 * pseudo-headers), so that every rule of the request path holds for it as it stands. Floods are bounded
 * by the limits below; malformed messages are reset by the protocol library.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import {
  constants,
  createServer,
  type Http2ServerRequest,
  type Http2ServerResponse,
  type ServerHttp2Session,
} from "node:http2";
import { headerValues } from "../../contract/raw-headers.ts";
import type { Clock } from "../../runtime/clock.ts";
import { listenOn } from "../../runtime/listen.ts";
import type { Address } from "../config.ts";
import type { Listener, ListenerOptions } from "./server.ts";

/** Not a version that a request line of HTTP/1 can carry: only a real stream gets it. */
export const streamVersion = "2";

const streamsMax = 100;
/** Streams that a client may reset in one go, and per second. */
const resetBurst = 200;
const resetRate = 20;
const sessionMegabytesMax = 10;
const fieldsMax = 128;

export type H2cOptions = {
  readonly address: Address;
  readonly clock: Clock;
  readonly clientsMax: number;
  readonly onRequest: ListenerOptions["onRequest"];
};

export async function listenH2c(options: H2cOptions): Promise<Listener> {
  const sessions = new Set<ServerHttp2Session>();
  const server = createServer({
    settings: { maxConcurrentStreams: streamsMax, enablePush: false },
    streamResetBurst: resetBurst,
    streamResetRate: resetRate,
    maxSessionMemory: sessionMegabytesMax,
    maxHeaderListPairs: fieldsMax,
  });
  const serve =
    (expectsContinue: boolean) => (req: Http2ServerRequest, res: Http2ServerResponse) => {
      req.on("error", () => {});
      res.on("error", () => {});
      const client = asHttp1(req, res);
      options.onRequest(client.req, client.res, expectsContinue);
    };
  server.on("request", serve(false));
  server.on("checkContinue", serve(true));
  server.on("sessionError", () => {});
  server.on("session", (session) => {
    sessions.add(session);
    session.once("close", () => sessions.delete(session));
  });
  const address = await listenOn(server, options.address);
  return {
    address,
    drain: async (graceMs) => {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      // GOAWAY: streams in flight are finished, new ones are refused.
      for (const session of sessions) session.close();
      const cut = options.clock.after(graceMs, () => {
        for (const session of sessions) session.destroy();
      });
      await closed;
      cut.cancel();
    },
  };
}

/** Headers of one connection have no place in HTTP/2 (RFC 9113 section 8.2.2). */
const ofConnection: ReadonlySet<string> = new Set([
  "connection",
  "keep-alive",
  "transfer-encoding",
]);

function asHttp1(
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
  for (const authority of headerValues(raw, ":authority")) headers.push("Host", authority);
  for (let at = 0; at + 1 < raw.length; at += 2) {
    const name = raw[at] ?? "";
    const value = raw[at + 1] ?? "";
    const isEcho = name === "host" && value === req.authority;
    if (!name.startsWith(":") && name !== "cookie" && !isEcho) headers.push(name, value);
  }
  // Crumbs of one header (RFC 9113 section 8.2.3).
  const cookies = headerValues(raw, "cookie");
  if (cookies.length > 0) headers.push("cookie", cookies.join("; "));
  const unframed = !req.stream.endAfterHeaders && headerValues(raw, "content-length").length === 0;
  // Of this hop, as in HTTP/1.1: it says that there is a body, and goes no further.
  if (unframed) headers.push("transfer-encoding", "chunked");
  return headers;
}
