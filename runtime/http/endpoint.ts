/**
 * One endpoint: an undici pool to one origin, with seats in front of it.
 *
 * The limits are ours and not undici's: its queue is unbounded, its timers above one second tick in
 * half seconds, and its header timeout does not count the time a request waits for a connection.
 */
import { Pool } from "undici";
import type { Clock } from "../clock.ts";
import { Slots } from "./slots.ts";

export type EndpointLimits = {
  /** Connections, and with one request on each, requests in flight. */
  readonly connectionsMax: number;
  readonly pendingMax: number;
  readonly queueMs: number;
  readonly connectMs: number;
};

export const endpointLimits: EndpointLimits = {
  connectionsMax: 256,
  pendingMax: 256,
  queueMs: 2000,
  connectMs: 2000,
};

export type Endpoint = {
  /** As it was configured; the name in logs. */
  readonly url: string;
  /** Path of the URL without a slash at its end, put before each request's path. */
  readonly basePath: string;
  readonly pool: Pool;
  readonly slots: Slots;
  readonly connectMs: number;
  /** Requests in flight are cut; for a quiet end wait until `slots.inFlight` is 0. */
  readonly close: () => Promise<void>;
};

export function createEndpoint(options: {
  readonly url: string;
  readonly clock: Clock;
  readonly limits?: Partial<EndpointLimits>;
}): Endpoint {
  const limits = { ...endpointLimits, ...options.limits };
  const url = new URL(options.url);
  const pool = new Pool(url.origin, {
    connections: limits.connectionsMax,
    pipelining: 1,
    allowH2: false,
    connectTimeout: limits.connectMs,
    // Below the keep-alive time of any sane server, so that the server does not close first.
    keepAliveTimeout: 4000,
    keepAliveMaxTimeout: 30_000,
    keepAliveTimeoutThreshold: 2000,
    headersTimeout: 0,
    bodyTimeout: 0,
    strictContentLength: true,
    maxHeaderSize: 64 * 1024,
  });
  return {
    url: options.url,
    basePath: url.pathname.replace(/\/+$/, ""),
    pool,
    slots: new Slots(options.clock, {
      inFlightMax: limits.connectionsMax,
      pendingMax: limits.pendingMax,
      queueMs: limits.queueMs,
    }),
    connectMs: limits.connectMs,
    close: () => pool.destroy(),
  };
}
