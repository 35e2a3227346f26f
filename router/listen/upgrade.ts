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
import { CellError, errorTable } from "../../contract/errors.ts";
import type { CellId } from "../../contract/ids.ts";
import { headerValues, listElements, type RawHeaders } from "../../contract/raw-headers.ts";
import type { Timer } from "../../runtime/clock.ts";
import type { Endpoint } from "../../runtime/http/endpoint.ts";
import { errorCode } from "../../runtime/http/error-code.ts";
import { clientGone } from "../../runtime/http/forward.ts";
import { stripResponseHeaders } from "../../runtime/http/hop-headers.ts";
import { errorFields } from "../../runtime/log.ts";
import { aboutTarget, answerer } from "../answer/attempt.ts";
import { isNotAdmitted } from "../answer/confirm.ts";
import { isConfirmed, isFromHalted, unconfirmed } from "../answer/passing-on.ts";
import { wireHeaders } from "../answer/wire-headers.ts";
import type { Evidence } from "../cells/breaker.ts";
import type { Picked } from "../cells/endpoints.ts";
import { checkTunnelShed, enterTunnel } from "../limits/stay.ts";
import { conclude } from "../observe/conclude.ts";
import type { RequestRecord } from "../observe/record.ts";
import type { Placed } from "../place/decide.ts";
import { ClientGone } from "../place/place.ts";
import { type Arrival, receive } from "../receive/receive.ts";
import { rewriteResponse } from "../receive/rewrite-headers.ts";
import { beginRecord, placeArrival, type ServeContext } from "../serve.ts";
import { endWith } from "./bad-input.ts";
import { type HeldWrites, holdWrites } from "./held-writes.ts";
import {
  type LifeLimits,
  lingerAfter,
  startLife,
  type TunnelEnd,
  type TunnelLife,
} from "./tunnel-life.ts";

export type Tunnels = {
  readonly serve: (req: IncomingMessage, socket: Socket, head: Buffer) => void;
  /** Also those that wait for their cell's answer. */
  readonly open: () => number;
  /** Ends the tunnels to these cells, and those that wait for their answer. */
  readonly endOf: (cells: ReadonlySet<CellId>) => void;
  /** Ends every tunnel; resolves when their clients have what was under way to them. */
  readonly close: () => Promise<void>;
};

export type TunnelLimits = LifeLimits & {
  /** From the request to the cell's answer. */
  readonly answerMs: number;
  readonly totalMax: number;
  readonly perTenantMax: number;
};
export const tunnelLimits: TunnelLimits = {
  answerMs: 10_000,
  idleMs: 3_600_000,
  ageMsMax: 0,
  totalMax: 5000,
  perTenantMax: 1000,
};

type Opening = {
  readonly context: ServeContext;
  readonly limits: TunnelLimits;
  readonly counts: TenantCounts;
  readonly req: IncomingMessage;
  readonly socket: Socket;
  readonly head: Buffer;
  readonly record: RequestRecord;
  /** Where it goes, once that is known. */
  cell: CellId | undefined;
  /** Undefined until the cell has said 101. */
  life: TunnelLife | undefined;
  /** The cell has answered, and its answer is not to be passed on yet. */
  held: HeldWrites | undefined;
};

const tunnelListenersMax = 30;

export function createTunnels(context: ServeContext, limits: TunnelLimits): Tunnels {
  const open = new Set<Opening>();
  const counts: TenantCounts = new Map();
  return {
    serve: (req, socket, head) => {
      socket.on("error", () => socket.destroy());
      // Each part of a tunnel's life waits for its end: more than Node takes for a leak.
      socket.setMaxListeners(tunnelListenersMax);
      const record = beginRecord(context, req);
      const opening: Opening = {
        ...{ context, limits, counts, req, socket, head, record },
        ...{ cell: undefined, life: undefined, held: undefined },
      };
      socket.once("close", () => {
        open.delete(opening);
        finish(context, record, socket);
      });
      if (open.size >= limits.totalMax) {
        fail(opening, new CellError("ROUTER_OVERLOADED", "The router has all the tunnels it may."));
        return;
      }
      open.add(opening);
      openTunnel(opening).catch((error: unknown) => rescue(opening, error));
    },
    open: () => open.size,
    endOf: (cells) => {
      for (const opening of open) {
        const { cell, life } = opening;
        if (cell === undefined || !cells.has(cell)) continue;
        if (life === undefined) fail(opening, unconfirmed({ shown: opening.record.cell }));
        else life.end("halted");
      }
    },
    close: async () => {
      const ends = [...open].map(({ life, socket }) => {
        const closed = new Promise((resolve) => socket.once("close", resolve));
        if (life === undefined) socket.destroy();
        else life.end("drain");
        return closed;
      });
      await Promise.all(ends);
    },
  };
}

