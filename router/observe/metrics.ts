/**
 * The router's metrics. Label values come from closed lists or from the cell registry, never from what
 * a client sends: no path, no free method; of tenants only the busiest, see top-tenants.ts.
 */

import { bodyTroubles } from "../../runtime/http/request-body.ts";
import type { Counter, Gauge, Histogram, Labels, Metrics } from "../../runtime/metrics.ts";
import { durationBuckets } from "../../runtime/metrics.ts";
import { tableRefusalReasons } from "../../table/events.ts";
import { confirmVerdicts } from "../answer/confirm.ts";
import { missingReasons } from "../answer/fan-out-answer.ts";
import { retryReasons } from "../cells/retry.ts";
import { tunnelEnds } from "../listen/tunnel-life.ts";
import { holdVerdicts } from "../place/hold.ts";
import { wouldRefuseCodes } from "../place/would-refuse.ts";
import { createLimitMetrics, type LimitMetrics } from "./limit-metrics.ts";

const methods: ReadonlySet<string> = new Set([
  "GET",
  "HEAD",
  "POST",
  "PUT",
  "PATCH",
  "DELETE",
  "OPTIONS",
]);
export const methodLabel = (method: string): string => (methods.has(method) ? method : "_OTHER");
export const classLabel = (status: number): string =>
  status >= 100 && status < 600 ? `${Math.floor(status / 100)}xx` : "none";
/** Where the table names no cell for a request. */
export const noCell = "_none";
/** Services outside of all cells; every cell at once. No cell may be named like these. */
export const globalTarget = "_global";
export const everyCell = "_all";

export const upstreamErrorReasons = [
  "connect",
  "tls",
  "timeout",
  "reset",
  "protocol",
  "body",
  /** Not even tried, because nothing listens there. */
  "breaker",
] as const;
export type UpstreamErrorReason = (typeof upstreamErrorReasons)[number];

const overheadBuckets = [
  0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25,
] as const;

export type RouterMetrics = LimitMetrics & {
  readonly requests: Counter;
  readonly duration: Histogram;
  readonly connect: Histogram;
  /** Own time before the first attempt is given to a cell. */
  readonly overhead: Histogram;
  readonly upstreamErrors: Counter;
  readonly retries: Counter;
  readonly fallbacks: Counter;
  readonly refusals: Counter;
  readonly confirmations: Counter;
  readonly holds: Counter;
  /** Every wait, however it ended. */
  readonly held: Histogram;
  readonly overflow: Counter;
  readonly brokenBodies: Counter;
  readonly ws: Counter;
  readonly wsClosed: Counter;
  readonly resolves: Counter;
  readonly fenced: Counter;
  readonly wouldRefuse: Counter;
  readonly fanOutMissing: Counter;
  readonly tenantRequests: Counter;
  readonly tableApplied: Counter;
  readonly tableRefused: Counter;
  readonly tableNotWritten: Counter;
  readonly syncs: Counter;
  readonly connected: Gauge;
};

const presets = (name: string, values: readonly string[]): Labels[] =>
  values.map((value) => ({ [name]: value }));

const name = (rest: string) => `cellfleet_router_${rest}`;

export const createRouterMetrics = (metrics: Metrics): RouterMetrics => ({
  ...trafficMetrics(metrics),
  ...specialMetrics(metrics),
  ...tableMetrics(metrics),
  ...createLimitMetrics(metrics),
});

type TableMetrics = Pick<
  RouterMetrics,
  "tableApplied" | "tableRefused" | "tableNotWritten" | "syncs" | "connected" | "resolves"
>;

