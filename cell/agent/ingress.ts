/**
 * The cell's entry: every request of every router comes through here, and the application behind it
 * sees only those the gate admitted.
 *
 * Always true: the gate's headers are set from what was checked, never passed through; what the
 * application says under `x-cellfleet-` is removed; an answer is confirmed by a second look when its
 * head is there (rule R2), or replaced by OUTCOME_UNKNOWN before the router sees a byte of it.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { CellError } from "../../contract/errors.ts";
import { headers, internalPrefix } from "../../contract/headers.ts";
import { filterHeaders, headerValues, listElements } from "../../contract/raw-headers.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { Endpoint } from "../../runtime/http/endpoint.ts";
import {
  type ForwardLimits,
  forward,
  forwardLimits,
  type HeadVerdict,
  type HopFailure,
  type HopOutcome,
} from "../../runtime/http/forward.ts";
import { bodyFraming, stripRequestHeaders } from "../../runtime/http/hop-headers.ts";
import { RequestBody } from "../../runtime/http/request-body.ts";
import type { Gate } from "./gate.ts";
import {
  type Admission,
  decideAdmission,
  decideConfirmation,
  type GateRequest,
  type GateView,
  parseGateRequest,
} from "./gate-decision.ts";
import { buildAnswer, sendAnswer } from "./refusal.ts";

export type IngressOptions = {
  readonly clock: Clock;
  readonly gate: Gate;
  readonly upstream: Endpoint;
  /** What is known now; made anew for every look. */
  readonly view: () => GateView;
  /** Reads one key from the database, because the router seems to know more than this memory. */
  readonly look: (key: string) => Promise<void>;
  readonly onAdmitted: (request: GateRequest) => void;
  /** `code` is that of the gate's own answer; absent when the application's answer went out. */
  readonly onDone: (status: number, code: string | undefined) => void;
};

export const bodyBytesMax = 1024 ** 3;
const bodyIdleMs = 60_000;
const headersMs = 15_000;
const requestMs = 600_000;
/** Above what routers keep idle connections for, so that a router never meets a closing one. */
const keepAliveMs = 75_000;
const headerBytesMax = 64 * 1024;
const limits: ForwardLimits = forwardLimits;

export function createIngress(
  options: IngressOptions,
  shouldUpgrade: (req: IncomingMessage) => boolean,
): Server {
  const server = createServer({
    shouldUpgradeCallback: shouldUpgrade,
    maxHeaderSize: headerBytesMax,
    headersTimeout: headersMs,
    requestTimeout: requestMs,
    keepAliveTimeout: keepAliveMs,
  });
  // Bounded by bytes; a count would drop the headers beyond it in silence.
  server.maxHeadersCount = 0;
  const onRequest = (req: IncomingMessage, res: ServerResponse, expectsContinue: boolean) => {
    // An aborted upload is seen by the body's reader; unheard it would end the process.
    req.on("error", () => {});
    res.on("error", () => {});
    void serve(options, req, res, expectsContinue);
  };
  server.on("request", (req, res) => onRequest(req, res, false));
  server.on("checkContinue", (req, res) => onRequest(req, res, true));
  server.on("checkExpectation", (_req, res) => {
    answer(options, res, new CellError("EXPECTATION_FAILED", "only 100-continue is understood"));
  });
  return server;
}

async function serve(
  options: IngressOptions,
  req: IncomingMessage,
  res: ServerResponse,
  expectsContinue: boolean,
): Promise<void> {
  const request = parseGateRequest((name) => headerValues(req.rawHeaders, name));
  if (request === undefined) {
    answer(options, res, missingHeaders());
    return;
  }
  const prepared = prepareHeaders(req, request);
  if (prepared instanceof CellError) {
    answer(options, res, prepared, request.nonce);
    return;
  }
  const admission = await admit(options, request);
  if (admission.kind === "refused") {
    answer(options, res, refusalError(admission), request.nonce);
    return;
  }
  const ticket = options.gate.enter(request.key);
  options.onAdmitted(request);
  const body = new RequestBody({
    source: req,
    framing: bodyFraming(req.rawHeaders),
    clock: options.clock,
    bytesMax: bodyBytesMax,
    keepBytesMax: 0,
    idleMs: bodyIdleMs,
    ...(expectsContinue ? { onFirstRead: () => res.writeContinue() } : {}),
  });
  try {
    const outcome = await forward({
      clock: options.clock,
      endpoint: options.upstream,
      method: req.method ?? "GET",
      path: req.url ?? "/",
      headers: prepared,
      body,
      client: { req, res },
      limits,
      trailers: listElements(headerValues(req.rawHeaders, "te")).includes("trailers"),
      onResponseHead: (_status, raw) => confirm(options, request, raw),
    });
    finish(options, res, request, outcome);
  } finally {
    body.release();
    ticket.leave();
  }
}

