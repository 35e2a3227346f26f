/**
 * One attempt: a request goes to an endpoint of the cell that owns its tenant, and the answer's head
 * is judged before the client sees it (rule R2, refusals of the gate).
 */
import { CellError, type ErrorCode } from "../contract/errors.ts";
import type { RawHeaders } from "../contract/raw-headers.ts";
import {
  type ForwardOptions,
  forward,
  type HeadVerdict,
  type HopFailure,
  type HopOutcome,
} from "../runtime/http/forward.ts";
import type { Random } from "../runtime/random.ts";
import type { CellTally } from "./cell-tally.ts";
import { confirmAnswer, isNotAdmitted } from "./confirm.ts";
import { findRoute, type RoutingView } from "./decide.ts";
import type { Endpoints } from "./endpoints.ts";
import type { Identity } from "./identify.ts";
import type { RouterMetrics, UpstreamErrorReason } from "./metrics.ts";
import type { Placed } from "./place.ts";
import type { RequestRecord } from "./record.ts";
import { gateHeaders, rewriteResponse } from "./rewrite-headers.ts";

export type AttemptContext = {
  readonly random: Random;
  readonly metrics: RouterMetrics;
  readonly endpoints: Endpoints;
  readonly tally: CellTally;
  readonly view: () => RoutingView | undefined;
  /** `x-cell` and `x-cell-epoch` go to the client. */
  readonly cellHeaders: boolean;
  /** The client is asked to come back on another connection. */
  readonly closing: () => boolean;
};

export type Attempt = {
  readonly identity: Identity;
  readonly placed: Placed;
  readonly record: RequestRecord;
  /** Of all attempts alike; those of the gate are added here. */
  readonly headers: RawHeaders;
  readonly hop: Pick<
    ForwardOptions,
    "clock" | "method" | "path" | "body" | "client" | "limits" | "trailers"
  >;
};

export type AttemptResult = {
  readonly outcome: HopOutcome;
  readonly notAdmitted: boolean;
};

export async function tryOnce(
  context: AttemptContext,
  { identity, placed, record, headers, hop }: Attempt,
): Promise<AttemptResult> {
  const gated = context.view()?.protocol === "epoch";
  const nonce = context.random.hex(12);
  const endpoint = context.endpoints.pick(placed.endpoints, record.upstream);
  record.attempt += 1;
  record.upstream = endpoint.url;
  record.forwardedMs ??= hop.clock.monotonicMs();
  let notAdmitted = false;
  const outcome = await forward({
    ...hop,
    endpoint,
    headers: gated
      ? [
          ...headers,
          ...gateHeaders(identity.keyspace, identity.tenant, { route: placed.route, nonce }),
        ]
      : headers,
    onResponseHead: (status, raw) => {
      const verdict = gated
        ? judgeHead(context, { identity, placed, record }, { status, raw, nonce })
        : pass(context, placed, record, raw, false);
      notAdmitted = verdict.kind === "not-admitted";
      return verdict.kind === "not-admitted" ? verdict.head : verdict;
    },
  });
  note(context, placed, outcome, endpoint.url, record);
  return { outcome, notAdmitted };
}

type Judged = HeadVerdict | { readonly kind: "not-admitted"; readonly head: HeadVerdict };

function judgeHead(
  context: AttemptContext,
  { identity, placed, record }: Pick<Attempt, "identity" | "placed" | "record">,
  { status, raw, nonce }: { status: number; raw: string[]; nonce: string },
): Judged {
  if (isNotAdmitted(raw, nonce)) {
    if (status !== 421) return pass(context, placed, record, raw, true);
    context.metrics.fenced.inc({ cell: placed.route.cell });
    const text = `Cell ${placed.route.cell} does not own the placement at epoch ${placed.route.epoch}.`;
    const error = new CellError("PLACEMENT_UNAVAILABLE", text);
    return { kind: "not-admitted", head: { kind: "replace", error } };
  }
  const view = context.view();
  const now =
    view &&
    findRoute(view, {
      keyspace: identity.keyspace,
      tenant: identity.tenant,
      service: placed.service,
    });
  const verdict = confirmAnswer(raw, status, placed.route, now);
  context.metrics.confirmations.inc({ verdict });
  if (verdict === "confirmed" || verdict === "gate-answer") {
    return pass(context, placed, record, raw, true);
  }
  record.flag = `unconfirmed-${verdict}`;
  return { kind: "replace", error: unconfirmed(placed) };
}

