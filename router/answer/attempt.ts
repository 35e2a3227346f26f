/**
 * One attempt: a request goes to an endpoint of the cell that takes it, and the answer's head is judged
 * before the client sees it (rule R2, refusals of the gate). A cell that is not in `enforce` yet is
 * judged too, but only to be counted.
 */
import { CellError, type ErrorCode } from "../../contract/errors.ts";
import { headers as names } from "../../contract/headers.ts";
import { headerValues, type RawHeaders } from "../../contract/raw-headers.ts";
import type { Fallback, RouteClass } from "../../contract/service-route.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { Endpoint } from "../../runtime/http/endpoint.ts";
import { isTlsError } from "../../runtime/http/endpoint-tls.ts";
import {
  type ForwardOptions,
  forward,
  type HeadVerdict,
  type HopFailure,
  type HopOutcome,
} from "../../runtime/http/forward.ts";
import { isBodyTrouble } from "../../runtime/http/request-body.ts";
import type { SeatVerdict } from "../../runtime/http/slots.ts";
import type { Random } from "../../runtime/random.ts";
import type { AckedWrites } from "../acked/acked-writes.ts";
import { isAcknowledgement, noteWrite } from "../acked/note-write.ts";
import type { CellGuards } from "../cells/cell-guards.ts";
import type { CellTally } from "../cells/cell-tally.ts";
import type { Endpoints, Picked } from "../cells/endpoints.ts";
import { evidenceOf } from "../cells/evidence.ts";
import { type Fallbacks, keepingTap } from "../fallback/instead.ts";
import { withoutDeadline } from "../limits/deadline.ts";
import type { Stay } from "../limits/stay.ts";
import type { RouterMetrics, UpstreamErrorReason } from "../observe/metrics.ts";
import type { RequestRecord } from "../observe/record.ts";
import type { Placed, RoutingView, Subject } from "../place/decide.ts";
import type { Leaving } from "../place/place.ts";
import type { WouldRefuse } from "../place/would-refuse.ts";
import { rewriteResponse } from "../receive/rewrite-headers.ts";
import type { SignRequest } from "../trust/trust.ts";
import { blameOf } from "./blame.ts";
import { isNotAdmitted } from "./confirm.ts";
import { type AnswerHead, isConfirmed, isFromHalted, unconfirmed } from "./passing-on.ts";
import { wireHeaders } from "./wire-headers.ts";

export type AttemptContext = {
  readonly clock: Clock;
  readonly random: Random;
  readonly metrics: RouterMetrics;
  readonly endpoints: Endpoints;
  readonly cells: CellGuards;
  readonly tally: CellTally;
  readonly wouldRefuse: WouldRefuse;
  readonly view: () => RoutingView | undefined;
  readonly sign: SignRequest;
  /** `x-cell` and `x-cell-epoch` go to the client. */
  readonly cellHeaders: boolean;
  readonly fallbacks: Fallbacks;
  readonly acked: AckedWrites;
};

export type Attempt = {
  readonly subject: Subject;
  readonly routeClass: RouteClass;
  readonly fallback: Fallback | undefined;
  readonly placed: Placed;
  readonly record: RequestRecord;
  /** Of all attempts alike; those of the gate are added here. */
  readonly headers: RawHeaders;
  /** Its signal is aborted when nobody waits for the answer's head any more. */
  readonly gone: Leaving;
  readonly stay: Stay;
  /** On a connection that nobody has used before. */
  readonly fresh: boolean;
  readonly hop: Pick<
    ForwardOptions,
    "clock" | "method" | "path" | "body" | "client" | "limits" | "trailers"
  >;
};

export type AttemptResult = {
  readonly outcome: HopOutcome;
  readonly notAdmitted: boolean;
};

