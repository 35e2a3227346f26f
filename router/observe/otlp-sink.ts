/**
 * Spans to a collector by OTLP over HTTP, batched by OpenTelemetry's SDK. The one file that knows the
 * SDK; loaded when tracing is on. Headers for the collector come from `OTEL_EXPORTER_OTLP_HEADERS`, which
 * the SDK reads itself.
 */
import { type SpanContext, SpanKind, SpanStatusCode, TraceFlags } from "@opentelemetry/api";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-http";
import { type Resource, resourceFromAttributes } from "@opentelemetry/resources";
import { BatchSpanProcessor, type ReadableSpan, type SpanExporter } from "@opentelemetry/sdk-trace";
import type { SpanData } from "./request-spans.ts";
import type { SpanSink } from "./tracing.ts";

const exportMs = 2500;
const batchMax = 512;
const batchMs = 250;
const scope = { name: "cellfleet-router" };

export function openSink(options: {
  readonly url: string;
  readonly spansMax: number;
  readonly resource: Readonly<Record<string, string>>;
  readonly onDone: (count: number, result: "sent" | "failed") => void;
}): SpanSink {
  const exporter = new OTLPTraceExporter({
    url: tracesUrl(options.url),
    timeoutMillis: exportMs,
    concurrencyLimit: 4,
  });
  const processor = new BatchSpanProcessor({
    exporter: counting(exporter, options.onDone),
    maxQueueSize: options.spansMax,
    maxExportBatchSize: batchMax,
    scheduledDelayMillis: batchMs,
    exportTimeoutMillis: exportMs + 1000,
  });
  const resource = resourceFromAttributes(options.resource);
  return {
    push: (span, offsetMs) => processor.onEnd(readable(span, offsetMs, resource)),
    // A batch that failed at the end was counted like any other.
    close: () => processor.shutdown().catch(() => undefined),
  };
}

/** The address of a collector has the path of the protocol (OTLP 1.x, "OTLP/HTTP request"). */
function tracesUrl(raw: string): string {
  const url = new URL(raw);
  if (url.pathname === "/") url.pathname = "/v1/traces";
  return url.href;
}

const counting = (
  exporter: OTLPTraceExporter,
  onDone: (count: number, result: "sent" | "failed") => void,
): SpanExporter => ({
  export: (spans, resolve) =>
    exporter.export(spans, (result) => {
      onDone(spans.length, result.code === 0 ? "sent" : "failed");
      resolve(result);
    }),
  shutdown: () => exporter.shutdown(),
});

function readable(span: SpanData, offsetMs: number, resource: Resource): ReadableSpan {
  const { traceId, spanId, parent, startedMs, endedMs } = span;
  const context: SpanContext = { traceId, spanId, traceFlags: span.flags };
  return {
    name: span.name,
    kind: span.kind === "server" ? SpanKind.SERVER : SpanKind.CLIENT,
    spanContext: () => context,
    ...(parent === undefined
      ? {}
      : { parentSpanContext: { traceId, traceFlags: TraceFlags.SAMPLED, ...parent } }),
    startTime: toTime(startedMs + offsetMs),
    endTime: toTime(endedMs + offsetMs),
    duration: toTime(endedMs - startedMs),
    status: { code: span.failed ? SpanStatusCode.ERROR : SpanStatusCode.UNSET },
    attributes: span.attributes,
    links: [],
    events: [],
    ended: true,
    resource,
    instrumentationScope: scope,
    droppedAttributesCount: 0,
    droppedEventsCount: 0,
    droppedLinksCount: 0,
  };
}

/** Seconds and nanoseconds. */
const toTime = (ms: number): [number, number] => [
  Math.floor(ms / 1000),
  Math.round((ms % 1000) * 1e6),
];