function trafficMetrics(metrics: Metrics) {
  return {
    requests: metrics.counter(
      name("requests_total"),
      "Requests, by cell, method and class of status.",
    ),
    duration: metrics.histogram(
      name("request_duration_seconds"),
      "From the request's head to the last byte of its answer.",
      durationBuckets,
    ),
    connect: metrics.histogram(
      name("upstream_connect_seconds"),
      "From a seat to a connection that takes the request.",
      durationBuckets,
    ),
    overhead: metrics.histogram(
      name("overhead_seconds"),
      "The router's own time before a request is given to a cell.",
      overheadBuckets,
    ),
    upstreamErrors: metrics.counter(
      name("upstream_errors_total"),
      "Attempts that a cell failed, by cell and reason.",
    ),
    fallbacks: metrics.counter(
      name("fallbacks_total"),
      "Requests that a cell could not answer, on routes with a fallback, by what was answered instead.",
      presets("kind", ["stale", "static", "none"]),
    ),
    retries: metrics.counter(
      name("retries_total"),
      "Second attempts, by reason.",
      presets("reason", retryReasons),
    ),
    refusals: metrics.counter(
      name("refusals_total"),
      "Answers made by the router itself, by code.",
    ),
    confirmations: metrics.counter(
      name("confirmations_total"),
      "Rule R2 at response heads, by verdict.",
      presets("verdict", confirmVerdicts),
    ),
    holds: metrics.counter(
      name("holds_total"),
      "Requests that waited for a placement, by how it ended.",
      presets("result", holdVerdicts),
    ),
    held: metrics.histogram(
      name("hold_seconds"),
      "Waits of requests for a placement.",
      durationBuckets,
    ),
    overflow: metrics.counter(
      name("overflow_total"),
      "Requests refused because a cell's queue was full or too slow.",
    ),
  } satisfies Partial<RouterMetrics>;
}

/** What happens to some requests only. */
function specialMetrics(metrics: Metrics) {
  return {
    brokenBodies: metrics.counter(
      name("request_bodies_broken_total"),
      "Request bodies that did not arrive whole or within their limits, by reason.",
      presets("reason", bodyTroubles),
    ),
    ws: metrics.counter(name("ws_total"), "WebSocket tunnels that a cell accepted.", [{}]),
    wsClosed: metrics.counter(
      name("ws_closed_total"),
      "WebSocket tunnels that came to an end, by reason.",
      presets("reason", tunnelEnds),
    ),
    fenced: metrics.counter(
      name("fenced_total"),
      "Attempts that a cell's gate did not admit (421).",
    ),
    wouldRefuse: metrics.counter(
      name("would_refuse_total"),
      "Requests carried to a cell before stage enforce that would be refused in it, by code.",
      presets("code", wouldRefuseCodes),
    ),
    tenantRequests: metrics.counter(
      name("tenant_requests_total"),
      "Requests of the busiest tenants; all others together are _other.",
    ),
    fanOutMissing: metrics.counter(
      name("fan_out_missing_total"),
      "Cells missing in the answer of a fan-out, by reason.",
      presets("reason", missingReasons),
    ),
  } satisfies Partial<RouterMetrics>;
}

function tableMetrics(metrics: Metrics): TableMetrics {
  return {
    resolves: metrics.counter(
      name("resolve_total"),
      "Lookups, by what kind of key decided.",
      presets("via", ["tenant", "slot", "range", "none"]),
    ),
    tableApplied: metrics.counter(
      name("table_applied_total"),
      "Tables and deltas taken, by kind.",
      presets("kind", ["snapshot", "delta", "file", "static"]),
    ),
    tableRefused: metrics.counter(
      name("table_refused_total"),
      "Tables, deltas and files refused, by reason.",
      presets("reason", tableRefusalReasons),
    ),
    tableNotWritten: metrics.counter(
      name("table_not_written_total"),
      "Tables, deltas and copies that the disk did not take; they are served from memory.",
      [{}],
    ),
    syncs: metrics.counter(
      name("syncs_total"),
      "Calls to the control plane, by result.",
      presets("result", ["ok", "failed"]),
    ),
    connected: metrics.gauge(
      name("control_plane_connected"),
      "1 while the last call to the control plane was answered.",
      [{}],
    ),
  };
}