/** Throws CELL_UNREACHABLE where to try is to fail. */
export async function tryOnce(context: AttemptContext, attempt: Attempt): Promise<AttemptResult> {
  const { placed, gone, stay, hop } = attempt;
  const { slots, budget } = context.cells.of(placed);
  const startedMs = hop.clock.monotonicMs();
  budget.noteRequest(startedMs);
  const taking = slots.takeNow(stay) ? "taken" : slots.take(gone.signal, stay);
  const seat = typeof taking === "string" ? taking : await taking;
  if (seat !== "taken") return noSeat(context, attempt, seat, startedMs);
  try {
    const picked = context.endpoints.pick(placed.endpoints, attempt.record.upstream);
    if (picked === undefined) throw unreachable(context, attempt);
    const waitedMs = typeof taking === "string" ? 0 : hop.clock.monotonicMs() - startedMs;
    const seen: Seen = { notAdmitted: false, gateCode: undefined };
    const outcome = await send(context, attempt, picked, waitedMs, seen);
    attempt.record.asked ||= wasAsked(outcome, hop.clock.monotonicMs() - startedMs);
    tell(context, attempt, picked, outcome, seen);
    return { outcome, notAdmitted: seen.notAdmitted };
  } finally {
    slots.give();
  }
}

/** More than a wait for a seat: to wait in vain for a connection is also the endpoint's doing. */
const wasAsked = (outcome: HopOutcome, tookMs: number): boolean =>
  outcome.kind !== "failed" || outcome.sent !== "nothing" || outcome.times.queueMs < tookMs / 2;

/** What the answer's head said. */
type Seen = { notAdmitted: boolean; gateCode: string | undefined };

const isGated = ({ wire }: Placed): boolean => wire === "enforce" || wire === "observe";

function send(
  context: AttemptContext,
  attempt: Attempt,
  picked: Picked,
  waitedMs: number,
  seen: Seen,
): Promise<HopOutcome> {
  const { endpoint } = picked;
  const { placed, record, headers, hop, stay } = attempt;
  const gated = isGated(placed);
  const nonce = gated ? context.random.hex(12) : "";
  const own = wireHeaders(attempt, nonce, context);
  record.attempt += 1;
  record.upstream = endpoint.name;
  const startedMs = hop.clock.monotonicMs();
  record.forwardedMs ??= startedMs;
  const timed = stay.hasDeadline ? [...withoutDeadline(headers), ...stay.headers()] : headers;
  const all = own.length === 0 ? timed : [...timed, ...own];
  return forward({
    ...hop,
    endpoint,
    seat: { greedy: stay.greedy, waitedMs },
    signal: stay.hasDeadline ? attempt.gone.signal : undefined,
    fresh: attempt.fresh,
    headers: record.spans?.begin(context.random.hex(8), endpoint.url, startedMs, all) ?? all,
    // What is judged by rule R2 is the answer's head; hints come before it.
    earlyHints: !gated,
    onResponseHead: (status, raw, sentMs) => {
      if (status >= 502 && status <= 504) [seen.gateCode] = headerValues(raw, names.error);
      else context.endpoints.answering(picked, whoOf(attempt.subject));
      const judged = judgeHead(context, attempt, endpoint, { status, raw, nonce, sentMs });
      return judged instanceof Promise
        ? judged.then((late) => settle(context, attempt, status, late, seen))
        : settle(context, attempt, status, judged, seen);
    },
  });
}

function settle(
  context: AttemptContext,
  attempt: Attempt,
  status: number,
  verdict: Judged,
  seen: Seen,
): HeadVerdict {
  seen.notAdmitted = verdict.kind === "not-admitted";
  if (verdict.kind === "pass") attempt.stay.met();
  if (verdict.kind === "not-admitted") return verdict.head;
  return attempt.fallback === undefined ? verdict : keeping(context, attempt, status, verdict);
}

function tell(
  context: AttemptContext,
  { placed, record, hop, subject }: Attempt,
  picked: Picked,
  outcome: HopOutcome,
  { gateCode }: Seen,
): void {
  record.spans?.end(outcome, hop.clock.monotonicMs());
  note(context, placed, outcome, picked.endpoint.url, record);
  if (placed.cell !== undefined) {
    context.tally.note(placed.cell, isDown(outcome, gateCode));
    context.tally.blame(placed.cell, placed.route?.key, blameOf(outcome, gateCode));
  }
  const who = whoOf(subject);
  context.endpoints.note(picked, { evidence: evidenceOf(outcome, gateCode), who });
}

/** By what happened to the connection, or by the word of its gate that nothing stands behind it. */
const isDown = (outcome: HopOutcome, gateCode: string | undefined): boolean =>
  gateCode === "APP_UNREACHABLE" ||
  (outcome.kind !== "answered" && upstreamReason(outcome) !== undefined);

