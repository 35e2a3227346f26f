/**
 * One endpoint: an undici pool to one origin, with seats in front of it.
 *
 * The limits are ours and not undici's: its queue is unbounded, its timers above one second tick in
 * half seconds, and its header timeout does not count the time a request waits for a connection.
 */
import type { Agent } from "node:https";
import { isIP, type LookupFunction } from "node:net";
import { buildConnector, Pool } from "undici";
import type { Clock } from "../clock.ts";
import {
  type Dial,
  type EndpointTlsSource,
  secureAgent,
  secureConnector,
  systemTls,
  withOneName,
} from "./endpoint-tls.ts";
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

const sideConnections = 4;

export type Endpoint = {
  /** As it was configured. */
  readonly url: string;
  /** In logs: the URL, and the address where it is one of several behind the URL's name. */
  readonly name: string;
  /** Path of the URL without a slash at its end, put before each request's path. */
  readonly basePath: string;
  readonly pool: Pool;
  /** For one request on a connection that nobody has used before; whoever opens it closes it. */
  readonly openFresh: () => Pool;
  /**
   * A few connections beside those of requests, opened when they are first needed: for short questions
   * about answers that hold all the others.
   */
  readonly side: () => Pool;
  /** For tunnels, which are no requests of the pool; undefined without TLS. */
  readonly tunnelAgent: Agent | undefined;
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
  /** Every connection goes to this address of the URL's host; its name stays what it is in HTTP and TLS. */
  readonly address?: string | undefined;
}): Endpoint {
  const { address } = options;
  const limits = { ...endpointLimits, ...options.limits };
  const url = new URL(options.url);
  const dial: Dial = {
    timeout: limits.connectMs,
    ...(address === undefined ? {} : { lookup: alwaysAt(address) }),
  };
  const connect =
    url.protocol === "https:"
      ? secureConnector(options.url, options.tls ?? systemTls, dial)
      : undefined;
  const connector = heedResets(connect ?? buildConnector({ ...dial, allowH2: false }));
  const open = (connections: number): Pool => {
    const plain = new Pool(url.origin, {
      connections,
      pipelining: 1,
      allowH2: false,
      connect: connector,
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
  let side: Pool | undefined;
  return {
    url: options.url,
    name: address === undefined ? options.url : `${options.url} at ${address}`,
    basePath: url.pathname.replace(/\/+$/, ""),
    pool,
    openFresh: () => open(1),
    side: () => {
      side ??= open(sideConnections);
      return side;
    },
    tunnelAgent: connect && secureAgent(options.url, options.tls ?? systemTls),
    slots: new Slots(options.clock, {
      inFlightMax: limits.connectionsMax,
      pendingMax: limits.pendingMax,
      queueMs: limits.queueMs,
      reserve: limits.reserve ?? 0,
    }),
    connectMs: limits.connectMs,
    close: async () => {
      await Promise.all([pool.destroy(), side?.destroy()]);
    },
  };
}

/**
 * To undici a reset is the good end of an answer that has no length, because some systems end connections
 * that way. Endpoints that die reset theirs too, and what they had begun is not whole: so undici shall not
 * know it for a reset.
 */
function heedResets(connector: buildConnector.connector): buildConnector.connector {
  const disguise = (error: Error) => {
    if (errorCode(error) === "ECONNRESET") Object.assign(error, { code: "ENDPOINT_RESET" });
  };
  return (target, done) =>
    connector(target, (...made) => {
      // Before undici's own.
      made[1]?.on("error", disguise);
      done(...made);
    });
}

/** What stands in the place of a question to DNS. */
const alwaysAt =
  (address: string): LookupFunction =>
  (_hostname, { all }, done) => {
    const family = isIP(address);
    if (all === true) done(null, [{ address, family }]);
    else done(null, address, family);
  };
