/**
 * All listeners of one thread: opened together, drained together. What is common to them stands here:
 * how many may connect, which certificates are served, how it ends.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Server, Socket } from "node:net";
import type { ErrorCode } from "../../contract/errors.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { Log } from "../../runtime/log.ts";
import type { Metrics } from "../../runtime/metrics.ts";
import type { Address, RouterConfig } from "../config.ts";
import type { RouterEvents } from "../observe/events.ts";
import type { ListenerMetrics } from "../observe/listener-metrics.ts";
import { type Certificates, openCertificates } from "./certificates.ts";
import { createConnections, isLoopback } from "./connections.ts";
import { type ListenLimits, listenLimits } from "./limits.ts";
import { type Listener, type ListenerOptions, type ListenerProtocol, listen } from "./server.ts";

export type ListenersOptions = {
  readonly config: RouterConfig;
  readonly clock: Clock;
  readonly log: Log<RouterEvents>;
  readonly registry: Metrics;
  readonly certificates: Certificates | undefined;
  readonly metrics: ListenerMetrics;
  readonly isTrusted: (peer: string) => boolean;
  readonly onRequest: (req: IncomingMessage, res: ServerResponse, expectsContinue: boolean) => void;
  readonly onUpgrade: (req: IncomingMessage, socket: Socket, head: Buffer) => void;
  readonly onBadInput: (code: ErrorCode) => void;
  /** The last thing before what is left is cut. */
  readonly farewell: () => Promise<void> | void;
  readonly limits?: Partial<ListenLimits>;
  /** Listening already, in another thread: taken instead of the addresses. */
  readonly sockets?: ListenerSockets | undefined;
};

/** By protocol. */
export type ListenerSockets = Readonly<Partial<Record<ListenerProtocol, Server>>>;

export type Listeners = {
  readonly port: number;
  readonly h2cPort: number | undefined;
  readonly tlsPort: number | undefined;
  /** Those that listen now, for another thread to take. */
  readonly sockets: ListenerSockets;
  /** `hurry` cuts at once. */
  readonly drain: (hurry: AbortSignal) => Promise<void>;
};

/** All or none. */
export async function openListeners(options: ListenersOptions): Promise<Listeners> {
  const { config, clock, registry, metrics } = options;
  const connections = createConnections({
    totalMax: config.clientsMax,
    perPeerMax: config.clientsPerIpMax,
    isTrusted: (peer) => isLoopback(peer) || options.isTrusted(peer),
    onRefused: (limit) => metrics.connectionsRefused.inc({ limit }),
  });
  registry.gaugeFrom(
    "cellfleet_router_connections_open",
    "Connections of clients.",
    connections.open,
  );
  const common: Omit<ListenerOptions, "protocol" | "address"> = {
    ...{ clock, connections },
    routerId: config.id,
    limits: { ...listenLimits, ...options.limits },
    requestsPerConnectionMax: config.requestsPerConnectionMax,
    certificates: options.certificates,
    onRequest: options.onRequest,
    onUpgrade: options.onUpgrade,
    onBadInput: options.onBadInput,
    onHandshakeFailed: (reason) => metrics.handshakesFailed.inc({ reason }),
    farewell: options.farewell,
  };
  const opened: Listener[] = [];
  const sockets: Partial<Record<ListenerProtocol, Server>> = {};
  const { reusePort } = config;
  const open = async (protocol: ListenerProtocol, address: Address | undefined) => {
    if (address === undefined) return undefined;
    const socket = options.sockets?.[protocol];
    const at = socket === undefined ? { ...address, reusePort } : { socket };
    const listener = await listen({ ...common, protocol, address: at });
    opened.push(listener);
    sockets[protocol] = listener.server;
    return listener.address.port;
  };
  const drain = async (hurry: AbortSignal, times = timesOf(config)) => {
    await Promise.all(opened.map((listener) => listener.drain(times, hurry)));
  };
  try {
    const port = (await open("http", config.listen)) ?? 0;
    const h2cPort = await open("h2c", config.h2c);
    const tlsPort = await open("tls", config.tls);
    return { port, h2cPort, tlsPort, sockets, drain };
  } catch (error) {
    await drain(AbortSignal.abort());
    throw error;
  }
}

const timesOf = ({ drainAnnounceMs, drainMs }: RouterConfig) => ({
  announceMs: drainAnnounceMs,
  graceMs: drainMs,
});

/** Undefined where no listener speaks TLS. Throws CONFIG_INVALID. */
export async function followCertificates(options: {
  readonly config: RouterConfig;
  readonly clock: Clock;
  readonly log: Log<RouterEvents>;
  readonly registry: Metrics;
  readonly metrics: ListenerMetrics;
}): Promise<Certificates | undefined> {
  const { config, clock, log, registry, metrics } = options;
  if (config.tls === undefined || config.tlsCerts === undefined) return undefined;
  const certificates = await openCertificates({
    clock,
    path: config.tlsCerts,
    defaultName: config.tlsDefault,
    clientCa: config.tlsClientCa,
    everyMs: config.tlsReloadMs,
    onLoaded: (all) => log.event("tls.loaded", { certificates: all.map(({ name }) => name) }),
    onRefused: (name, reason) => {
      metrics.certificatesRefused.inc({ for: "clients" });
      log.event("tls.refused", { name, reason, for: "clients" }, "error");
    },
  });
  registry.gaugeFrom(
    "cellfleet_router_tls_certificate_expiry_seconds",
    "Until the certificate that is served expires.",
    () =>
      certificates
        .list()
        .map(({ name, notAfterMs }) => [{ name }, (notAfterMs - clock.nowMs()) / 1000] as const),
    // Workers read the same files.
    "first",
  );
  return certificates;
}
