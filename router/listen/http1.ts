/**
 * HTTP/1: node:http with every limit set. The same wiring with and without TLS; whoever makes the
 * server gives it its sockets.
 */
import type { IncomingMessage, Server, ServerOptions, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { CellError, type ErrorCode } from "../../contract/errors.ts";
import { headerValues, listElements } from "../../contract/raw-headers.ts";
import { bodyFraming } from "../../runtime/http/hop-headers.ts";
import { buildRefusal } from "../answer/refuse.ts";
import { endWith, onClientError } from "./bad-input.ts";
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
  // No stream for a body that the head says is not there.
  optimizeEmptyRequests: true,
  // A missing Host is refused by check-request.ts, in our words.
  requireHostHeader: false,
  insecureHTTPParser: false,
  shouldUpgradeCallback: isTunnel,
});

export type Http1Side = {
  /** From now on every answer says that its connection ends; `open` are the sockets to look at. */
  readonly announce: (open: Iterable<Socket>) => void;
};

/** One for all: errors that somebody else sees as well. */
const heard = (): void => {};

export function wireHttp1(server: Server, options: Http1Options): Http1Side {
  let leaving = false;
  const answers = createAnswerOrder();
  const { begin, newest } = answers;
  const isLast = createRequestCount(options.requestsPerConnectionMax);
  // Counted over all fields by check-request.ts; Node would drop those beyond it in silence.
  server.maxHeadersCount = 0;
  const serve = (req: IncomingMessage, res: ServerResponse, expectsContinue: boolean) => {
    // Heard by whoever reads the body or writes the answer; unheard they would end the process.
    req.on("error", heard);
    res.on("error", heard);
    if (isBehindTheLast(req.socket, newest(req.socket))) return;
    begin(res);
    // Node then says so itself, whoever writes the head.
    if (leaving || isLast(req.socket) || losesTrack(req) || isClosed10(req)) {
      res.shouldKeepAlive = false;
    }
    options.onRequest(req, res, expectsContinue);
  };
  server.on("request", (req, res) => serve(req, res, false));
  server.on("checkContinue", (req, res) => serve(req, res, true));
  server.on("checkExpectation", (req, res) => {
    if (isBehindTheLast(req.socket, newest(req.socket))) return;
    begin(res);
    refuseExpectation(res, options);
  });
  server.on("upgrade", (req, socket, head) => {
    if (!endBehind(newest(socket), socket)) options.onUpgrade(req, socket as Socket, head);
  });
  server.on("connect", (_req, socket) => {
    if (endBehind(newest(socket), socket)) return;
    options.onBadInput("METHOD_NOT_ALLOWED");
    const error = new CellError("METHOD_NOT_ALLOWED", "CONNECT is not carried.");
    endWith(socket, error, options.routerId);
  });
  server.on("clientError", (error, socket) => {
    onClientError(error, socket, { ...options, ...answers });
  });
  return {
    announce: (open) => {
      leaving = true;
      for (const socket of open) {
        const last = newest(socket);
        if (last?.headersSent === false) last.shouldKeepAlive = false;
      }
    },
  };
}

/**
 * Behind an answer that ends the connection nothing is believed, so nothing is carried: the parser goes on
 * with what came in the same packet, and a cell would see a request that nobody gets an answer to.
 */
function isBehindTheLast(socket: Socket, before: ServerResponse | undefined): boolean {
  if (socket.writableEnded || socket.destroyed) return true;
  if (before === undefined) return false;
  // Node ends the connection behind an answer that came without the 100 that was asked for.
  if (
    Reflect.get(before, "_expect_continue") === true &&
    Reflect.get(before, "_sent100") !== true
  ) {
    before.shouldKeepAlive = false;
  }
  // `_last` is how Node remembers a `Connection: close` that it was told to write.
  return !before.shouldKeepAlive || Reflect.get(before, "_last") === true;
}

/**
 * The socket of an upgrade is ours at once, also while answers to the requests before it are under way:
 * the last of them ends the connection then, and the upgrade did not happen.
 */
function endBehind(last: ServerResponse | undefined, socket: Duplex): boolean {
  if (last === undefined) return false;
  if (!last.headersSent) last.shouldKeepAlive = false;
  socket.on("error", () => socket.destroy());
  last.once("close", () => socket.destroy());
  last.once("finish", () => socket.end());
  return true;
}

type Answers = { newest: ServerResponse; before: ServerResponse | undefined };

/**
 * The answers that a connection still owes, of which Node shows only the first. Requests come one behind
 * the other, so only the newest can have a body that is not whole yet.
 */
function createAnswerOrder() {
  const order = new WeakMap<Duplex, Answers>();
  const owed = (res: ServerResponse | undefined) =>
    res === undefined || res.writableFinished || res.destroyed ? undefined : res;
  return {
    begin: (res: ServerResponse): void => {
      const { socket } = res.req;
      const answers = order.get(socket);
      if (answers === undefined) {
        order.set(socket, { newest: res, before: undefined });
        return;
      }
      answers.before = answers.newest;
      answers.newest = res;
    },
    answeredEarly: (socket: Duplex): ServerResponse | undefined => {
      const last = order.get(socket)?.newest;
      return last?.writableEnded === true && !last.req.complete ? last : undefined;
    },
    newest: (socket: Duplex) => owed(order.get(socket)?.newest),
    /** The newest to a request that came whole. */
    lastWhole: (socket: Duplex): ServerResponse | undefined => {
      const { newest, before } = order.get(socket) ?? {};
      return newest?.req.complete === true ? owed(newest) : owed(before);
    },
  };
}

/**
 * Behind a request that asks for an upgrade and does not get it, Node drops what came in the same packet
 * and reads the next packet as if a request began there: the rest of a body would be one. So its answer
 * ends the connection (decision 0048).
 */
function losesTrack({ rawHeaders }: IncomingMessage): boolean {
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const name = rawHeaders[at];
    if (name?.length === 7 && name.toLowerCase() === "upgrade") return true;
  }
  return false;
}

/** Node takes `Proxy-Connection: keep-alive` for a `Connection`, and lets it win over `close` in HTTP/1.0. */
function isClosed10({ httpVersionMinor, rawHeaders }: IncomingMessage): boolean {
  if (httpVersionMinor !== 0) return false;
  const said = listElements(headerValues(rawHeaders, "connection"));
  return said.includes("close") || !said.includes("keep-alive");
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
  res.on("error", heard);
  options.onBadInput("EXPECTATION_FAILED");
  const error = new CellError("EXPECTATION_FAILED", "Only `Expect: 100-continue` is understood.");
  const refusal = buildRefusal(error, options.routerId, "");
  res.writeHead(refusal.status, [...refusal.headers]);
  res.end(refusal.body);
}