type TenantCounts = Map<string, number>;

/** One tenant's tunnels leave room for those of others. Given back when the client's socket is closed. */
function takeTenantSeat({ counts, limits, socket }: Opening, { subject }: Arrival): void {
  if (subject.kind !== "tenant") return;
  const name = `${subject.keyspace}/${subject.tenant}`;
  const count = counts.get(name) ?? 0;
  if (count >= limits.perTenantMax) {
    const text = `The tenant has ${count} tunnels, as many as one may have.`;
    throw new CellError("TENANT_LIMITED", text);
  }
  counts.set(name, count + 1);
  socket.once("close", () => {
    const left = (counts.get(name) ?? 1) - 1;
    if (left === 0) counts.delete(name);
    else counts.set(name, left);
  });
}

async function openTunnel(opening: Opening): Promise<void> {
  const { context, req, socket, head, record } = opening;
  const arrival = await receive(context, req, record);
  if (arrival.route.class === "fan-out") {
    throw new CellError("METHOD_NOT_ALLOWED", "A tunnel cannot go to all cells at once.");
  }
  checkTunnelShed(context.limits, arrival.route);
  const gone = new AbortController();
  socket.once("close", () => gone.abort(clientGone));
  const weigh = () => req.rawHeaders.reduce((sum, { length }) => sum + length, head.length);
  const placed = await placeArrival(context, arrival, { record, gone, weigh });
  if (socket.destroyed) throw new ClientGone();
  takeTenantSeat(opening, arrival);
  socket.once("close", enterTunnel(context.limits, arrival.subject, placed));
  connect(opening, arrival, placed);
}

function connect(opening: Opening, arrival: Arrival, placed: Placed): void {
  const { context, limits, req, socket, head, record } = opening;
  opening.cell = placed.cell;
  const picked = context.endpoints.pick(placed.endpoints, undefined);
  if (picked === undefined) throw failure(placed, undefined);
  const { endpoint } = picked;
  const tell = teller(context, picked, arrival);
  socket.once("close", () => tell({ kind: "none" }));
  const nonce = context.random.hex(12);
  record.attempt = 1;
  record.upstream = endpoint.url;
  const sentMs = context.clock.monotonicMs();
  record.forwardedMs = sentMs;
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
  const judged = { opening, placed, arrival, nonce, endpoint, sentMs, timer, tell };
  proxy.on("proxyReqWs", (outgoing: ClientRequest) => {
    // http-proxy would join slashes; the cell is asked for what the client asked for.
    outgoing.path = endpoint.basePath + arrival.path;
    socket.once("close", () => outgoing.destroy());
    // Heard before http-proxy hears it, which then writes what is left in the headers.
    outgoing.on("upgrade", (res, upstream) => onAnswer(judged, res, upstream));
    outgoing.on("response", (res) => onAnswer(judged, res, undefined));
  });
  // http-proxy writes the head of the answer as a text; its bytes are latin1.
  socket.setDefaultEncoding("latin1");
  proxy.ws(
    req,
    socket,
    head,
    { target: endpoint.url, agent: endpoint.tunnelAgent ?? false, xfwd: false },
    (error) => {
      timer.cancel();
      tell({ kind: "failed", reason: "connect" });
      if (record.status !== 0) socket.destroy();
      else fail(opening, failure(placed, error));
    },
  );
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
  const code = error === undefined ? "" : errorCode(error);
  if (code === "ECONNRESET" || code.startsWith("HPE_")) {
    const text = aboutTarget(placed, "The answer of TARGET broke HTTP, or there was none.");
    return new CellError("CELL_PROTOCOL", text, { cause: error });
  }
  const text = aboutTarget(placed, "TARGET cannot be reached.");
  return new CellError("CELL_UNREACHABLE", text, { cause: error });
}

type Judging = {
  readonly opening: Opening;
  readonly placed: Placed;
  readonly arrival: Arrival;
  readonly nonce: string;
  readonly endpoint: Endpoint;
  /** Monotonic, from before the first byte. */
  readonly sentMs: number;
  readonly timer: Timer;
  readonly tell: (evidence: Evidence) => void;
};

