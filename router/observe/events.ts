/** What a router says in its log: every event with its fields. No query strings, cookies or credentials. */
import type { ErrorCode } from "../../contract/errors.ts";
import type { LogFields } from "../../runtime/log.ts";

type Shedding = {
  readonly level: number;
  /** Of the event loop. */
  readonly lateMs: number;
  /** Requests. */
  readonly underWay: number;
};

export type RouterEvents = {
  "router.started": {
    readonly id: string;
    readonly listen: string;
    readonly admin: string;
    readonly mode: string;
    readonly release: string;
  };
  /** The certificates that are served from now on. */
  "tls.loaded": { readonly certificates: readonly string[] };
  /** Unfit; what was there before serves on. */
  "tls.refused": {
    readonly name: string;
    readonly reason: string;
    readonly for: "clients" | "cells";
  };
  /** An endpoint that is not whom its certificate should name, or does not take ours. */
  "tls.failed": { readonly endpoint: string; readonly reason: string };
  "router.draining": { readonly graceMs: number };
  /** The least important requests are refused from now on, or no more. `level`: as in the metric `shed_level`. */
  "shedding.began": Shedding;
  "shedding.ended": Shedding;
  "router.stopped": { readonly id: string };
  /** The address is shared, and this setting of the host is not 1: an end may reset who waits to connect. */
  "router.queue-not-migrated": { readonly setting: string };
  /** Asked for, where there is nothing to restart. */
  "router.not-restarted": { readonly reason: string };
  /** Worker threads, by their numbers: none is ever used twice. */
  "worker.died": { readonly worker: number; readonly reason: string } & LogFields;
  "worker.left": { readonly worker: number };
  "worker.replaced": { readonly worker: number; readonly by: number };
  /** A restart that was asked for ends here; the old worker serves on. */
  "worker.not-replaced": { readonly worker: number } & LogFields;
  "worker.not-started": LogFields;
  /** It gets the whole table instead. */
  "worker.refused-table": { readonly worker: number; readonly text: string };
  /** They died too often: the router ends. */
  "worker.given-up": { readonly deaths: number };
  /** What was acknowledged for a failed-over cell did not reach the control plane, which asks again. */
  "acks.not-handed-in": { readonly failover: string } & LogFields;
  "router.trouble": { readonly where: string } & Readonly<Record<string, unknown>>;
  /** One per request, always. */
  "request.done": {
    readonly req_id: string;
    readonly trace_id: string;
    readonly span_id: string;
    readonly peer: string;
    readonly method: string;
    /** Without the query. */
    readonly path: string;
    readonly proto: string;
    /** What the client got; 0 if it got nothing. */
    readonly status: number;
    readonly dur_ms: number;
    /** The router's own part of it, before a cell was asked. */
    readonly overhead_ms: number;
    readonly hold_ms: number;
    readonly queue_ms: number;
    readonly connect_ms: number;
    readonly ttfb_ms: number;
    readonly cell: string | null;
    readonly tenant: string | null;
    readonly keyspace: string | null;
    readonly source: string | null;
    readonly epoch: number | null;
    readonly revision: number | null;
    readonly service: string | null;
    readonly upstream: string | null;
    readonly attempt: number;
    readonly bytes_in: number;
    readonly bytes_out: number;
    readonly err_code: ErrorCode | null;
    /** Why it ended as it did, from the same words as the metrics; `ok` if well. */
    readonly flag: string;
  };
  "table.applied": {
    readonly revision: number;
    readonly from: number | null;
    readonly kind: "snapshot" | "delta" | "file" | "static";
    readonly placements: number;
    readonly ms: number;
  };
  "table.refused": { readonly reason: string; readonly text: string; readonly where: string };
  "table.not-written": Readonly<Record<string, unknown>>;
  /** `jwks`: where an issuer's keys are, without query. `from`: the issuer, or the last copy on disk. */
  "jwks.changed": { readonly jwks: string; readonly keys: number; readonly from: string };
  "jwks.failed": { readonly jwks: string } & Readonly<Record<string, unknown>>;
  "jwks.not-written": { readonly jwks: string } & Readonly<Record<string, unknown>>;
  "key.changed": { readonly step: string; readonly key: string; readonly keys: number };
  "key.not-written": Readonly<Record<string, unknown>>;
  "sync.failed": Readonly<Record<string, unknown>>;
  "sync.recovered": { readonly revision: number };
};
