/** What is known of a request while it is served: the one source of its log line and its metrics. */
import type { CellError, ErrorCode } from "../../contract/errors.ts";
import type { CellId } from "../../contract/ids.ts";
import type { FoundRoute } from "../../contract/keyspace-routes.ts";
import type { RouteClass } from "../../contract/service-route.ts";
import type { HopTimes } from "../../runtime/http/forward.ts";
import { jsonText } from "../../runtime/log.ts";
import type { Ticket } from "../place/hold.ts";
import type { Identity } from "../receive/identify.ts";
import type { Trace } from "../receive/rewrite-headers.ts";
import type { RouterEvents } from "./events.ts";
import { classLabel, methodLabel, noCell, type RouterMetrics } from "./metrics.ts";
import type { RequestSpans } from "./request-spans.ts";

const none: readonly string[] = [];

export class RequestRecord {
  readonly startedMs: number;
  readonly trace: Trace;
  readonly method: string;
  readonly path: string;
  readonly proto: string;
  readonly peer: string;
  identity: Identity | undefined;
  route: FoundRoute | undefined;
  /** That the request went to, or would have. */
  cell: CellId | undefined;
  /** In metrics, where it is no cell that is asked. */
  target: string = noCell;
  service: string | undefined;
  routeClass: RouteClass | undefined;
  revision: number | undefined;
  upstream: string | undefined;
  attempt = 0;
  /** An endpoint was given more than a wait for a seat: what it ends with is the cell's. */
  asked: boolean = false;
  /** Its client's own deadline was over before any endpoint was asked: no cell's failure. */
  hasty: boolean = false;
  status = 0;
  bytesIn = 0;
  bytesOut = 0;
  holdMs = 0;
  /** Of all waits for its placement; undefined: it never waited. */
  ticket: Ticket | undefined;
  forwardedMs: number | undefined;
  times: HopTimes = { queueMs: 0, connectMs: 0, firstByteMs: 0 };
  errorCode: ErrorCode | undefined;
  /** What the client was told by the router itself. */
  refusal: CellError | undefined;
  /** Attempts that failed, in words. */
  failures: readonly string[] = none;
  /** The code that a cell's answer of 400 or more named. */
  cellSaid: string | undefined;
  /** Undefined: this request is not traced. */
  spans: RequestSpans | undefined;
  flag = "ok";

  constructor(start: {
    readonly startedMs: number;
    readonly trace: Trace;
    readonly method: string;
    readonly target: string;
    readonly proto: string;
    readonly peer: string;
  }) {
    this.startedMs = start.startedMs;
    this.trace = start.trace;
    this.method = start.method;
    this.path = withoutQuery(start.target);
    this.proto = start.proto;
    this.peer = start.peer;
  }

  fields(endedMs: number): RouterEvents["request.done"] {
    const { identity, route, trace, times } = this;
    return {
      req_id: trace.requestId,
      trace_id: trace.traceId,
      span_id: trace.spanId,
      peer: this.peer,
      method: this.method,
      path: this.path,
      proto: this.proto,
      status: this.status,
      dur_ms: round(endedMs - this.startedMs),
      overhead_ms: round(this.ownMs(endedMs)),
      hold_ms: round(this.holdMs),
      queue_ms: round(times.queueMs),
      connect_ms: round(times.connectMs),
      ttfb_ms: round(times.firstByteMs),
      cell: this.cell ?? null,
      tenant: identity?.tenant ?? null,
      keyspace: identity?.keyspace ?? null,
      source: identity?.source ?? null,
      epoch: route?.epoch ?? null,
      revision: this.revision ?? null,
      service: this.service ?? null,
      upstream: this.upstream ?? null,
      attempt: this.attempt,
      bytes_in: this.bytesIn,
      bytes_out: this.bytesOut,
      err_code: this.errorCode ?? null,
      flag: this.flag,
    };
  }

  /** The same as JSON without braces, at a fifth of the cost; a test holds the two together. */
  line(endedMs: number): string {
    const { identity, trace, times } = this;
    return `"req_id":${jsonText(trace.requestId)},"trace_id":"${trace.traceId}",\
"span_id":"${trace.spanId}","peer":${jsonText(this.peer)},"method":${jsonText(this.method)},\
"path":${jsonText(this.path)},"proto":${jsonText(this.proto)},"status":${this.status},\
"dur_ms":${round(endedMs - this.startedMs)},"overhead_ms":${round(this.ownMs(endedMs))},\
"hold_ms":${round(this.holdMs)},"queue_ms":${round(times.queueMs)},\
"connect_ms":${round(times.connectMs)},"ttfb_ms":${round(times.firstByteMs)},\
"cell":${orNull(this.cell)},"tenant":${orNull(identity?.tenant)},\
"keyspace":${orNull(identity?.keyspace)},"source":${orNull(identity?.source)},\
"epoch":${this.route?.epoch ?? null},"revision":${this.revision ?? null},\
"service":${orNull(this.service)},"upstream":${orNull(this.upstream)},"attempt":${this.attempt},\
"bytes_in":${this.bytesIn},"bytes_out":${this.bytesOut},"err_code":${orNull(this.errorCode)},\
"flag":${jsonText(this.flag)}`;
  }

  /** The router's own time before a cell was asked, or in all if none was. */
  ownMs(endedMs: number): number {
    return Math.max(0, (this.forwardedMs ?? endedMs) - this.startedMs - this.holdMs);
  }

  count(metrics: RouterMetrics, endedMs: number): void {
    const cell = this.hasty ? noCell : (this.cell ?? this.target);
    const code_class = classLabel(this.status);
    metrics.requests.inc({ cell, method: methodLabel(this.method), code_class });
    metrics.duration.observe((endedMs - this.startedMs) / 1000, { cell, code_class });
    if (this.errorCode !== undefined) metrics.refusals.inc({ code: this.errorCode });
    if (this.forwardedMs === undefined) return;
    metrics.overhead.observe(this.ownMs(endedMs) / 1000);
    metrics.connect.observe(this.times.connectMs / 1000);
  }
}

const orNull = (text: string | undefined): string => (text === undefined ? "null" : jsonText(text));

const round = (ms: number): number => Math.round(ms * 100) / 100;

/** At most so much of a path is logged. */
const pathCharsMax = 512;

function withoutQuery(target: string): string {
  const at = target.indexOf("?");
  return (at < 0 ? target : target.slice(0, at)).slice(0, pathCharsMax);
}