/** http-proxy writes `res.headers` to the client right after this: what is not in them is not sent. */
function onAnswer(judging: Judging, res: IncomingMessage, upstream: Socket | undefined): void {
  const { opening, placed, timer } = judging;
  const { socket } = opening;
  const { wire } = placed;
  const gated = wire === "enforce" || wire === "observe";
  timer.cancel();
  judging.tell({ kind: "answered" });
  // Reset, not ended: an answer that is cut off must not look whole.
  res.on("error", () => socket.resetAndDestroy());
  upstream?.on("error", () => socket.destroy());
  if (!isUnderstood(res, upstream)) {
    upstream?.destroy();
    res.destroy();
    const text = aboutTarget(placed, "The answer of TARGET broke HTTP.");
    fail(opening, new CellError("CELL_PROTOCOL", text));
    return;
  }
  const good = gated ? isGood(judging, res) : true;
  res.headers = headersFor(judging, res, upstream, gated);
  if (typeof good === "boolean") {
    end(judging, res, upstream, good);
    return;
  }
  // What http-proxy writes meanwhile waits for the gate's second word.
  opening.held = holdWrites(socket);
  void good.then((late) => end(judging, res, upstream, late));
}

/** The answer is judged: it goes to the client, or an error in its place. */
function end(
  { opening, placed }: Judging,
  res: IncomingMessage,
  upstream: Socket | undefined,
  good: boolean,
): void {
  const { context, socket, record, held } = opening;
  // It may have ended otherwise while the gate was asked.
  if (record.status !== 0) return;
  if (!good) {
    upstream?.destroy();
    res.destroy();
    fail(opening, unconfirmed(placed));
    return;
  }
  record.status = upstream === undefined ? (res.statusCode ?? 0) : 101;
  if (upstream === undefined) socket.once("finish", () => lingerAfter(socket, context.clock));
  else stand(opening, upstream);
  opening.held = undefined;
  held?.release();
}

function headersFor(
  { opening, placed }: Judging,
  res: IncomingMessage,
  upstream: Socket | undefined,
  gated: boolean,
) {
  const { context, record } = opening;
  const headers = rewriteResponse({
    headers: stripResponseHeaders(res.rawHeaders),
    requestId: record.trace.requestId,
    from: context.cellHeaders ? answerer(placed) : undefined,
    gated,
  });
  // An answer that is no 101 ends with the connection; without a length, if it came in chunks.
  const own =
    upstream === undefined
      ? ["connection", "close"]
      : ["connection", "Upgrade", "upgrade", "websocket"];
  return headerObject([...headers, ...own]);
}

function stand(opening: Opening, cell: Socket): void {
  const { context, limits, socket: client } = opening;
  const { clock, random, metrics } = context;
  metrics.ws.inc();
  const onOver = (reason: TunnelEnd) => metrics.wsClosed.inc({ reason });
  opening.life = startLife({ clock, random, limits, client, cell, onOver });
}

/** A 101 to another protocol was not asked for; another coding than `chunked` would reach the client as it is. */
function isUnderstood(res: IncomingMessage, upstream: Socket | undefined): boolean {
  const listed = (name: string) => listElements(headerValues(res.rawHeaders, name)).join();
  if (upstream !== undefined) return listed("upgrade") === "websocket";
  return ["", "chunked"].includes(listed("transfer-encoding"));
}

function isGood(judging: Judging, res: IncomingMessage): boolean | Promise<boolean> {
  const { opening, placed, arrival, nonce, endpoint, sentMs } = judging;
  const { context, record } = opening;
  const { route } = placed;
  const { rawHeaders: raw, statusCode: status = 0 } = res;
  if (route === undefined) return !isFromHalted(context, placed);
  if (isNotAdmitted(raw, nonce)) return status !== 421;
  const answered = { subject: arrival.subject, routeClass: arrival.route.class, placed, record };
  return isConfirmed(context, answered, { route, endpoint, head: { raw, status, nonce, sentMs } });
}

function fail(opening: Opening, error: CellError): void {
  const { context, socket, record } = opening;
  if (record.status !== 0 || socket.destroyed) return;
  opening.held?.drop();
  opening.held = undefined;
  record.errorCode = error.code;
  record.refusal = error;
  if (record.flag === "ok") record.flag = "refused";
  endWith(socket, error, context.routerId, record.trace.requestId);
  record.status = errorTable[error.code].httpStatus;
  lingerAfter(socket, context.clock);
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
