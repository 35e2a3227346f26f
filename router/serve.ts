/**
 * ★ The request path; read this first. Phase by phase, each a file of its own:
 *
 *   check the head → identify the tenant → decide by the table in memory, holding while its placement
 *   changes hands → rewrite the headers → forward, judging the answer's head → perhaps once more →
 *   one rescue for every refusal → one log line, always.
 *
 * No call to the control plane is on this path, and nothing on it collects a body.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import { CellError } from "../contract/errors.ts";
import { headerValues, listElements, type RawHeaders } from "../contract/raw-headers.ts";
import type { Clock } from "../runtime/clock.ts";
import { clientGone, type ForwardLimits } from "../runtime/http/forward.ts";
import { bodyFraming, stripRequestHeaders } from "../runtime/http/hop-headers.ts";
import { RequestBody } from "../runtime/http/request-body.ts";
import { errorFields, type Log } from "../runtime/log.ts";
import { type AttemptContext, type AttemptResult, failureError, tryOnce } from "./attempt.ts";
import { checkRequest, type HeadLimits } from "./check-request.ts";
import { chooseService } from "./decide.ts";
import type { RouterEvents } from "./events.ts";
import { type Identity, identify } from "./identify.ts";
import { ClientGone, type Placed, type Placing, place, placeAnew } from "./place.ts";
import { RequestRecord } from "./record.ts";
import { refuse } from "./refuse.ts";
import { decideRetry, type RetryVerdict } from "./retry.ts";
import { passesOf, rewriteRequest, traceOf } from "./rewrite-headers.ts";

export type ServeContext = AttemptContext &
  Placing & {
    readonly clock: Clock;
    readonly log: Log<RouterEvents>;
    readonly routerId: string;
    readonly viaName: string;
    readonly accessLog: boolean;
    readonly isTrusted: (peer: string) => boolean;
    readonly headLimits: HeadLimits;
    readonly forwardLimits: ForwardLimits;
    readonly body: {
      readonly bytesMax: number;
      readonly keepBytesMax: number;
      readonly idleMs: number;
    };
    /** So long a refused request waits for a table that explains the refusal. */
    readonly staleMs: number;
    /** So often a request may have passed this router before. */
    readonly passesMax: number;
  };

export type Client = { readonly req: IncomingMessage; readonly res: ServerResponse };

export async function serve(
  context: ServeContext,
  client: Client,
  expectsContinue: boolean,
): Promise<void> {
  const record = beginRecord(context, client.req);
  const gone = new AbortController();
  client.res.once("close", () => gone.abort(clientGone));
  const body = openBody(context, client, expectsContinue);
  try {
    const arrival = receive(context, client.req, record);
    const placed = await place(context, arrival.wanted, record, gone.signal);
    await carry(context, { client, record, body, arrival, signal: gone.signal }, placed);
  } catch (error) {
    rescue(context, client, record, error);
  } finally {
    body.release();
    finish(context, record, body);
  }
}

export type Arrival = {
  readonly identity: Identity;
  readonly wanted: { readonly service: string } & Pick<Identity, "keyspace" | "tenant">;
  /** For the cell, without those of an attempt. */
  readonly headers: RawHeaders;
};

/** Everything that is known before the table is asked. Throws what is refused. */
export function receive(
  context: ServeContext,
  req: IncomingMessage,
  record: RequestRecord,
): Arrival {
  const checked = checkRequest(
    {
      method: req.method ?? "",
      target: req.url ?? "",
      version: req.httpVersion,
      headers: req.rawHeaders,
    },
    context.headLimits,
  );
  if (checked.kind === "refused") throw new CellError(checked.code, sentence(checked.message));
  const stripped = stripRequestHeaders(req.rawHeaders);
  if (stripped.kind === "refused")
    throw new CellError("REQUEST_INVALID", sentence(stripped.reason));
  if (passesOf(req.rawHeaders, context.viaName) > context.passesMax) {
    throw new CellError("LOOP_DETECTED", "The request has passed this router before.");
  }
  const view = context.view();
  if (view === undefined) {
    throw new CellError("TABLE_NOT_LOADED", "The router has not received a routing table yet.");
  }
  const { tenantSources, serviceRoutes } = view.table.lists;
  const identity = identify({ ...checked, headers: req.rawHeaders }, tenantSources);
  if (identity.kind === "refused") throw new CellError(identity.code, identity.message);
  record.identity = identity;
  const service = chooseService(serviceRoutes, checked.hostname, identity.path);
  record.service = service;
  const headers = rewriteRequest({
    headers: stripped.headers,
    method: req.method ?? "",
    host: checked.host,
    version: req.httpVersion,
    peer: record.peer,
    trusted: context.isTrusted(record.peer),
    scheme: "http",
    viaName: context.viaName,
    tenant: identity.tenant,
    trace: record.trace,
    trailers: wantsTrailers(req),
  });
  const wanted = { keyspace: identity.keyspace, tenant: identity.tenant, service };
  return { identity, wanted, headers };
}

