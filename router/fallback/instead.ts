/**
 * What a GET or HEAD is answered with while its cell cannot answer, where the route says so: the last good
 * answer of the same cell to the same placement under the same epoch, or a fixed text. Everything else
 * gets the error.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { CellError, ErrorCode } from "../../contract/errors.ts";
import { headers as names, requestIdHeader } from "../../contract/headers.ts";
import type { FoundRoute } from "../../contract/keyspace-routes.ts";
import { filterHeaders, headerValues, type RawHeaders } from "../../contract/raw-headers.ts";
import type { Fallback } from "../../contract/service-route.ts";
import type { TableState } from "../../contract/table-state.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { BodyTap } from "../../runtime/http/forward.ts";
import type { RouterMetrics } from "../observe/metrics.ts";
import type { RequestRecord } from "../observe/record.ts";
import type { KeptAnswer, KeptAnswers } from "./kept-answers.ts";
import { mayBeGivenStale, storableBy, variantOf } from "./storable.ts";

export type Fallbacks = {
  readonly kept: KeptAnswers;
  readonly clock: Clock;
  readonly metrics: RouterMetrics;
  readonly routerId: string;
};

/** The cell, or the way to it, is at fault, and a later try may well succeed. */
const covered: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  "CELL_UNREACHABLE",
  "CELL_TIMEOUT",
  "CELL_PROTOCOL",
  "PLACEMENT_UNAVAILABLE",
  "PLACEMENT_HELD",
  "ROUTER_OVERLOADED",
  "DEADLINE_EXCEEDED",
]);

/** Of one hop, or of the answer that is kept: nothing of it is true of the answer that is given. */
const ofOneAnswer: ReadonlySet<string> = new Set([
  "connection",
  "keep-alive",
  "transfer-encoding",
  "content-length",
  "trailer",
  "age",
  "warning",
  "date",
  requestIdHeader,
]);

export type Answered = {
  readonly req: IncomingMessage;
  readonly fallback: Fallback | undefined;
  readonly route: FoundRoute | undefined;
  readonly service: string;
  readonly path: string;
};

/** Takes in the body of an answer that may be kept; undefined where it may not. */
export function keepingTap(
  { kept, clock }: Fallbacks,
  answered: Answered,
  status: number,
  headers: RawHeaders,
): BodyTap | undefined {
  const { req, fallback } = answered;
  if (fallback?.staleSeconds === undefined || req.method !== "GET") return undefined;
  const key = keyOf(answered);
  const { route: owner } = answered;
  if (key === undefined || owner === undefined) return undefined;
  const varyBy = storableBy(req.rawHeaders, status, headers);
  if (varyBy === undefined) {
    // What the cell says now takes the place of what it said before, also when it may not be kept.
    if (status < 500) kept.drop(key);
    return undefined;
  }
  const chunks: Buffer[] = [];
  let bytes = 0;
  return {
    data: (chunk) => {
      bytes += chunk.length;
      if (bytes <= kept.answerBytesMax) chunks.push(chunk);
      else chunks.length = 0;
    },
    end: () => {
      if (bytes > kept.answerBytesMax) return;
      const answer: KeptAnswer = {
        owner,
        headers: filterHeaders(headers, (name) => !ofOneAnswer.has(name)),
        body: Buffer.concat(chunks),
        atMs: clock.monotonicMs(),
        variant: variantOf(req.rawHeaders, varyBy),
        varyBy,
      };
      kept.keep(key, answer);
    },
  };
}

/** Under what an answer is kept; undefined where there is no placement that it belongs to. */
function keyOf({ req, route, service, path }: Answered): string | undefined {
  if (route === undefined) return undefined;
  const host = headerValues(req.rawHeaders, "host").join();
  return [placementText(route), service, host, path].join("\n");
}

/** The first line of every key: whose answer it is. */
export const placementText = ({ key, cell, epoch }: FoundRoute): string =>
  `${key} ${cell} ${epoch}`;

/** A placement that changed its owner takes none of its answers along. */
export const dropMoved = (kept: KeptAnswers, table: TableState): void =>
  kept.sweep(({ owner }) => {
    const route = table.get(owner.key);
    return route !== undefined && route.cell === owner.cell && route.epoch === owner.epoch;
  });

/** The status that went out, or undefined: the error itself is to be told. */
export function answerInstead(
  fallbacks: Fallbacks,
  answered: Answered,
  res: ServerResponse,
  record: RequestRecord,
  error: CellError,
): number | undefined {
  const { req, fallback } = answered;
  const { metrics } = fallbacks;
  const wanted = fallback !== undefined && covered.has(error.code) && !res.headersSent;
  if (!wanted || (req.method !== "GET" && req.method !== "HEAD") || res.destroyed) return undefined;
  const stale = findStale(fallbacks, answered, fallback);
  const { static: fixed } = fallback;
  const head = [
    ...[names.error, error.code],
    ...[names.answeredBy, `router ${fallbacks.routerId}`],
    ...[requestIdHeader, record.trace.requestId],
  ];
  if (stale !== undefined) {
    metrics.fallbacks.inc({ kind: "stale" });
    record.flag = "stale";
    const { answer, ageSeconds } = stale;
    const age = ["age", String(ageSeconds), "warning", '110 cellfleet "Response is Stale"'];
    return give(req, res, 200, [...answer.headers, ...age, ...head], answer.body);
  }
  metrics.fallbacks.inc({ kind: fixed === undefined ? "none" : "static" });
  if (fixed === undefined) return undefined;
  record.flag = "static";
  const own = ["content-type", fixed.contentType, "cache-control", "no-store"];
  return give(req, res, fixed.status, [...own, ...head], Buffer.from(fixed.body));
}

function findStale(
  { kept, clock }: Fallbacks,
  answered: Answered,
  { staleSeconds }: Fallback,
): { readonly answer: KeptAnswer; readonly ageSeconds: number } | undefined {
  const { rawHeaders } = answered.req;
  const key = keyOf(answered);
  if (staleSeconds === undefined || key === undefined || !mayBeGivenStale(rawHeaders)) {
    return undefined;
  }
  const answer = kept.find(key);
  if (answer === undefined || variantOf(rawHeaders, answer.varyBy) !== answer.variant) {
    return undefined;
  }
  const ageSeconds = Math.floor((clock.monotonicMs() - answer.atMs) / 1000);
  return ageSeconds > staleSeconds ? undefined : { answer, ageSeconds };
}

function give(
  req: IncomingMessage,
  res: ServerResponse,
  status: number,
  headers: readonly string[],
  body: Buffer,
): number {
  res.writeHead(status, [...headers, "content-length", String(body.length)]);
  res.end(req.method === "HEAD" ? undefined : body);
  return status;
}
