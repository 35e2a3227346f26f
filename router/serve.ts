/**
 * ★ The request path; read this first. Phase by phase, each a file of its own:
 *
 *   check the head, choose the route, identify the tenant, rewrite the headers (receive.ts) → decide by
 *   the table in memory, holding while its placement changes hands → forward, judging the answer's
 *   head → perhaps once more → one rescue for every refusal → one log line, always.
 *   A route of class `fan-out` goes to every cell instead (fan-out.ts).
 *
 * No call to the control plane is on this path, and nothing on it collects a body.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import { CellError } from "../contract/errors.ts";
import type { Clock } from "../runtime/clock.ts";
import { Departure } from "../runtime/http/departure.ts";
import { clientGone, type ForwardLimits } from "../runtime/http/forward.ts";
import { bodyFraming } from "../runtime/http/hop-headers.ts";
import { RequestBody, type RequestBodyOptions } from "../runtime/http/request-body.ts";
import { errorFields, type Log } from "../runtime/log.ts";
import {
  type AttemptContext,
  type AttemptResult,
  failureError,
  tryOnce,
} from "./answer/attempt.ts";
import { type FanOutContext, fanOut } from "./answer/fan-out.ts";
import { refuse } from "./answer/refuse.ts";
import { decideRetry, type RetryReason, type RetryVerdict } from "./cells/retry.ts";
import { answerInstead } from "./fallback/instead.ts";
import { deadlineOver, type LimitsContext, Stay } from "./limits/stay.ts";
import { type Concluding, conclude } from "./observe/conclude.ts";
import type { RouterEvents } from "./observe/events.ts";
import { globalTarget } from "./observe/metrics.ts";
import { RequestRecord } from "./observe/record.ts";
import { type PlacingCellWide, placeCellWide } from "./place/cell-wide.ts";
import { isOfTenant, type Placed, type Subject } from "./place/decide.ts";
import { ClientGone, type Placeable, type Placing, place, placeAnew } from "./place/place.ts";
import { type Arrival, type Receiving, receive, wantsTrailers } from "./receive/receive.ts";
import { traceOf } from "./receive/rewrite-headers.ts";

export type ServeContext = AttemptContext &
  FanOutContext &
  Receiving &
  PlacingCellWide &
  Placing &
  Concluding & {
    readonly clock: Clock;
    readonly log: Log<RouterEvents>;
    readonly routerId: string;
    readonly limits: LimitsContext;
    readonly forwardLimits: ForwardLimits;
    readonly body: Pick<RequestBodyOptions, "bytesMax" | "keepBytesMax" | "idleMs" | "pace">;
  };

export type Client = { readonly req: IncomingMessage; readonly res: ServerResponse };

export async function serve(
  context: ServeContext,
  client: Client,
  expectsContinue: boolean,
): Promise<void> {
  const record = beginRecord(context, client.req);
  const gone = new Departure();
  client.res.once("close", () => {
    // To abort costs more than all else here, and after a whole answer nobody is left to be told.
    if (!client.res.writableFinished) gone.leave(clientGone);
  });
  const body = openBody(context, client, expectsContinue);
  const stay = new Stay(context.limits);
  let arrival: Arrival | undefined;
  try {
    const received = receive(context, client.req, record);
    // Waiting costs a turn of the loop: only for a token that nobody has verified yet.
    const here = received instanceof Promise ? await received : received;
    // Who has no time left takes no place, and is not answered instead.
    stay.begin(here.route, client.req.rawHeaders, record.startedMs, () => gone.leave(deadlineOver));
    arrival = here;
    stay.enterRouter(arrival.route);
    if (arrival.route.class === "fan-out") {
      const leftMs = stay.leftMs();
      record.asked = true;
      await fanOut(context, { client, record, arrival, signal: gone.signal, leftMs });
      return;
    }
    const weigh = () => weightOf(client.req, body);
    const placing = placeArrival(context, arrival, { record, gone, weigh });
    const placed = placing instanceof Promise ? await placing : placing;
    stay.enterTenant(arrival.subject, placed);
    await carry(context, { client, record, body, arrival, gone, weigh, stay }, placed);
  } catch (error) {
    record.hasty = !record.asked && stay.isClients && gone.reason === deadlineOver;
    rescue(context, client, record, inTime(error, gone), arrival);
  } finally {
    stay.leave();
    body.release();
    finish(context, record, body);
  }
}

/** What ended because its time was over says so. */
const inTime = (error: unknown, { reason }: Departure): unknown =>
  error instanceof ClientGone && reason === deadlineOver
    ? new CellError(
        "DEADLINE_EXCEEDED",
        "The deadline of the request was over before an answer came.",
      )
    : error;