type Request = {
  readonly client: Client;
  readonly record: RequestRecord;
  readonly body: RequestBody;
  readonly arrival: Arrival;
  readonly signal: AbortSignal;
};

/** Up to two attempts; throws what the client is told if both fail. */
async function carry(context: ServeContext, request: Request, first: Placed): Promise<void> {
  let placed = first;
  for (;;) {
    const result = await attempt(context, request, placed);
    if (result.outcome.kind !== "failed") return;
    const verdict = judge(request, placed, result);
    if (verdict.kind === "keep") throw failureError(placed, result.outcome) ?? new ClientGone();
    const { record, arrival, signal } = request;
    if (verdict.kind === "decide") {
      placed = await placeAnew(context, arrival.wanted, placed, context.staleMs, record, signal);
    }
    context.metrics.retries.inc({ reason: verdict.reason });
  }
}

const attempt = (
  context: ServeContext,
  { client, record, body, arrival }: Request,
  placed: Placed,
): Promise<AttemptResult> =>
  tryOnce(context, {
    identity: arrival.identity,
    placed,
    record,
    headers: arrival.headers,
    hop: {
      clock: context.clock,
      method: client.req.method ?? "GET",
      path: arrival.identity.path,
      body,
      client,
      limits: context.forwardLimits,
      trailers: wantsTrailers(client.req),
    },
  });

function judge(request: Request, placed: Placed, result: AttemptResult): RetryVerdict {
  const { outcome, notAdmitted } = result;
  if (outcome.kind !== "failed") return { kind: "keep", reason: "not-repeatable" };
  const { reason } = outcome;
  return decideRetry({
    attempt: request.record.attempt,
    method: request.client.req.method ?? "",
    failure: reason === "connect" || reason === "reset" ? reason : "other",
    sent: outcome.sent,
    notAdmitted,
    answered: outcome.status !== undefined,
    bodyEmpty: request.body.empty,
    bodyIntact: request.body.replayable,
    endpoints: placed.endpoints.length,
  });
}

/** The one place where an error becomes an answer. */
function rescue(
  context: ServeContext,
  client: Client,
  record: RequestRecord,
  error: unknown,
): void {
  if (error instanceof ClientGone) {
    record.flag = record.flag === "ok" ? "client-gone" : record.flag;
    client.res.destroy();
    return;
  }
  if (!(error instanceof CellError)) {
    context.log.event("router.trouble", { where: "serve", ...errorFields(error) }, "error");
  }
  const refusal =
    error instanceof CellError ? error : new CellError("INTERNAL", "A fault in the router.");
  record.errorCode = refusal.code;
  if (record.flag === "ok") record.flag = "refused";
  record.status = refuse(client, refusal, context.routerId, record.trace.requestId);
}

function finish(context: ServeContext, record: RequestRecord, body: RequestBody): void {
  const endedMs = context.clock.monotonicMs();
  record.bytesIn = body.received;
  record.count(context.metrics, endedMs);
  if (context.accessLog) context.log.event("request.done", record.fields(endedMs));
}

export function beginRecord(context: ServeContext, req: IncomingMessage): RequestRecord {
  // An IPv4 client of a dual-stack listener is written as what it is.
  const peer = (req.socket.remoteAddress ?? "").replace(/^::ffff:(?=\d+\.)/, "");
  const { random } = context;
  const fresh = { requestId: random.uuid(), traceId: random.hex(16), spanId: random.hex(8) };
  return new RequestRecord({
    startedMs: context.clock.monotonicMs(),
    trace: traceOf(req.rawHeaders, context.isTrusted(peer), fresh),
    method: req.method ?? "",
    target: req.url ?? "",
    proto: `HTTP/${req.httpVersion}`,
    peer,
  });
}

function openBody(
  context: ServeContext,
  { req, res }: Client,
  expectsContinue: boolean,
): RequestBody {
  return new RequestBody({
    source: req,
    framing: bodyFraming(req.rawHeaders),
    clock: context.clock,
    ...context.body,
    ...(expectsContinue ? { onFirstRead: () => res.writeContinue() } : {}),
  });
}

const wantsTrailers = (req: IncomingMessage): boolean =>
  listElements(headerValues(req.rawHeaders, "te")).includes("trailers");

const sentence = (text: string): string => `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
