/**
 * WebSocket tunnels, and the only file that knows http-proxy. It gets what the gate before it let
 * through: a GET of HTTP/1.1 that asks for `websocket` and has no body, with headers built anew. Its
 * `.web()` is never called: it smuggles requests and dies of a `Trailer` header.
 *
 * What must always be true: bytes of the client reach the cell only after the cell's 101; the 101 is
 * judged by rule R2 like any answer; an answer that is no 101 goes to the client as that answer and
 * ends the connection; whatever happens, both sockets have a listener for errors and a limit of time.
 */
import type { ClientRequest, IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import httpProxy from "http-proxy";
import { CellError } from "../../contract/errors.ts";
import type { FoundRoute } from "../../contract/keyspace-routes.ts";
import type { RawHeaders } from "../../contract/raw-headers.ts";
import type { Timer } from "../../runtime/clock.ts";
import { clientGone } from "../../runtime/http/forward.ts";
import { stripResponseHeaders } from "../../runtime/http/hop-headers.ts";
import { errorFields } from "../../runtime/log.ts";
import { aboutTarget, answerer, isConfirmed, unconfirmed, wireHeaders } from "../answer/attempt.ts";
import { isNotAdmitted } from "../answer/confirm.ts";
import { conclude } from "../observe/conclude.ts";
import type { Evidence } from "../cells/breaker.ts";
import type { Picked } from "../cells/endpoints.ts";
import type { RequestRecord } from "../observe/record.ts";
import type { Placed } from "../place/decide.ts";
import { ClientGone } from "../place/place.ts";
import { type Arrival, receive } from "../receive/receive.ts";
import { rewriteResponse } from "../receive/rewrite-headers.ts";
import { beginRecord, placeArrival, type ServeContext } from "../serve.ts";
import { endWith } from "./bad-input.ts";

export type Tunnels = {
  readonly serve: (req: IncomingMessage, socket: Socket, head: Buffer) => void;
  readonly open: () => number;
  /** Ends every tunnel. */
  readonly close: () => void;
};

export type TunnelLimits = {
  /** From the request to the cell's answer. */
  readonly answerMs: number;
  /** Longest silence in both directions. */
  readonly idleMs: number;
};
export const tunnelLimits: TunnelLimits = { answerMs: 10_000, idleMs: 3_600_000 };

type Opening = {
  readonly context: ServeContext;
  readonly limits: TunnelLimits;
  readonly req: IncomingMessage;
  readonly socket: Socket;
  readonly head: Buffer;
  readonly record: RequestRecord;
};

export function createTunnels(context: ServeContext, limits: TunnelLimits): Tunnels {
  const open = new Set<Socket>();
  return {
    serve: (req, socket, head) => {
      open.add(socket);
      socket.on("error", () => socket.destroy());
      socket.once("close", () => open.delete(socket));
      const record = beginRecord(context, req);
      socket.once("close", () => finish(context, record, socket));
      const opening = { context, limits, req, socket, head, record };
      openTunnel(opening).catch((error: unknown) => rescue(opening, error));
    },
    open: () => open.size,
    close: () => {
      for (const socket of open) socket.destroy();
    },
  };
}

async function openTunnel(opening: Opening): Promise<void> {
  const { context, req, socket, record } = opening;
  const arrival = await receive(context, req, record);
  if (arrival.route.class === "fan-out") {
    throw new CellError("METHOD_NOT_ALLOWED", "A tunnel cannot go to all cells at once.");
  }
  const gone = new AbortController();
  socket.once("close", () => gone.abort(clientGone));
  const placed = await placeArrival(context, arrival, record, gone.signal);
  if (socket.destroyed) throw new ClientGone();
  connect(opening, arrival, placed);
}

function connect(opening: Opening, arrival: Arrival, placed: Placed): void {
  const { context, limits, req, socket, head, record } = opening;
  const picked = context.endpoints.pick(placed.endpoints, undefined);
  if (picked === undefined) throw failure(placed, undefined);
  const { endpoint } = picked;
  const tell = teller(context, picked, arrival);
  socket.once("close", () => tell({ kind: "none" }));
  const nonce = context.random.hex(12);
  record.attempt = 1;
  record.upstream = endpoint.url;
  record.forwardedMs = context.clock.monotonicMs();
  const { subject, route } = arrival;
  req.headers = headerObject([
    ...arrival.headers,
    ...wireHeaders({ placed, subject, routeClass: route.class }, nonce, context),
    ...["connection", "Upgrade", "upgrade", "websocket"],
  ]);
  const proxy = httpProxy.createProxyServer({});
  const timer = context.clock.after(limits.answerMs, () => {
    tell({ kind: "failed", reason: "timeout" });
    const text = aboutTarget(placed, "TARGET did not answer in time.");
    fail(opening, new CellError("CELL_TIMEOUT", text));
  });
  const judged = { opening, placed, arrival, nonce, timer, tell };
  proxy.on("proxyReqWs", (outgoing: ClientRequest) => {
    // http-proxy would join slashes; the cell is asked for what the client asked for.
    outgoing.path = endpoint.basePath + arrival.path;
    socket.once("close", () => outgoing.destroy());
    // Heard before http-proxy hears it, which then writes what is left in the headers.
    outgoing.on("upgrade", (res, upstream) => onAnswer(judged, res, upstream));
    outgoing.on("response", (res) => onAnswer(judged, res, undefined));
  });
  proxy.ws(req, socket, head, { target: endpoint.url, agent: false, xfwd: false }, (error) => {
    timer.cancel();
    tell({ kind: "failed", reason: "connect" });
    if (record.status !== 0) socket.destroy();
    else fail(opening, failure(placed, error));
  });
}

/** What became of the attempt, told once: by whatever comes first. */
function teller(context: ServeContext, picked: Picked, { subject }: Arrival) {
  const who = subject.kind === "tenant" ? subject.tenant : "";
  let told = false;
  return (evidence: Evidence): void => {
    if (told) return;
    told = true;
    context.endpoints.note(picked, { evidence, who });
  };
}

function failure(placed: Placed, error: Error | undefined): CellError {
  const text = aboutTarget(placed, "TARGET cannot be reached.");
  return new CellError("CELL_UNREACHABLE", text, { cause: error });
}

type Judging = {
  readonly opening: Opening;
  readonly placed: Placed;
  readonly arrival: Arrival;
  readonly nonce: string;
  readonly timer: Timer;
  readonly tell: (evidence: Evidence) => void;
};

/** http-proxy writes `res.headers` to the client right after this: what is not in them is not sent. */
function onAnswer(judging: Judging, res: IncomingMessage, upstream: Socket | undefined): void {
  const { opening, placed, timer } = judging;
  const { context, socket, record, limits } = opening;
  const { wire, route } = placed;
  const gated = wire === "enforce" || wire === "observe";
  timer.cancel();
  judging.tell({ kind: "answered" });
  res.on("error", () => socket.destroy());
  upstream?.on("error", () => socket.destroy());
  if (gated && route !== undefined && !isGood(judging, route, res)) {
    upstream?.destroy();
    res.destroy();
    fail(opening, unconfirmed(route));
    return;
  }
  const status = upstream === undefined ? (res.statusCode ?? 0) : 101;
  record.status = status;
  const headers = rewriteResponse({
    headers: stripResponseHeaders(res.rawHeaders),
    requestId: record.trace.requestId,
    from: context.cellHeaders ? answerer(placed) : undefined,
    gated,
  });
  // An answer that is no 101 is written without its framing, so its end is the connection's end.
  const own =
    upstream === undefined
      ? ["connection", "close"]
      : ["connection", "Upgrade", "upgrade", "websocket"];
  res.headers = headerObject([...headers, ...own]);
  if (upstream === undefined) delete res.headers["content-length"];
  else watchSilence(opening, upstream, limits.idleMs);
}

function isGood(judging: Judging, route: FoundRoute, res: IncomingMessage): boolean {
  const { opening, placed, arrival, nonce } = judging;
  const { context, record } = opening;
  const { rawHeaders: raw, statusCode: status = 0 } = res;
  if (isNotAdmitted(raw, nonce)) return status !== 421;
  return isConfirmed(context, { subject: arrival.subject, placed, record }, route, {
    raw,
    status,
    nonce,
  });
}

/** Looks now and then whether bytes have moved; cheaper than a timer per byte. */
function watchSilence({ context, socket }: Opening, upstream: Socket, idleMs: number): void {
  let moved = -1;
  let timer: Timer;
  const look = () => {
    const now = socket.bytesRead + upstream.bytesRead;
    if (now === moved) socket.destroy();
    else timer = context.clock.after(idleMs, look, { background: true });
    moved = now;
  };
  look();
  socket.once("close", () => {
    timer.cancel();
    upstream.destroy();
  });
  upstream.once("close", () => socket.end());
}

function fail({ context, socket, record }: Opening, error: CellError): void {
  if (record.status !== 0) return;
  record.errorCode = error.code;
  record.refusal = error;
  if (record.flag === "ok") record.flag = "refused";
  endWith(socket, error, context.routerId, record.trace.requestId);
  record.status = 503;
  // http-proxy does not know that the answer is given, and would write its own after it.
  socket.write = () => true;
}

function rescue(opening: Opening, error: unknown): void {
  if (error instanceof ClientGone) {
    opening.socket.destroy();
    return;
  }
  if (error instanceof CellError) {
    fail(opening, error);
    return;
  }
  opening.context.log.event("router.trouble", { where: "upgrade", ...errorFields(error) }, "error");
  fail(opening, new CellError("INTERNAL", "A fault in the router."));
}

function finish(context: ServeContext, record: RequestRecord, socket: Socket): void {
  const endedMs = context.clock.monotonicMs();
  record.bytesIn = socket.bytesRead;
  record.bytesOut = socket.bytesWritten;
  conclude(context, record, endedMs);
}

/** Duplicates become arrays, which node:http writes as lines of their own. */
function headerObject(raw: RawHeaders): Record<string, string | string[]> {
  const object: Record<string, string | string[]> = {};
  const spelling = new Map<string, string>();
  for (let at = 0; at + 1 < raw.length; at += 2) {
    const said = raw[at] ?? "";
    const name = spelling.get(said.toLowerCase()) ?? said;
    spelling.set(said.toLowerCase(), name);
    const before = object[name];
    const value = raw[at + 1] ?? "";
    if (before === undefined) object[name] = value;
    else object[name] = [...(Array.isArray(before) ? before : [before]), value];
  }
  return object;
}
