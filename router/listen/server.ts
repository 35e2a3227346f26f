/**
 * A listener of the router: `http` (HTTP/1 in clear), `h2c` (HTTP/2 in clear, with prior knowledge) or
 * `tls` (both, as the client chooses by ALPN). Each has every limit set and an orderly end.
 *
 * Plain options in, `{address, drain}` out: several of them may run in several threads on one address.
 */
import { createServer } from "node:http";
import { createServer as createTlsServer, type Server as TlsHttpServer } from "node:https";
import type { AddressInfo, Server, Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import { must } from "../../runtime/assert.ts";
import type { Clock } from "../../runtime/clock.ts";
import { errorCode } from "../../runtime/http/error-code.ts";
import { type ListenAt, type ListenWith, listenOn } from "../../runtime/listen.ts";
import { tlsVersionMin } from "../../runtime/tls/followed.ts";
import type { Certificates } from "./certificates.ts";
import { type Connections, guardConnections } from "./connections.ts";
import { type DrainTimes, drain, type Endable } from "./drain.ts";
import { type Http1Options, http1Settings, wireHttp1 } from "./http1.ts";
import { createHttp2, type Http2Side } from "./http2.ts";

export const listenerProtocols = ["http", "h2c", "tls"] as const;
export type ListenerProtocol = (typeof listenerProtocols)[number];

export const handshakeFailures = ["timeout", "reset", "client-certificate", "protocol"] as const;
export type HandshakeFailure = (typeof handshakeFailures)[number];

export type ListenerOptions = Http1Options & {
  readonly protocol: ListenerProtocol;
  readonly address: ListenAt | ListenWith;
  readonly clock: Clock;
  readonly connections: Connections;
  /** For `tls`. */
  readonly certificates?: Certificates | undefined;
  readonly onHandshakeFailed: (reason: HandshakeFailure) => void;
  /** Before what is left is cut: tunnels say goodbye. May be called again by the next listener. */
  readonly farewell: () => Promise<void> | void;
};

export type Listener = {
  readonly address: AddressInfo;
  /** Holds the listening socket, for another thread to take; connections stay here. */
  readonly server: Server;
  /** See `drain.ts`; `hurry` cuts at once. */
  readonly drain: (times: DrainTimes, hurry?: AbortSignal) => Promise<void>;
};

/** One protocol's servers, before they listen. */
type Opened = {
  readonly server: Server;
  readonly announce: (open: Iterable<Socket>) => void;
  readonly closeIdle: () => void;
};

export async function listen(options: ListenerOptions): Promise<Listener> {
  const { server, announce, closeIdle } = openers[options.protocol](options);
  const open = guardConnections(server, options.connections);
  const address = await listenOn(server, options.address);
  const ends: Endable = {
    announce: () => announce(open),
    stop: () => new Promise((resolve) => server.close(() => resolve())),
    closeIdle,
    farewell: options.farewell,
    cut: () => {
      for (const socket of open) socket.destroy();
    },
  };
  return { address, server, drain: (times, hurry) => drain(ends, options.clock, times, hurry) };
}

const openers: Readonly<Record<ListenerProtocol, (options: ListenerOptions) => Opened>> = {
  http: (options) => {
    const server = createServer(http1Settings(options.limits));
    const { announce } = wireHttp1(server, options);
    return { server, announce, closeIdle: () => server.closeIdleConnections() };
  },
  h2c: (options) => {
    const { server, announce, close } = createHttp2(options);
    return { server, announce, closeIdle: close };
  },
  tls: (options) => {
    const streams = createHttp2(options);
    const { server, secured } = openTls(options, streams);
    const plain = wireHttp1(server, options);
    return {
      server,
      announce: () => {
        plain.announce(secured);
        streams.announce();
      },
      closeIdle: () => {
        server.closeIdleConnections();
        streams.close();
      },
    };
  },
};

type SecureServer = {
  readonly server: TlsHttpServer;
  /** Open sockets of HTTP/1: answers hang on them, not on the raw ones below. */
  readonly secured: ReadonlySet<Socket>;
};

/**
 * One server of HTTP/1 under TLS that gives what has chosen HTTP/2 to the other side. (A server of
 * HTTP/2 that also speaks HTTP/1 has the opposite order of this, and loses all limits of HTTP/1.)
 */
function openTls(options: ListenerOptions, streams: Http2Side): SecureServer {
  const certificates = must(options.certificates, "certificates for a listener with TLS");
  const server = createTlsServer({
    ...http1Settings(options.limits),
    ...certificates.shared(),
    minVersion: tlsVersionMin,
    handshakeTimeout: options.limits.handshakeMs,
    ALPNProtocols: ["h2", "http/1.1"],
    SNICallback: (servername, done) => done(null, certificates.find(servername)?.context),
  });
  certificates.onChange(() => server.setSecureContext(certificates.shared()));
  const secured = new Set<Socket>();
  const serveHttp1 = server.listeners("secureConnection");
  server.removeAllListeners("secureConnection");
  server.on("secureConnection", (socket: TLSSocket) => {
    socket.on("error", () => {});
    if (socket.alpnProtocol === "h2") {
      streams.server.emit("connection", socket);
      return;
    }
    secured.add(socket);
    socket.once("close", () => secured.delete(socket));
    for (const serve of serveHttp1) serve.call(server, socket);
  });
  // node:https would take it for a bad request and have us answer in clear.
  server.removeAllListeners("tlsClientError");
  server.on("tlsClientError", (error, socket) => {
    options.onHandshakeFailed(handshakeFailureOf(error));
    socket.destroy();
  });
  return { server, secured };
}

function handshakeFailureOf(error: Error): HandshakeFailure {
  const code = errorCode(error);
  if (code === "ERR_TLS_HANDSHAKE_TIMEOUT") return "timeout";
  if (code === "ECONNRESET" || code === "EPIPE") return "reset";
  const isAboutClient = /PEER_DID_NOT_RETURN|CERT|SELF_SIGNED|ISSUER|UNABLE_TO/.test(code);
  return isAboutClient ? "client-certificate" : "protocol";
}
