/** For tests only: one listener with nothing behind it but a handler, and raw bytes to it. */
import type { IncomingMessage, ServerResponse } from "node:http";
import { connect, type Socket } from "node:net";
import { afterEach } from "vitest";
import { type Clock, systemClock } from "../../runtime/clock.ts";
import type { Certificates } from "./certificates.ts";
import { type Connections, createConnections } from "./connections.ts";
import { type ListenLimits, listenLimits } from "./limits.ts";
import { type Listener, type ListenerProtocol, listen } from "./server.ts";

export type Handler = (req: IncomingMessage, res: ServerResponse) => void;

export type Started = Listener & {
  readonly port: number;
  /** Codes of bad input, refused connections and failed handshakes, in order. */
  readonly told: string[];
  readonly connections: Connections;
};

export type StartOptions = {
  readonly protocol?: ListenerProtocol;
  readonly limits?: Partial<ListenLimits>;
  readonly certificates?: Certificates;
  readonly clientsMax?: number;
  readonly perPeerMax?: number;
  readonly isTrusted?: (peer: string) => boolean;
  readonly requestsPerConnectionMax?: number;
  readonly farewell?: () => Promise<void> | void;
  readonly reusePort?: boolean;
  readonly port?: number;
  readonly clock?: Clock;
};

export const ok: Handler = (_req, res) => void res.end("ok");

/** What is started is cut after the test. */
export function createListenerBench() {
  const closers: Array<() => unknown> = [];
  afterEach(async () => {
    for (const close of closers.splice(0).reverse()) await close();
  });
  const start = async (handler: Handler, options: StartOptions = {}): Promise<Started> => {
    const told: string[] = [];
    const tell = (what: string) => void told.push(what);
    const connections = createConnections({
      totalMax: options.clientsMax ?? 1000,
      perPeerMax: options.perPeerMax ?? 1000,
      isTrusted: options.isTrusted ?? (() => false),
      onRefused: tell,
    });
    const address = { host: "127.0.0.1", port: options.port ?? 0, reusePort: false };
    const listener = await listen({
      protocol: options.protocol ?? "http",
      address: { ...address, reusePort: options.reusePort ?? false },
      clock: options.clock ?? systemClock,
      connections,
      certificates: options.certificates,
      routerId: "router-1",
      limits: { ...listenLimits, checkEveryMs: 50, ...options.limits },
      requestsPerConnectionMax: options.requestsPerConnectionMax ?? 0,
      onRequest: handler,
      onUpgrade: (_req, socket) => void socket.write("HTTP/1.1 101 Switching Protocols\r\n\r\n"),
      onBadInput: tell,
      onHandshakeFailed: tell,
      farewell: options.farewell ?? (() => {}),
    });
    closers.push(() => listener.drain({ announceMs: 0, graceMs: 0 }, AbortSignal.abort()));
    return { ...listener, port: listener.address.port, told, connections };
  };
  return { start, closers };
}

export type RawClient = {
  readonly socket: Socket;
  /** All that came so far, as latin1. */
  readonly text: () => string;
  readonly isClosed: () => boolean;
  /** Resolves when the connection is over. */
  readonly closed: Promise<void>;
};

/** Sends the bytes and keeps what comes. */
export function openRaw(
  port: number,
  bytes: string | Buffer,
  host: string = "127.0.0.1",
): RawClient {
  const socket = connect(port, host);
  let text = "";
  let over = false;
  const closed = new Promise<void>((resolve) => {
    socket.once("close", () => {
      over = true;
      resolve();
    });
  });
  socket.on("error", () => {});
  socket.on("data", (chunk: Buffer) => {
    text += chunk.toString("latin1");
  });
  socket.write(typeof bytes === "string" ? Buffer.from(bytes, "latin1") : bytes);
  return { socket, text: () => text, isClosed: () => over, closed };
}
