/**
 * WebSocket upgrades through the gate: the same checks as for any request, then a raw tunnel.
 *
 * Always true: the 101 carries the same confirmation as any other answer; a tunnel that stands lasts
 * (`lasting.ts`): when its key has left, the application hears no more of it, and the client is told to
 * come again.
 */
import { request as httpRequest, type IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { CellError } from "../../contract/errors.ts";
import { headerValues, listElements } from "../../contract/raw-headers.ts";
import { must } from "../../runtime/assert.ts";
import { stripResponseHeaders } from "../../runtime/http/hop-headers.ts";
import { confirmHead, type Entered, enter } from "./entry.ts";
import { FrameEnd } from "./frame-end.ts";
import type { IngressOptions } from "./ingress.ts";
import { nonceOf } from "./passage.ts";
import { buildAnswer } from "./refusal.ts";
import { type Instance, onPrimary } from "./upstreams.ts";

export type Tunnels = {
  readonly serve: (req: IncomingMessage, socket: Duplex, head: Buffer) => void;
  readonly close: () => void;
};

/** Longest wait for the application's answer to an upgrade, and longest silence in a tunnel. */
const answerMs = 30_000;
const idleMs = 900_000;
/** After one end has said its last word, the other has this long to say its own. */
const lingerMs = 2000;
/** An application that is in the middle of a frame has this long to come to its end. */
const frameMs = 3000;

/** Other protocols are ordinary requests; their `Upgrade` header is of one hop and removed. */
export const isWebSocketUpgrade = (req: IncomingMessage): boolean =>
  listElements(headerValues(req.rawHeaders, "upgrade")).includes("websocket");

export function createTunnels(options: IngressOptions): Tunnels {
  const open = new Set<Duplex>();

  async function serve(req: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    const entry = await enter(options, req);
    if (entry.kind === "refused") return refuse(options, socket, entry.error, entry.nonce);
    if (socket.destroyed) return entry.ticket.leave();
    open.add(socket);
    socket.once("close", () => {
      open.delete(socket);
      options.lasting.over(entry);
      entry.ticket.leave();
    });
    upgrade({ options, entry, req, socket, head }, new Set());
  }

  return {
    serve: (req, socket, head) => {
      socket.on("error", () => socket.destroy());
      void serve(req, socket, head);
    },
    close: () => {
      for (const socket of [...open]) socket.destroy();
    },
  };
}

type Upgrade = {
  readonly options: IngressOptions;
  readonly entry: Entered;
  readonly req: IncomingMessage;
  readonly socket: Duplex;
  readonly head: Buffer;
};

function upgrade(wanted: Upgrade, tried: ReadonlySet<Instance>): void {
  const { options, entry, req, socket } = wanted;
  const instance = must(
    options.upstreams.pick(entry.service, onPrimary, tried),
    "an instance of the service that was not tried",
  );
  const url = new URL(instance.endpoint.url);
  const outgoing = httpRequest({
    host: url.hostname.replace(/^\[|\]$/g, ""),
    port: url.port === "" ? 80 : Number(url.port),
    method: req.method ?? "GET",
    path: instance.endpoint.basePath + (req.url ?? "/"),
    headers: [...entry.headers, "connection", "Upgrade", "upgrade", "websocket"],
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
    if (connected) fail(wanted, "OUTCOME_UNKNOWN", undefined);
    else tryAnother(wanted, instance, tried);
  });
  outgoing.once("response", (response) => {
    if (!passHead(wanted, response)) return;
    response.pipe(socket);
    response.once("end", () => linger(options, socket));
  });
  outgoing.once("upgrade", (response, appSocket: Socket, appHead) => {
    appSocket.on("error", () => appSocket.destroy());
    socket.once("close", () => appSocket.destroy());
    if (socket.destroyed || !passHead(wanted, response)) {
      appSocket.destroy();
      return;
    }
    connectBoth(wanted, appSocket, appHead);
  });
  outgoing.end();
}

function connectBoth(
  { options, entry, socket, head }: Upgrade,
  app: Socket,
  appHead: Buffer,
): void {
  const frames = new FrameEnd();
  const cut = () => socket.destroy();
  app.once("close", cut);
  app.setTimeout(idleMs, () => app.destroy());
  if (appHead.length > 0) frames.write(appHead);
  if (head.length > 0) app.write(head);
  // A half-closed socket would stay for ever, and its request in flight with it.
  socket.once("end", () => linger(options, app));
  app.once("end", () => linger(options, socket));
  socket.pipe(app).pipe(frames).pipe(socket);
  options.lasting.add(entry, () => {
    app.off("close", cut);
    socket.unpipe(app);
    // What the client still says is for nobody: the key has left.
    linger(options, socket);
    const late = options.clock.after(frameMs, over, { background: true });
    frames.sayRestart(over);
    function over(): void {
      late.cancel();
      app.destroy();
      // Ends the socket behind what was said.
      if (!frames.writableEnded) frames.end();
    }
  });
}

/** Before a connection nothing was sent, so another instance may have it, or the router send it again. */
function tryAnother(wanted: Upgrade, refused: Instance, before: ReadonlySet<Instance>): void {
  const { options, entry, socket } = wanted;
  options.upstreams.suspect(refused);
  const tried = new Set([...before, refused]);
  if (socket.destroyed) return;
  if (options.upstreams.pick(entry.service, onPrimary, tried) === undefined) {
    fail(wanted, "APP_UNREACHABLE", nonceOf(entry.asked));
  } else upgrade(wanted, tried);
}

const fail = (
  { options, socket }: Upgrade,
  code: "OUTCOME_UNKNOWN" | "APP_UNREACHABLE",
  notAdmitted: string | undefined,
): void =>
  refuse(options, socket, new CellError(code, "The application did not answer."), notAdmitted);

/** False: ownership or lease could not be confirmed, and that was answered instead. */
function passHead({ options, entry, socket }: Upgrade, response: IncomingMessage): boolean {
  const verdict = confirmHead(options, entry, stripResponseHeaders(response.rawHeaders));
  if (verdict.kind === "replace") {
    refuse(options, socket, verdict.error);
    return false;
  }
  const status = response.statusCode ?? 502;
  const kept = [...verdict.headers];
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