/** Whose request it was, so that what one tenant runs into is not taken from the others. */
const whoOf = (subject: Subject): string => (subject.kind === "tenant" ? subject.tenant : "");

/** The cell's own limit over all of its endpoints. */
function noSeat(
  context: AttemptContext,
  { placed, record, hop }: Attempt,
  reason: Exclude<SeatVerdict, "taken">,
  startedMs: number,
): AttemptResult {
  const queueMs = hop.clock.monotonicMs() - startedMs;
  const outcome: HopOutcome = {
    kind: "failed",
    reason,
    sent: "nothing",
    error: undefined,
    status: undefined,
    cause: undefined,
    bytesOut: 0,
    times: { queueMs, connectMs: 0, firstByteMs: 0 },
  };
  record.attempt += 1;
  note(context, placed, outcome, "", record);
  return { outcome, notAdmitted: false };
}

/** Nothing listens there, by all that is known: the client is told at once. */
function unreachable(context: AttemptContext, { placed, record }: Attempt): CellError {
  if (placed.cell !== undefined) context.tally.note(placed.cell, true);
  context.metrics.upstreamErrors.inc({ cell: placed.shown ?? record.target, reason: "breaker" });
  record.flag = "breaker-open";
  return new CellError("CELL_UNREACHABLE", aboutTarget(placed, failures.connect[1]));
}

/** The answer may be given again while the cell cannot answer. */
function keeping(
  { fallbacks }: AttemptContext,
  { hop, fallback, placed }: Attempt,
  status: number,
  verdict: HeadVerdict,
): HeadVerdict {
  if (verdict.kind !== "pass") return verdict;
  const { route, service } = placed;
  const answered = { req: hop.client.req, path: hop.path, fallback, route, service };
  return { ...verdict, tap: keepingTap(fallbacks, answered, status, verdict.headers) };
}

type Judged = HeadVerdict | { readonly kind: "not-admitted"; readonly head: HeadVerdict };

function judgeHead(
  context: AttemptContext,
  attempt: Attempt,
  endpoint: Endpoint,
  head: AnswerHead,
): Judged | Promise<Judged> {
  const { placed, record } = attempt;
  const { route } = placed;
  const gated = isGated(placed);
  if (head.status >= 400 && gated) record.cellSaid = headerValues(head.raw, names.error)[0];
  if (!gated) return pass(context, placed, record, head.raw, false);
  if (isNotAdmitted(head.raw, head.nonce)) {
    if (head.status !== 421) return pass(context, placed, record, head.raw, true);
    const error = notAdmitted(placed);
    context.metrics.fenced.inc({ cell: placed.shown ?? record.target });
    return { kind: "not-admitted", head: { kind: "replace", error } };
  }
  // A request that named no placement has none that could be confirmed.
  if (route === undefined) {
    return isFromHalted(context, placed)
      ? { kind: "replace", error: unconfirmed(placed) }
      : pass(context, placed, record, head.raw, true);
  }
  const confirmed = isConfirmed(context, attempt, { route, endpoint, head });
  const verdict = (is: boolean): Judged => {
    if (!is) return { kind: "replace", error: unconfirmed(placed) };
    // Before its first byte: what is on its way to a client counts as acknowledged.
    if (isAcknowledgement(attempt.hop.method, head.status))
      noteAcknowledged(context, attempt, head);
    return pass(context, placed, record, head.raw, true);
  };
  return typeof confirmed === "boolean" ? verdict(confirmed) : confirmed.then(verdict);
}

function noteAcknowledged(
  { acked, clock }: AttemptContext,
  { placed, subject, record, headers: asked, hop }: Attempt,
  { raw: said, status }: AnswerHead,
): void {
  const { route } = placed;
  // What the gate says by itself acknowledges nothing.
  const isGates = headerValues(said, names.confirm).length === 0;
  if (route === undefined || subject.kind !== "tenant" || isGates) return;
  noteWrite(acked, {
    ...{
      route,
      tenant: subject.tenant,
      method: hop.method,
      path: record.path,
      asked,
      said,
      status,
    },
    ...{ requestId: record.trace.requestId, atMs: clock.nowMs() },
  });
}

