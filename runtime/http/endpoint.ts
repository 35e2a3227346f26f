/**
 * One endpoint: an undici pool to one origin, with seats in front of it.
 *
 * The limits are ours and not undici's: its queue is unbounded, its timers above one second tick in
 * half seconds, and its header timeout does not count the time a request waits for a connection.
 */
import type { SecureContext } from "node:tls";
import { buildConnector, Pool } from "undici";
import type { Clock } from "../clock.ts";
import { tlsVersionMin } from "../tls/followed.ts";
import { errorCode } from "./error-code.ts";
import { Slots } from "./slots.ts";

export type EndpointLimits = {
  /** Connections, and with one request on each, requests in flight. */
  readonly connectionsMax: number;
  readonly pendingMax: number;
  readonly queueMs: number;
  readonly connectMs: number;
  /** Seats and places in the queue that greedy requests do not get. */
  readonly reserve?: number;
};

export const endpointLimits: EndpointLimits = {
  connectionsMax: 256,
  pendingMax: 256,
  queueMs: 2000,
  connectMs: 2000,
};

/** How connections to `https:` endpoints are made; they are verified, always. */
export type EndpointTls = {
  /** Whom to trust and what to show; undefined: whom the system trusts, and nothing. */
  readonly context: SecureContext | undefined;
  /** The name that the certificate must carry; undefined: the host of the URL. */
  readonly servername: string | undefined;
};
export type EndpointTlsSource = {
  /** Asked for each new connection, so that what is read anew counts from then on. */
  readonly current: () => EndpointTls;
  /** A handshake that came to nothing. */
  readonly onFailed: (url: string, error: Error) => void;
};
const systemTls: EndpointTlsSource = {
  current: () => ({ context: undefined, servername: undefined }),
  onFailed: () => {},
};

export type Endpoint = {
  /** As it was configured; the name in logs. */
  readonly url: string;
  /** Path of the URL without a slash at its end, put before each request's path. */
  readonly basePath: string;
  readonly pool: Pool;
  /** For one request on a connection that nobody has used before; whoever opens it closes it. */
  readonly openFresh: () => Pool;
  readonly slots: Slots;
  readonly connectMs: number;
  /** Requests in flight are cut; for a quiet end wait until `slots.inFlight` is 0. */
  readonly close: () => Promise<void>;
};

export function createEndpoint(options: {
  readonly url: string;
  readonly clock: Clock;
  readonly limits?: Partial<EndpointLimits>;
  readonly tls?: EndpointTlsSource;
}): Endpoint {
  const limits = { ...endpointLimits, ...options.limits };
  const url = new URL(options.url);
  const connect =
    url.protocol === "https:"
      ? secureConnector(options.url, options.tls ?? systemTls, limits.connectMs)
      : undefined;
  const open = (connections: number): Pool => {
    const plain = new Pool(url.origin, {
      connections,
      pipelining: 1,
      allowH2: false,
      ...(connect === undefined ? { connectTimeout: limits.connectMs } : { connect }),
      // Below the keep-alive time of any sane server, so that the server does not close first.
      keepAliveTimeout: 4000,
      keepAliveMaxTimeout: 30_000,
      keepAliveTimeoutThreshold: 2000,
      headersTimeout: 0,
      bodyTimeout: 0,
      strictContentLength: true,
      maxHeaderSize: 64 * 1024,
    });
    return connect === undefined ? plain : withOneName(plain, url.hostname);
  };
  const pool = open(limits.connectionsMax);
  return {
    url: options.url,
    basePath: url.pathname.replace(/\/+$/, ""),
    pool,
    openFresh: () => open(1),
    slots: new Slots(options.clock, {
      inFlightMax: limits.connectionsMax,
      pendingMax: limits.pendingMax,
      queueMs: limits.queueMs,
      reserve: limits.reserve ?? 0,
    }),
    connectMs: limits.connectMs,
    close: () => pool.destroy(),
  };
}

/** A connector per material: its cache of sessions must not outlive the trust they were made under. */
function secureConnector(
  url: string,
  { current, onFailed }: EndpointTlsSource,
  timeout: number,
): buildConnector.connector {
  let made:
    | { readonly from: EndpointTls; readonly connector: buildConnector.connector }
    | undefined;
  return (target, done) => {
    const from = current();
    if (made === undefined || made.from !== from) {
      const { context: secureContext } = from;
      const connector = buildConnector({
        ...{ timeout, allowH2: false, rejectUnauthorized: true, minVersion: tlsVersionMin },
        ...(secureContext === undefined ? {} : { secureContext }),
      });
      made = { from, connector };
    }
    // Without a name undici takes that of the URL; an address is verified as an address.
    const { servername: _ofRequest, ...rest } = target;
    const { servername } = from;
    made.connector(servername === undefined ? rest : { ...rest, servername }, (...made) => {
      const [error] = made;
      if (error !== null && isTlsError(error)) onFailed(url, error);
      done(...made);
    });
  };
}

/** Of a handshake: verification on our side, or an alert of the other side's. */
export const isTlsError = (error: Error): boolean =>
  /^ERR_(TLS|SSL)_|CERT|SELF_SIGNED|UNABLE_TO_|^CRL_|^EPROTO$/.test(errorCode(error));

/**
 * The other side did not take our certificate. With TLS 1.3 that comes when the request is already sent;
 * the server has not read it, because its handshake never ended.
 */
export const isHandshakeAlert = (error: Error): boolean =>
  /^ERR_SSL_.*ALERT.*(CERTIFICATE|UNKNOWN_CA|ACCESS_DENIED)/.test(errorCode(error));

/**
 * Left alone, undici takes the name for TLS from each request's Host header, which is the client's, and
 * ends the connection whenever it changes. With one name for all it does neither.
 */
function withOneName(pool: Pool, servername: string): Pool {
  const named = pool.compose((dispatch) => (options, handler) => {
    const own: typeof options & { servername: string } = { ...options, servername };
    return dispatch(own, handler);
  });
  return named as unknown as Pool;
}
