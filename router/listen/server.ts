/**
 * The listener: node:http with every limit set, bad bytes answered without harm to the answer before
 * them, and an orderly end.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import type { Duplex } from "node:stream";
import { CellError } from "../../contract/errors.ts";
import { headerValues, listElements } from "../../contract/raw-headers.ts";
import type { Clock } from "../../runtime/clock.ts";
import { errorCode } from "../../runtime/http/error-code.ts";
import { bodyFraming } from "../../runtime/http/hop-headers.ts";
import { listenOn } from "../../runtime/listen.ts";
import { buildRefusal } from "../answer/refuse.ts";
import type { Address } from "../config.ts";

export const headerBytesMax = 32 * 1024;
const headersMs = 10_000;
/** Timeouts of node:http only fire on this tick. */
const checkEveryMs = 2000;
/** Above the 60 seconds of usual load balancers, so that they close first. */
const keepAliveMs = 65_000;
const sweepMs = 1000;

export type ListenerOptions = {
  readonly address: Address;
  readonly clock: Clock;
  readonly routerId: string;
  readonly clientsMax: number;
  readonly onRequest: (req: IncomingMessage, res: ServerResponse, expectsContinue: boolean) => void;
  readonly onUpgrade: (req: IncomingMessage, socket: Socket, head: Buffer) => void;
  /** Bytes that were no request, by code; connections beyond the limit. */
  readonly onBadInput: (code: string) => void;
};

export type Listener = {
  readonly address: AddressInfo;
  /** Takes no more connections, waits for requests in flight, cuts what is left after `graceMs`. */
  readonly drain: (graceMs: number) => Promise<void>;
};

export async function listen(options: ListenerOptions): Promise<Listener> {
  const server = createServer({
    maxHeaderSize: headerBytesMax,
    headersTimeout: headersMs,
    connectionsCheckingInterval: checkEveryMs,
    // Replaced by the body's own idle limit: a total would kill healthy large uploads.
    requestTimeout: 0,
    keepAliveTimeout: keepAliveMs,
    keepAlive: true,
    noDelay: true,
    // A missing Host is refused by check-request.ts, in our words.
    requireHostHeader: false,
    insecureHTTPParser: false,
    shouldUpgradeCallback: isTunnel,
  });
  // Counted over all fields by check-request.ts; Node would drop those beyond it in silence.
  server.maxHeadersCount = 0;
  server.maxConnections = options.clientsMax;
  wire(server, options);
  const address = await listenOn(server, options.address);
  return {
    address,
    drain: (graceMs) => drain(server, options.clock, graceMs),
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

function wire(server: Server, options: ListenerOptions): void {
  const serve = (req: IncomingMessage, res: ServerResponse, expectsContinue: boolean) => {
    // Heard by whoever reads the body or writes the answer; unheard they would end the process.
    req.on("error", () => {});
    res.on("error", () => {});
    options.onRequest(req, res, expectsContinue);
  };
  server.on("request", (req, res) => serve(req, res, false));
  server.on("checkContinue", (req, res) => serve(req, res, true));
  server.on("checkExpectation", (_req, res) => {
    res.on("error", () => {});
    options.onBadInput("EXPECTATION_FAILED");
    const error = new CellError("EXPECTATION_FAILED", "Only `Expect: 100-continue` is understood.");
    const refusal = buildRefusal(error, options.routerId, "");
    res.writeHead(refusal.status, [...refusal.headers]);
    res.end(refusal.body);
  });
  server.on("upgrade", (req, socket, head) => options.onUpgrade(req, socket as Socket, head));
  server.on("connect", (_req, socket) => {
    options.onBadInput("METHOD_NOT_ALLOWED");
    const error = new CellError("METHOD_NOT_ALLOWED", "CONNECT is not carried.");
    endWith(socket, error, options.routerId);
  });
  server.on("clientError", (error, socket) => onClientError(error, socket, options));
  server.on("drop", () => options.onBadInput("TOO_MANY_CONNECTIONS"));
}

/**
 * The bad bytes may follow a good request whose answer is still on its way: writing now would destroy
 * that answer, so the connection is closed after it.
 */
function onClientError(error: Error, socket: Duplex, options: ListenerOptions): void {
  const overflow = errorCode(error) === "HPE_HEADER_OVERFLOW";
  const code = overflow ? "HEADERS_TOO_LARGE" : "REQUEST_INVALID";
  options.onBadInput(code);
  if (!socket.writable || errorCode(error) === "ECONNRESET") {
    socket.destroy();
    return;
  }
  const pending: unknown = Reflect.get(socket, "_httpMessage");
  if (isPending(pending) && pending.req.complete) {
    pending.shouldKeepAlive = false;
    pending.once("finish", () => socket.end());
    return;
  }
  if (errorCode(error) === "ERR_HTTP_REQUEST_TIMEOUT") {
    // A status of its own (RFC 9110 section 15.5.9), though no code: nothing was asked for yet.
    socket.end("HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    return;
  }
  const text = overflow
    ? "The header section is larger than the limit."
    : "The request breaks the rules of HTTP.";
  endWith(socket, new CellError(code, text), options.routerId);
}

const isPending = (value: unknown): value is ServerResponse =>
  typeof value === "object" && value !== null && "req" in value && "finished" in value;

/** An answer where there is no response object to write it to. */
export function endWith(
  socket: Duplex,
  error: CellError,
  routerId: string,
  requestId: string = "",
): void {
  const { status, headers, body } = buildRefusal(error, routerId, requestId);
  const lines = [`HTTP/1.1 ${status} ${error.code}`];
  for (let at = 0; at + 1 < headers.length; at += 2) {
    if (headers[at] !== "connection") lines.push(`${headers[at]}: ${headers[at + 1]}`);
  }
  socket.on("error", () => socket.destroy());
  socket.end(`${lines.join("\r\n")}\r\nconnection: close\r\n\r\n${body}`, "latin1");
}

async function drain(server: Server, clock: Clock, graceMs: number): Promise<void> {
  const closed = new Promise<void>((resolve) => {
    server.close(() => resolve());
  });
  const sweep = () => {
    server.closeIdleConnections();
    timer = clock.after(sweepMs, sweep, { background: true });
  };
  let timer = clock.after(sweepMs, sweep, { background: true });
  const cut = clock.after(graceMs, () => server.closeAllConnections());
  await closed;
  timer.cancel();
  cut.cancel();
}