/** Both looks at the memory happen in one turn of the event loop with what follows them. */
export async function admit(options: IngressOptions, request: GateRequest): Promise<Admission> {
  const first = decideAdmission(request, options.view());
  if (first.kind === "admitted" || !first.worthALook) return first;
  await options.look(request.key);
  return decideAdmission(request, options.view());
}

/** The request's headers for the application, or why it cannot be passed on. */
export function prepareHeaders(
  req: IncomingMessage,
  request: GateRequest,
): readonly string[] | CellError {
  if (!(req.url ?? "").startsWith("/")) {
    return new CellError("REQUEST_INVALID", "the request target is not a path");
  }
  const stripped = stripRequestHeaders(req.rawHeaders);
  if (stripped.kind === "refused") return new CellError("REQUEST_INVALID", stripped.reason);
  const own = filterHeaders(
    stripped.headers,
    (name) => !name.startsWith(internalPrefix) && name !== "expect",
  );
  own.push(
    ...[headers.tenant, request.tenant, headers.keyspace, request.keyspace],
    ...[headers.key, request.key, headers.epoch, String(request.epoch)],
    ...[headers.cell, request.cell],
  );
  return own;
}

function confirm(options: IngressOptions, request: GateRequest, raw: string[]): HeadVerdict {
  const confirmation = decideConfirmation(request, options.view());
  if (confirmation.kind === "unknown") {
    return { kind: "replace", error: outcomeUnknown(confirmation.reason) };
  }
  const kept = filterHeaders(raw, (name) => !name.startsWith(internalPrefix));
  kept.push(headers.confirm, confirmation.header);
  return { kind: "pass", headers: kept };
}

export const outcomeUnknown = (reason: string): CellError =>
  new CellError("OUTCOME_UNKNOWN", `The application answered, but ${reason}.`, {
    nextSteps: ["Repeat the request with the same Idempotency-Key."],
  });

export const missingHeaders = (): CellError =>
  new CellError(
    "GATE_HEADERS_MISSING",
    "The headers by which a router names tenant, key, epoch and cell are absent or malformed.",
    { nextSteps: ["Send the request to a router of the fleet."] },
  );

export function refusalError(admission: Admission & { kind: "refused" }): CellError {
  const { code, reason, known } = admission;
  // As it is: a reason may begin with a placement key, and keys know upper from lower case.
  return new CellError(code, `${reason}.`, {
    ...(known === undefined ? {} : { details: { state: known.state, epoch: known.epoch } }),
  });
}

function finish(
  options: IngressOptions,
  res: ServerResponse,
  request: GateRequest,
  outcome: HopOutcome,
): void {
  if (outcome.kind === "answered" || outcome.kind === "broken") {
    options.onDone(outcome.status, undefined);
    return;
  }
  const error = outcome.error ?? failureError(outcome.reason);
  if (error === undefined) {
    res.destroy();
    return;
  }
  const untouched = outcome.sent === "nothing" ? request.nonce : undefined;
  answer(options, res, error, untouched);
}

/** Undefined: there is nobody left to answer. */
function failureError(reason: HopFailure): CellError | undefined {
  switch (reason) {
    case "queue-full":
    case "queue-timeout":
      return new CellError("APP_UNREACHABLE", "The application is busy with too many requests.");
    case "connect":
      return new CellError("APP_UNREACHABLE", "The application does not accept connections.");
    case "head-timeout":
      return new CellError("CELL_TIMEOUT", "The application did not answer in time.");
    case "body-too-large":
      return new CellError("BODY_TOO_LARGE", `The body is larger than ${bodyBytesMax} bytes.`);
    case "body-stalled":
    case "body-broken":
      return new CellError("REQUEST_INVALID", "The request's body did not arrive whole.");
    case "protocol":
      return new CellError("CELL_PROTOCOL", "The application's answer is not HTTP.");
    case "client-gone":
      return undefined;
    case "reset":
    case "body-timeout":
    case "client-stalled":
    case "replaced":
      return new CellError("OUTCOME_UNKNOWN", "The application ended the exchange unanswered.", {
        nextSteps: ["Repeat the request with the same Idempotency-Key."],
      });
  }
}

function answer(
  options: IngressOptions,
  res: ServerResponse,
  error: CellError,
  notAdmitted?: string,
): void {
  const own = buildAnswer(error, notAdmitted);
  options.onDone(own.status, error.code);
  sendAnswer(res, own);
}
