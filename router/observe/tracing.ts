/**
 * Traces to an OpenTelemetry collector, when they are asked for: which requests, and what is counted of
 * their spans. The SDK is loaded then and only then; where tracing is off, a request meets one test for
 * `undefined`.
 *
 * What must always be true: a collector that is slow or gone costs spans, which are counted, and never
 * a request; what waits for it is bounded; a router that ends waits a short time for it.
 */
import { release } from "../../contract/release.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { Metrics } from "../../runtime/metrics.ts";
import type { Trace } from "../receive/rewrite-headers.ts";
import type { RequestRecord } from "./record.ts";
import { asSampled, isSampled, RequestSpans, type SpanData, spansOf } from "./request-spans.ts";

export type TracingSettings = {
  /** The collector, `http://127.0.0.1:4318`; a path other than `/` is taken as it is. */
  readonly url: string;
  /** Share of the requests that come without a parent, 0 to 1. */
  readonly share: number;
  /** `cellfleet.tenant` is an attribute. */
  readonly tenants: boolean;
};

export type Tracing = {
  /** Undefined: this one is not traced. */
  readonly begin: (
    trace: Trace,
  ) => { readonly trace: Trace; readonly spans: RequestSpans } | undefined;
  readonly end: (record: RequestRecord, spans: RequestSpans, endedMs: number) => void;
  /** Sends what waits, for at most `flushMs`. */
  readonly close: () => Promise<void>;
};

/** Takes spans; calls `done` once per batch that has left or is lost. */
export type SpanSink = {
  readonly push: (span: SpanData, wallOffsetMs: number) => void;
  readonly close: () => Promise<void>;
};

/** Spans that wait for the collector or are on their way to it. */
const spansMax = 4096;
const flushMs = 3000;
const results = ["sent", "failed", "dropped"] as const;

export async function startTracing(
  settings: TracingSettings,
  parts: { readonly clock: Clock; readonly metrics: Metrics; readonly routerId: string },
): Promise<Tracing> {
  const { clock, metrics } = parts;
  const spans = metrics.counter(
    "cellfleet_router_trace_spans_total",
    "Spans, by what became of them: sent, failed at the collector, dropped because too many waited.",
    results.map((result) => ({ result })),
  );
  let waiting = 0;
  metrics.gaugeFrom("cellfleet_router_trace_spans_waiting", "Spans not sent yet.", () => waiting);
  const { openSink } = await import("./otlp-sink.ts");
  const sink = openSink({
    url: settings.url,
    spansMax,
    resource: {
      "service.name": "cellfleet-router",
      "service.version": release,
      "service.instance.id": parts.routerId,
    },
    onDone: (count, result) => {
      waiting -= count;
      spans.inc({ result }, count);
    },
  });
  return {
    begin: (trace) => {
      if (!isSampled(trace, settings.share)) return undefined;
      const sampled = asSampled(trace);
      return { trace: sampled, spans: new RequestSpans(sampled) };
    },
    end: (record, requestSpans, endedMs) => {
      const offsetMs = clock.nowMs() - endedMs;
      for (const span of spansOf(record, requestSpans, endedMs, settings.tenants)) {
        if (waiting >= spansMax) {
          spans.inc({ result: "dropped" });
          continue;
        }
        waiting += 1;
        sink.push(span, offsetMs);
      }
    },
    close: async () => {
      const late = new AbortController();
      await Promise.race([sink.close(), clock.sleep(flushMs, late.signal)]);
      late.abort();
    },
  };
}
