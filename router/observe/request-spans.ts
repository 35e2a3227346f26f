/**
 * Pure: the spans of a request that is traced, by OpenTelemetry's conventions for HTTP: one of kind
 * server for the request, one of kind client for each attempt at a cell. Nothing here knows the SDK.
 */
import { traceparentHeader } from "../../contract/headers.ts";
import type { RawHeaders } from "../../contract/raw-headers.ts";
import type { HopOutcome } from "../../runtime/http/forward.ts";
import type { Trace } from "../receive/rewrite-headers.ts";
import { methodLabel } from "./metrics.ts";
import type { RequestRecord } from "./record.ts";

export type SpanData = {
  readonly kind: "server" | "client";
  readonly name: string;
  readonly traceId: string;
  readonly spanId: string;
  readonly parent: { readonly spanId: string; readonly isRemote: boolean } | undefined;
  readonly flags: number;
  /** By the monotonic clock. */
  readonly startedMs: number;
  readonly endedMs: number;
  readonly attributes: Readonly<Record<string, string | number>>;
  readonly failed: boolean;
};

const sampledFlag = 1;

/**
 * What a trace is sampled by: its parent's word if it has one, else chance, which the trace id itself
 * is, so that every router decides alike.
 */
export function isSampled(trace: Trace, share: number): boolean {
  if (trace.continued) return (Number.parseInt(trace.flags, 16) & sampledFlag) === sampledFlag;
  return Number.parseInt(trace.traceId.slice(-8), 16) < share * 2 ** 32;
}

export const asSampled = (trace: Trace): Trace => ({
  ...trace,
  flags: (Number.parseInt(trace.flags, 16) | sampledFlag).toString(16).padStart(2, "0"),
});

type Attempt = {
  readonly spanId: string;
  readonly endpoint: string;
  readonly startedMs: number;
  endedMs: number | undefined;
  status: number | undefined;
  errorType: string | undefined;
};

export type AttemptSpan = {
  /** The same headers, with this span as the parent of what the cell does. */
  readonly carriedBy: (headers: RawHeaders) => string[];
  /** Undefined: it went well. */
  readonly end: (errorType: string | undefined, endedMs: number) => void;
};

/** Of one request, while it is served. */
export class RequestSpans {
  readonly attempts: Attempt[] = [];
  readonly #trace: Trace;

  constructor(trace: Trace) {
    this.#trace = trace;
  }

  /** An attempt begins; returns the headers that name its span as the parent of what the cell does. */
  begin(spanId: string, endpoint: string, startedMs: number, headers: RawHeaders): string[] {
    return this.open(spanId, endpoint, startedMs).carriedBy(headers);
  }

  /** The latest attempt is over. */
  end(outcome: HopOutcome, endedMs: number): void {
    const attempt = this.attempts.at(-1);
    if (attempt === undefined) return;
    const { status } = outcome;
    attempt.endedMs = endedMs;
    attempt.status = status;
    if (outcome.kind !== "answered") attempt.errorType = outcome.reason;
    else if (outcome.status >= 400) attempt.errorType = String(outcome.status);
  }

  /** As `begin`, where several attempts go on at once. */
  open(spanId: string, endpoint: string, startedMs: number): AttemptSpan {
    const attempt: Attempt = {
      ...{ spanId, endpoint, startedMs },
      ...{ endedMs: undefined, status: undefined, errorType: undefined },
    };
    this.attempts.push(attempt);
    const { traceId, flags } = this.#trace;
    return {
      carriedBy: (headers) => {
        const own = headers.findIndex((name, at) => at % 2 === 0 && name === traceparentHeader);
        return headers.map((text, at) =>
          own >= 0 && at === own + 1 ? `00-${traceId}-${spanId}-${flags}` : text,
        );
      },
      end: (errorType, endedMs) => {
        attempt.errorType = errorType;
        attempt.endedMs = endedMs;
      },
    };
  }
}

