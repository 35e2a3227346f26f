/**
 * WebSocket upgrades through the gate: the same checks as for any request, then a raw tunnel.
 *
 * Always true: the 101 carries the same confirmation as any other answer; a tunnel counts as a
 * request in flight, and is cut when its key closes, moves or loses its lease, because it would not
 * end by itself and the application behind it must not serve a key that has left.
 */
import { request as httpRequest, type IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { CellError } from "../../contract/errors.ts";
import { headers, internalPrefix } from "../../contract/headers.ts";
import { filterHeaders, headerValues, listElements } from "../../contract/raw-headers.ts";
import { stripResponseHeaders } from "../../runtime/http/hop-headers.ts";
import { decideConfirmation, type GateRequest, parseGateRequest } from "./gate-decision.ts";
import {
  admit,
  type IngressOptions,
  missingHeaders,
  outcomeUnknown,
  prepareHeaders,
  refusalError,
} from "./ingress.ts";
import { buildAnswer } from "./refusal.ts";

export type Tunnels = {
  readonly serve: (req: IncomingMessage, socket: Duplex, head: Buffer) => void;
  /** Cuts every tunnel whose request would not be confirmed any more. */
  readonly review: () => void;
  readonly close: () => void;
};

/** Longest wait for the application's answer to an upgrade, and longest silence in a tunnel. */
const answerMs = 30_000;
const idleMs = 900_000;
/** After one end has said its last word, the other has this long to say its own. */
const lingerMs = 2000;

/** Other protocols are ordinary requests; their `Upgrade` header is of one hop and removed. */
export const isWebSocketUpgrade = (req: IncomingMessage): boolean =>
  listElements(headerValues(req.rawHeaders, "upgrade")).includes("websocket");

export function createTunnels(options: IngressOptions & { readonly upstreamUrl: URL }): Tunnels {
  const open = new Map<GateRequest, () => void>();

  async function serve(req: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    const request = parseGateRequest((name) => headerValues(req.rawHeaders, name));
    if (request === undefined) return refuse(options, socket, missingHeaders());
    const prepared = prepareHeaders(req, request);
    if (prepared instanceof CellError) return refuse(options, socket, prepared, request.nonce);
    const admission = await admit(options, request);
    if (admission.kind === "refused") {
      return refuse(options, socket, refusalError(admission), request.nonce);
    }
    const cut = () => socket.destroy();
    const ticket = options.gate.enter(request.key, cut);
    open.set(request, cut);
    socket.once("close", () => {
      open.delete(request);
      ticket.leave();
    });
    options.onAdmitted(request);
    upgrade(options, request, prepared, req, socket, head);
  }

  return {
    serve: (req, socket, head) => {
      socket.on("error", () => socket.destroy());
      void serve(req, socket, head);
    },
    review: () => {
      for (const [request, cut] of [...open]) {
        if (decideConfirmation(request, options.view()).kind === "unknown") cut();
      }
    },
    close: () => {
      for (const cut of [...open.values()]) cut();
    },
  };
}

function upgrade(
  options: IngressOptions & { readonly upstreamUrl: URL },
  request: GateRequest,
  prepared: readonly string[],
  req: IncomingMessage,
  socket: Duplex,
  head: Buffer,
): void {
  const { upstreamUrl } = options;
  const outgoing = httpRequest({
    host: upstreamUrl.hostname.replace(/^\[|\]$/g, ""),
    port: upstreamUrl.port === "" ? 80 : Number(upstreamUrl.port),
    method: req.method ?? "GET",
    path: options.upstream.basePath + (req.url ?? "/"),
    headers: [...prepared, "connection", "Upgrade", "upgrade", "websocket"],
    agent: false,
    timeout: answerMs,
  });
  let connected = false;
  outgoing.once("socket", (raw: Socket) => {
    raw.once("connect", () => {
      connected = true;
    });
  });
  socket.once("close", () => outgoing.destroy());
  outgoing.once("timeout", () => outgoing.destroy(new Error("no answer in time")));
  outgoing.once("error", () => {
    // Before a connection nothing was sent, so the router may send it again.
    refuse(
      options,
      socket,
      new CellError(
        connected ? "OUTCOME_UNKNOWN" : "APP_UNREACHABLE",
        "The application did not answer.",
      ),
      connected ? undefined : request.nonce,
    );
  });
  outgoing.once("response", (response) => {
    if (!passHead(options, request, response, socket)) return;
    response.pipe(socket);
    response.once("end", () => linger(options, socket));
  });
  outgoing.once("upgrade", (response, appSocket, appHead) => {
    appSocket.on("error", () => appSocket.destroy());
    socket.once("close", () => appSocket.destroy());
    appSocket.once("close", () => socket.destroy());
    if (!passHead(options, request, response, socket)) return;
    appSocket.setTimeout(idleMs, () => appSocket.destroy());
    if (appHead.length > 0) socket.write(appHead);
    if (head.length > 0) appSocket.write(head);
    // A half-closed socket would stay for ever, and its request in flight with it.
    socket.once("end", () => linger(options, appSocket));
    appSocket.once("end", () => linger(options, socket));
    socket.pipe(appSocket).pipe(socket);
  });
  outgoing.end();
}

/** False: ownership or lease could not be confirmed, and that was answered instead. */
function passHead(
  options: IngressOptions,
  request: GateRequest,
  response: IncomingMessage,
  socket: Duplex,
): boolean {
  const confirmation = decideConfirmation(request, options.view());
  if (confirmation.kind === "unknown") {
    refuse(options, socket, outcomeUnknown(confirmation.reason));
    return false;
  }
  const status = response.statusCode ?? 502;
  const kept = filterHeaders(
    stripResponseHeaders(response.rawHeaders),
    (name) => !name.startsWith(internalPrefix),
  );
  kept.push(headers.confirm, confirmation.header);
  if (status === 101) kept.push("connection", "Upgrade", "upgrade", "websocket");
  else kept.push("connection", "close");
  writeHead(socket, status, response.statusMessage ?? "", kept);
  options.onDone(status, undefined);
  return true;
}

function refuse(
  options: IngressOptions,
  socket: Duplex,
  error: CellError,
  notAdmitted?: string,
): void {
  if (socket.destroyed || socket.writableEnded) return;
  const answer = buildAnswer(error, notAdmitted);
  options.onDone(answer.status, error.code);
  writeHead(socket, answer.status, error.code, [...answer.headers, "connection", "close"]);
  socket.end(answer.body);
  linger(options, socket);
}

/** Reads on, so that the other end's close is seen and unread bytes do not turn it into a reset. */
function linger(options: IngressOptions, socket: Duplex): void {
  socket.resume();
  const timer = options.clock.after(lingerMs, () => socket.destroy(), { background: true });
  socket.once("close", timer.cancel);
}

function writeHead(socket: Duplex, status: number, text: string, fields: readonly string[]): void {
  let head = `HTTP/1.1 ${status} ${text}\r\n`;
  for (let at = 0; at + 1 < fields.length; at += 2) head += `${fields[at]}: ${fields[at + 1]}\r\n`;
  socket.write(`${head}\r\n`, "latin1");
}