export const unconfirmed = (placed: Placed): CellError =>
  new CellError(
    "OUTCOME_UNKNOWN",
    `Cell ${placed.route.cell} answered, but that it still owned the tenant could not be confirmed.`,
    { nextSteps: ["Repeat the request with the same Idempotency-Key."] },
  );

function pass(
  context: AttemptContext,
  placed: Placed,
  record: RequestRecord,
  raw: RawHeaders,
  gated: boolean,
): HeadVerdict {
  const headers = rewriteResponse({
    headers: raw,
    requestId: record.trace.requestId,
    route: context.cellHeaders ? placed.route : undefined,
    gated,
  });
  if (context.closing()) headers.push("connection", "close");
  return { kind: "pass", headers };
}

const upstreamReasons: Readonly<Partial<Record<HopFailure, UpstreamErrorReason>>> = {
  connect: "connect",
  "head-timeout": "timeout",
  "body-timeout": "body",
  reset: "reset",
  protocol: "protocol",
};

function note(
  context: AttemptContext,
  placed: Placed,
  outcome: HopOutcome,
  url: string,
  record: RequestRecord,
): void {
  record.times = outcome.times;
  record.bytesOut = outcome.bytesOut;
  const { cell } = placed.route;
  const reason = outcome.kind === "answered" ? undefined : upstreamReasons[outcome.reason];
  context.tally.note(cell, reason !== undefined);
  if (outcome.kind === "answered") {
    record.status = outcome.status;
    record.flag = "ok";
    context.endpoints.trust(url);
    return;
  }
  if (record.flag === "ok" || record.attempt > 1) record.flag = outcome.reason;
  if (outcome.kind === "broken") record.status = outcome.status;
  if (reason !== undefined) context.metrics.upstreamErrors.inc({ cell, reason });
  if (outcome.reason === "connect") context.endpoints.suspect(url);
  if (outcome.reason === "queue-full" || outcome.reason === "queue-timeout") {
    context.metrics.overflow.inc({ cell });
  }
}

type Answerable = Exclude<HopFailure, "client-gone" | "client-stalled">;
/** What the client is told; `CELL` stands for the name of the cell. */
const failures: Readonly<Record<Answerable, readonly [ErrorCode, string]>> = {
  "queue-full": ["ROUTER_OVERLOADED", "The queue of requests for cell CELL is full."],
  "queue-timeout": ["ROUTER_OVERLOADED", "The queue of requests for cell CELL moves too slowly."],
  connect: [
    "CELL_UNREACHABLE",
    "Cell CELL cannot be reached; tenants of other cells are not affected.",
  ],
  "head-timeout": ["CELL_TIMEOUT", "Cell CELL did not answer in time."],
  "body-timeout": ["CELL_TIMEOUT", "Cell CELL did not answer in time."],
  reset: ["CELL_PROTOCOL", "Cell CELL closed the connection without an answer."],
  protocol: ["CELL_PROTOCOL", "The answer of cell CELL broke HTTP."],
  "body-too-large": ["BODY_TOO_LARGE", "The body of the request is larger than the limit."],
  "body-stalled": ["REQUEST_INVALID", "The body of the request stopped coming."],
  "body-broken": ["REQUEST_INVALID", "The body of the request ended before it was whole."],
  replaced: ["OUTCOME_UNKNOWN", "The answer of cell CELL could not be confirmed."],
};

/** The answer to a failed attempt; undefined where nobody is left to answer. */
export function failureError(
  placed: Placed,
  outcome: HopOutcome & { readonly kind: "failed" },
): CellError | undefined {
  if (outcome.error !== undefined) return outcome.error;
  const { reason } = outcome;
  if (reason === "client-gone" || reason === "client-stalled") return undefined;
  const [code, text] = failures[reason];
  return new CellError(code, text.replace("CELL", placed.route.cell), { cause: outcome.cause });
}