export function spansOf(
  record: RequestRecord,
  spans: RequestSpans,
  endedMs: number,
  withTenant: boolean,
): SpanData[] {
  const { trace } = record;
  const common = { traceId: trace.traceId, flags: Number.parseInt(trace.flags, 16) };
  const method = methodLabel(record.method);
  const parent =
    trace.parentId === undefined ? undefined : { spanId: trace.parentId, isRemote: true };
  const server: SpanData = {
    ...common,
    ...{ kind: "server", name: spanName(method), spanId: trace.spanId, parent },
    ...{ startedMs: record.startedMs, endedMs },
    attributes: serverAttributes(record, method, withTenant),
    failed: record.status >= 500 || record.status === 0,
  };
  const clients = spans.attempts.map(
    (attempt, index): SpanData => ({
      ...common,
      ...{ kind: "client", name: spanName(method), spanId: attempt.spanId },
      parent: { spanId: trace.spanId, isRemote: false },
      ...{ startedMs: attempt.startedMs, endedMs: attempt.endedMs ?? endedMs },
      attributes: clientAttributes(record, method, attempt, index),
      failed: attempt.errorType !== undefined || attempt.endedMs === undefined,
    }),
  );
  return [server, ...clients];
}

const spanName = (method: string): string => (method === "_OTHER" ? "HTTP" : method);

type Attributes = Record<string, string | number>;

/** Methods outside of the list stand where nobody groups by them. */
const methodAttributes = (record: RequestRecord, method: string): Attributes => ({
  "http.request.method": method,
  ...(method === "_OTHER" ? { "http.request.method_original": record.method.slice(0, 40) } : {}),
});

function serverAttributes(record: RequestRecord, method: string, withTenant: boolean): Attributes {
  const { status, flag, errorCode, service, routeClass, route, cell, identity } = record;
  const unanswered = status === 0 ? flag : undefined;
  const errorType = errorCode ?? unanswered ?? (status >= 500 ? String(status) : undefined);
  return {
    ...methodAttributes(record, method),
    "url.scheme": "http",
    "url.path": record.path,
    "network.protocol.version": record.proto.replace("HTTP/", ""),
    "client.address": record.peer,
    "http.request.body.size": record.bytesIn,
    "http.response.body.size": record.bytesOut,
    "cellfleet.request_id": record.trace.requestId,
    ...(status === 0 ? {} : { "http.response.status_code": status }),
    ...(errorType === undefined ? {} : { "error.type": errorType }),
    ...(record.holdMs > 0 ? { "cellfleet.hold_ms": record.holdMs } : {}),
    ...(service === undefined ? {} : { "cellfleet.service": service }),
    ...(routeClass === undefined ? {} : { "cellfleet.route_class": routeClass }),
    ...(cell === undefined ? {} : { "cellfleet.cell": cell }),
    ...(route === undefined ? {} : { "cellfleet.epoch": route.epoch }),
    ...(record.revision === undefined ? {} : { "cellfleet.revision": record.revision }),
    ...(withTenant && identity !== undefined ? { "cellfleet.tenant": identity.tenant } : {}),
  };
}

function clientAttributes(
  record: RequestRecord,
  method: string,
  attempt: Attempt,
  index: number,
): Attributes {
  const { hostname, port, protocol } = new URL(attempt.endpoint);
  const { status, errorType, endedMs } = attempt;
  return {
    ...methodAttributes(record, method),
    "server.address": hostname,
    "server.port": Number(port) || (protocol === "https:" ? 443 : 80),
    "url.full": `${attempt.endpoint}${record.path}`,
    ...(record.cell === undefined ? {} : { "cellfleet.cell": record.cell }),
    ...(index > 0 ? { "http.request.resend_count": index } : {}),
    ...(status === undefined ? {} : { "http.response.status_code": status }),
    ...(endedMs === undefined ? { "error.type": "abandoned" } : {}),
    ...(errorType === undefined ? {} : { "error.type": errorType }),
  };
}