/** Where it goes. Counts what was carried only because a cell is not in `enforce` yet. */
export function placeArrival(
  context: ServeContext,
  { route, subject }: Arrival,
  waiting: Omit<Placeable, "wanted" | "hasFallback">,
): Placed | Promise<Placed> {
  if (!isOfTenant(route)) return placeCellWide(context, route, waiting.record);
  const wanted = { subject, service: route.service };
  const hasFallback = route.fallback !== undefined;
  const placing = place(context, { ...waiting, wanted, hasFallback });
  return placing instanceof Promise
    ? placing.then((placed) => noted(context, subject, placed))
    : noted(context, subject, placing);
}

/** While it waits: its head, and what comes of the body without being asked for. */
function weightOf({ rawHeaders, url = "" }: IncomingMessage, body: RequestBody): number {
  return rawHeaders.reduce((sum, { length }) => sum + length, url.length) + body.restingBytesMax;
}

function noted({ wouldRefuse }: ServeContext, subject: Subject, placed: Placed): Placed {
  if (placed.route === undefined) {
    wouldRefuse.note(subject.kind === "refused" ? subject.code : "TENANT_UNKNOWN");
  }
  return placed;
}

type Request = {
  readonly client: Client;
  readonly record: RequestRecord;
  readonly body: RequestBody;
  readonly arrival: Arrival;
  readonly gone: Departure;
  readonly weigh: () => number;
  readonly stay: Stay;
};

/** One attempt, and others as long as `decideRetry` allows; throws what the client is told if all fail. */
async function carry(context: ServeContext, request: Request, first: Placed): Promise<void> {
  let placed = first;
  let again: RetryReason | undefined;
  let refused = 0;
  for (;;) {
    const result = await attempt(context, request, placed, again);
    const { budget } = context.cells.of(placed);
    // Answered at once on another connection: it was the connection, and no load on a sick cell.
    if (again === "reset-idempotent" && result.outcome.kind === "answered") budget.giveBack();
    if (result.outcome.kind !== "failed") return;
    const verdict = withinBudget(context, placed, judge(context, request, placed, result, refused));
    if (verdict.kind === "keep") throw failureError(placed, result.outcome) ?? new ClientGone();
    again = verdict.reason;
    if (result.notAdmitted && placed.route !== undefined) refused += 1;
    placed = await placeNext(context, request, placed, verdict);
    context.metrics.retries.inc({ reason: verdict.reason });
  }
}

/** Where the next attempt goes. */
function placeNext(
  context: ServeContext,
  request: Request,
  placed: Placed,
  { kind }: RetryVerdict,
): Placed | Promise<Placed> {
  const { record, arrival } = request;
  const { route, service } = placed;
  // Only a gate that was told of a placement can say that it was not admitted.
  if (kind === "decide" && route !== undefined) {
    const wanted = { subject: arrival.subject, service };
    const refused = { route, revision: record.revision ?? 0 };
    const hasFallback = arrival.route.fallback !== undefined;
    return placeAnew(context, { ...request, wanted, hasFallback }, refused);
  }
  return arrival.route.class === "any-cell"
    ? placeCellWide(besides(context, placed), arrival.route, record)
    : placed;
}

/** What a gate did not admit cost the cell nothing; every other repetition is paid for. */
function withinBudget(
  { cells, clock, metrics }: ServeContext,
  placed: Placed,
  verdict: RetryVerdict,
): RetryVerdict {
  if (verdict.kind !== "again" || cells.of(placed).budget.take(clock.monotonicMs())) return verdict;
  metrics.retryBudgetExhausted.inc({ cell: placed.shown ?? globalTarget });
  return { kind: "keep", reason: "budget-exhausted" };
}