const notAdmitted = ({ shown, route }: Placed): CellError =>
  new CellError(
    "PLACEMENT_UNAVAILABLE",
    route === undefined
      ? `Cell ${shown} may not serve now.`
      : `Cell ${shown} does not own the placement at epoch ${route.epoch}.`,
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
    from: context.cellHeaders ? answerer(placed) : undefined,
    gated,
  });
  return { kind: "pass", headers };
}

/** What the client is told of who answered. */
export const answerer = ({ shown, route }: Placed) =>
  shown === undefined ? undefined : { cell: shown, epoch: route?.epoch };

const upstreamReasons: Readonly<Partial<Record<HopFailure, UpstreamErrorReason>>> = {
  connect: "connect",
  "head-timeout": "timeout",
  "body-timeout": "body",
  reset: "reset",
  protocol: "protocol",
};

/** An endpoint that is not whom its certificate should name is as unreachable as a dead one. */
function upstreamReason({ reason, cause }: Exclude<HopOutcome, { readonly kind: "answered" }>) {
  const isTls = reason === "connect" && cause instanceof Error && isTlsError(cause);
  return isTls ? "tls" : upstreamReasons[reason];
}

function note(
  context: AttemptContext,
  placed: Placed,
  outcome: HopOutcome,
  url: string,
  record: RequestRecord,
): void {
  record.times = outcome.times;
  record.bytesOut = outcome.bytesOut;
  const reason = outcome.kind === "answered" ? undefined : upstreamReason(outcome);
  const cell = placed.shown ?? record.target;
  if (outcome.kind === "answered") {
    record.status = outcome.status;
    record.flag = "ok";
    return;
  }
  record.failures = [...record.failures, `${url}: ${outcome.reason}`];
  if (record.flag === "ok" || record.attempt > 1) record.flag = outcome.reason;
  if (outcome.kind === "broken") record.status = outcome.status;
  if (reason !== undefined) context.metrics.upstreamErrors.inc({ cell, reason });
  if (isBodyTrouble(outcome.reason)) context.metrics.brokenBodies.inc({ reason: outcome.reason });
  if (outcome.reason === "queue-full" || outcome.reason === "queue-timeout") {
    context.metrics.overflow.inc({ cell });
  }
}

type Answerable = Exclude<HopFailure, "client-gone" | "client-stalled">;
/** What the client is told; `TARGET` stands for `cell NAME` or `service NAME`. */
const failures: Readonly<Record<Answerable, readonly [ErrorCode, string]>> = {
  "queue-full": ["ROUTER_OVERLOADED", "The queue of requests for TARGET is full."],
  "queue-timeout": ["ROUTER_OVERLOADED", "The queue of requests for TARGET moves too slowly."],
  connect: ["CELL_UNREACHABLE", "TARGET cannot be reached; requests to others are not affected."],
  "head-timeout": ["CELL_TIMEOUT", "TARGET did not answer in time."],
  "body-timeout": ["CELL_TIMEOUT", "TARGET did not answer in time."],
  reset: ["CELL_PROTOCOL", "TARGET closed the connection without an answer."],
  protocol: ["CELL_PROTOCOL", "The answer of TARGET broke HTTP."],
  "body-too-large": ["BODY_TOO_LARGE", "The body of the request is larger than the limit."],
  "body-stalled": ["REQUEST_TIMEOUT", "The body of the request stopped coming."],
  "body-slow": ["REQUEST_TIMEOUT", "The body of the request comes too slowly."],
  "body-broken": ["REQUEST_INVALID", "The body of the request ended before it was whole."],
  deadline: ["DEADLINE_EXCEEDED", "TARGET did not answer before the deadline of the request."],
  replaced: ["OUTCOME_UNKNOWN", "The answer of TARGET could not be confirmed."],
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
  return new CellError(code, aboutTarget(placed, text), { cause: outcome.cause });
}

/** Puts the name of the cell or service in the place of `TARGET`. */
export function aboutTarget({ shown, service }: Placed, text: string): string {
  const [kind, id] = shown === undefined ? ["service", service] : ["cell", shown];
  const begin = text.startsWith("TARGET") ? kind.charAt(0).toUpperCase() : kind.charAt(0);
  return text.replace("TARGET", `${begin}${kind.slice(1)} ${id}`);
}
