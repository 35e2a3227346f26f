/**
 * HTTP/1: node:http with every limit set. The same wiring with and without TLS; whoever makes the
 * server gives it its sockets.
 */
import type { IncomingMessage, Server, ServerOptions, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { CellError, type ErrorCode } from "../../contract/errors.ts";
import { headerValues, listElements } from "../../contract/raw-headers.ts";
import { bodyFraming } from "../../runtime/http/hop-headers.ts";
import { buildRefusal } from "../answer/refuse.ts";
import { endWith, onClientError, pendingAnswer } from "./bad-input.ts";
import type { ListenLimits } from "./limits.ts";

export type Http1Options = {
  readonly routerId: string;
  readonly limits: ListenLimits;
  /** After so many a connection is closed, in good order; 0: never. */
  readonly requestsPerConnectionMax: number;
  readonly onRequest: (req: IncomingMessage, res: ServerResponse, expectsContinue: boolean) => void;
  readonly onUpgrade: (req: IncomingMessage, socket: Socket, head: Buffer) => void;
  /** Bytes that were no request, by code. */
  readonly onBadInput: (code: ErrorCode) => void;
};

export const http1Settings = (limits: ListenLimits): ServerOptions => ({
  maxHeaderSize: limits.headerBytesMax,
  headersTimeout: limits.headersMs,
  connectionsCheckingInterval: limits.checkEveryMs,
  // Replaced by the body's own idle limit: a total would kill healthy large uploads.
  requestTimeout: 0,
  keepAliveTimeout: limits.keepAliveMs,
  keepAlive: true,
  noDelay: true,
  // A missing Host is refused by check-request.ts, in our words.
  requireHostHeader: false,
  insecureHTTPParser: false,
  shouldUpgradeCallback: isTunnel,
});

export type Http1Side = {
  /** From now on every answer says that its connection ends; `open` are the sockets to look at. */
  readonly announce: (open: Iterable<Socket>) => void;
};

export function wireHttp1(server: Server, options: Http1Options): Http1Side {
  let leaving = false;
  const isLast = createRequestCount(options.requestsPerConnectionMax);
  // Counted over all fields by check-request.ts; Node would drop those beyond it in silence.
  server.maxHeadersCount = 0;
  const serve = (req: IncomingMessage, res: ServerResponse, expectsContinue: boolean) => {
    // Heard by whoever reads the body or writes the answer; unheard they would end the process.
    req.on("error", () => {});
    res.on("error", () => {});
    // Node then says so itself, whoever writes the head.
    if (leaving || isLast(req.socket)) res.shouldKeepAlive = false;
    options.onRequest(req, res, expectsContinue);
  };
  server.on("request", (req, res) => serve(req, res, false));
  server.on("checkContinue", (req, res) => serve(req, res, true));
  server.on("checkExpectation", (_req, res) => refuseExpectation(res, options));
  server.on("upgrade", (req, socket, head) => options.onUpgrade(req, socket as Socket, head));
  server.on("connect", (_req, socket) => {
    options.onBadInput("METHOD_NOT_ALLOWED");
    const error = new CellError("METHOD_NOT_ALLOWED", "CONNECT is not carried.");
    endWith(socket, error, options.routerId);
  });
  server.on("clientError", (error, socket) => onClientError(error, socket, options));
  return {
    announce: (open) => {
      leaving = true;
      for (const socket of open) {
        const pending = pendingAnswer(socket);
        if (pending?.headersSent === false) pending.shouldKeepAlive = false;
      }
    },
  };
}

/**
 * Is this the last request of its connection? Node's own limit says so to the client, leaves the
 * connection open and answers 503 to the next one.
 */
function createRequestCount(max: number): (socket: Socket) => boolean {
  if (max === 0) return () => false;
  const served = new WeakMap<Socket, number>();
  return (socket) => {
    const count = (served.get(socket) ?? 0) + 1;
    served.set(socket, count);
    return count >= max;
  };
}

/** What else asks for an upgrade (h2c, for one) is served as the plain request that it is too. */
export function isTunnel(req: IncomingMessage): boolean {
  return (
    req.method === "GET" &&
    req.httpVersion === "1.1" &&
    listElements(headerValues(req.rawHeaders, "connection")).includes("upgrade") &&
    listElements(headerValues(req.rawHeaders, "upgrade")).join() === "websocket" &&
    bodyFraming(req.rawHeaders).kind === "none"
  );
}

function refuseExpectation(res: ServerResponse, options: Http1Options): void {
  res.on("error", () => {});
  options.onBadInput("EXPECTATION_FAILED");
  const error = new CellError("EXPECTATION_FAILED", "Only `Expect: 100-continue` is understood.");
  const refusal = buildRefusal(error, options.routerId, "");
  res.writeHead(refusal.status, [...refusal.headers]);
  res.end(refusal.body);
}