/** Any other cell will do. */
const besides = (context: ServeContext, { endpoints }: Placed): PlacingCellWide => ({
  ...context,
  isUsable: (urls) => urls !== endpoints && context.isUsable(urls),
});

const attempt = (
  context: ServeContext,
  { client, record, body, arrival, gone, stay }: Request,
  placed: Placed,
  again: RetryReason | undefined,
): Promise<AttemptResult> =>
  tryOnce(context, {
    subject: arrival.subject,
    routeClass: arrival.route.class,
    fallback: arrival.route.fallback,
    placed,
    record,
    headers: arrival.headers,
    ...{ gone, stay, fresh: again === "reset-idempotent" },
    hop: {
      clock: context.clock,
      method: client.req.method ?? "GET",
      path: arrival.path,
      body,
      client,
      limits: context.forwardLimits,
      trailers: wantsTrailers(client.req),
    },
  });

function judge(
  context: ServeContext,
  request: Request,
  placed: Placed,
  result: AttemptResult,
  refused: number,
): RetryVerdict {
  const { outcome, notAdmitted } = result;
  if (outcome.kind !== "failed") return { kind: "keep", reason: "not-repeatable" };
  const { reason } = outcome;
  return decideRetry({
    attempt: request.record.attempt,
    refused,
    method: request.client.req.method ?? "",
    failure: reason === "connect" || reason === "reset" ? reason : "other",
    sent: outcome.sent,
    notAdmitted,
    answered: outcome.status !== undefined,
    bodyIntact: request.body.replayable,
    // Another cell is another endpoint to a route that all cells answer alike.
    endpoints:
      context.endpoints.count(placed.endpoints) +
      (request.arrival.route.class === "any-cell" ? 1 : 0),
  });
}

/** The one place where an error becomes an answer. */
function rescue(
  context: ServeContext,
  client: Client,
  record: RequestRecord,
  error: unknown,
  arrival: Arrival | undefined,
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
  if (refusal.code === "DEADLINE_EXCEEDED") context.metrics.deadlineExceeded.inc();
  record.refusal = refusal;
  if (record.flag === "ok") record.flag = "refused";
  record.status =
    instead(context, client, record, refusal, arrival) ??
    refuse(client, refusal, context.routerId, record.trace.requestId);
}

/** The status of the route's fallback, if it has one for this error. */
function instead(
  { fallbacks }: ServeContext,
  { req, res }: Client,
  record: RequestRecord,
  error: CellError,
  arrival: Arrival | undefined,
): number | undefined {
  if (arrival?.route.fallback === undefined) return undefined;
  const { path, route: chosen } = arrival;
  const { fallback, service } = chosen;
  const answered = { req, fallback, service, path, route: record.route };
  return answerInstead(fallbacks, answered, res, record, error);
}

function finish(context: ServeContext, record: RequestRecord, body: RequestBody): void {
  const endedMs = context.clock.monotonicMs();
  record.bytesIn = body.received;
  conclude(context, record, endedMs);
}

export function beginRecord(context: ServeContext, req: IncomingMessage): RequestRecord {
  // An IPv4 client of a dual-stack listener is written as what it is.
  const peer = (req.socket.remoteAddress ?? "").replace(/^::ffff:(?=\d+\.)/, "");
  const { random } = context;
  // One draw is cheaper than two.
  const ids = random.hex(24);
  const fresh = { requestId: random.uuid(), traceId: ids.slice(0, 32), spanId: ids.slice(32) };
  const startedMs = context.clock.monotonicMs();
  const trace = traceOf(req.rawHeaders, context.isTrusted(peer), fresh);
  const traced = context.tracing?.begin(trace);
  const record = new RequestRecord({
    startedMs,
    trace: traced?.trace ?? trace,
    method: req.method ?? "",
    target: req.url ?? "",
    proto: `HTTP/${req.httpVersion}`,
    peer,
  });
  record.spans = traced?.spans;
  return record;
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
