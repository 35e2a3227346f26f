/**
 * A request of class `fan-out`: to every cell that offers the service and owns something, at once,
 * and one answer that names every cell (`fan-out-answer.ts`).
 *
 * What must always be true: it ends at its deadline; a cell that is dead, slow or in doubt costs the
 * answer that cell alone; when the client goes away, so do all requests to cells. So many run at a
 * time and each keeps so many bytes, that no client can take the router's memory with them.
 */
import { CellError } from "../../contract/errors.ts";
import { headers as names, requestIdHeader } from "../../contract/headers.ts";
import type { CellId } from "../../contract/ids.ts";
import { filterHeaders, type RawHeaders } from "../../contract/raw-headers.ts";
import type { TableState } from "../../contract/table-state.ts";
import { clientGone } from "../../runtime/http/forward.ts";
import { everyCell, type RouterMetrics } from "../observe/metrics.ts";
import type { RequestRecord } from "../observe/record.ts";
import { decideFanOut, isHalted, type RoutingView, shownCell } from "../place/decide.ts";
import { ClientGone } from "../place/place.ts";
import type { Arrival } from "../receive/receive.ts";
import type { Client } from "../serve.ts";
import { type AskContext, askCell, type Budget, type Came, missingPart } from "./ask-cell.ts";
import { buildFanOutAnswer, missingOf, type Part, shownNames } from "./fan-out-answer.ts";

export type FanOutLimits = {
  /** Where the route says nothing else: cells that have not answered by then are missing. */
  readonly deadlineMs: number;
  /** At the same time, in this router. */
  readonly runningMax: number;
  readonly cellBytesMax: number;
  readonly totalBytesMax: number;
};
export const fanOutLimits: FanOutLimits = {
  runningMax: 16,
  deadlineMs: 2000,
  cellBytesMax: 1024 * 1024,
  totalBytesMax: 16 * 1024 * 1024,
};

/** So much of a client's own deadline is for the cells; the rest is for the answer. */
const answerShare = 0.9;

/** Of one router: how many run now. */
export type FanOuts = { readonly limits: FanOutLimits; running: number };

export type FanOutContext = AskContext & {
  readonly view: () => RoutingView | undefined;
  readonly metrics: RouterMetrics;
  readonly routerId: string;
  readonly fanOuts: FanOuts;
};

type FanOutRequest = {
  readonly client: Client;
  readonly record: RequestRecord;
  readonly arrival: Arrival;
  /** Aborted when the client is gone. */
  readonly signal: AbortSignal;
  /** Of the client's own deadline, if it has one: an answer that names what is missing comes before it. */
  readonly leftMs: number | undefined;
};

/** Throws what is refused; answers everything else itself. */
export async function fanOut(context: FanOutContext, request: FanOutRequest): Promise<void> {
  const { client, record, signal } = request;
  const { fanOuts } = context;
  record.target = everyCell;
  if (client.req.method !== "GET" && client.req.method !== "HEAD") {
    throw new CellError("METHOD_NOT_ALLOWED", "What goes to all cells only reads: GET or HEAD.");
  }
  if (fanOuts.running >= fanOuts.limits.runningMax) {
    const text = `${fanOuts.running} requests to all cells are on their way, as many as may be.`;
    throw new CellError("ROUTER_OVERLOADED", text);
  }
  fanOuts.running += 1;
  try {
    const view = context.view();
    if (view === undefined) throw new CellError("TABLE_NOT_LOADED", "There is no routing table.");
    const settled = watchOwners(view.table);
    const parts = await standBy(context, await askAll(context, view, request));
    if (signal.aborted) throw new ClientGone();
    const { table } = context.view() ?? view;
    respond(context, request, parts, table, settled(table));
  } finally {
    fanOuts.running -= 1;
  }
}

/**
 * A tenant on its way from cell to cell is seen in neither for a moment, or by a slow question in both:
 * what was unsettled before, is now, or has changed meanwhile.
 */
function watchOwners(before: TableState): (now: TableState | undefined) => ReadonlySet<CellId> {
  const { revision } = before;
  const { all, unsettled } = before.owners();
  return (now) => {
    // A whole new table does not tell what changed.
    if (now !== before) return new Set([...all, ...(now?.owners().all ?? [])]);
    return new Set([...unsettled, ...now.owners().unsettled, ...now.changedOwner(revision)]);
  };
}

/**
 * Rule R2 for parts that waited for the others: whose lease may be over by now is asked once more, and
 * one whose cell does not stand by it any more is missing.
 */
async function standBy(context: FanOutContext, all: readonly Came[]): Promise<readonly Part[]> {
  const { clock } = context;
  const startedMs = clock.monotonicMs();
  const known = await Promise.all(
    all.map(async ({ part, untilMs, again }) => ({
      part,
      untilMs: untilMs > startedMs ? untilMs : await again(),
    })),
  );
  const table = context.view()?.table;
  const nowMs = clock.monotonicMs();
  return known.map(({ part, untilMs }): Part => {
    if (part.kind === "missing") return part;
    const { cell } = part;
    if (table !== undefined && isHalted(table, cell)) {
      return { kind: "missing", cell, reason: "halted" };
    }
    const isGood = untilMs !== undefined && nowMs < untilMs;
    return isGood ? part : { kind: "missing", cell, reason: "unconfirmed" };
  });
}

async function askAll(
  context: FanOutContext,
  view: RoutingView,
  { arrival, record, signal, leftMs = Infinity }: FanOutRequest,
): Promise<readonly Came[]> {
  const { clock, fanOuts } = context;
  record.revision = view.table.revision;
  const decision = decideFanOut(view, arrival.route.service);
  if (decision.kind === "refuse") throw new CellError(decision.code, decision.message);
  const over = new AbortController();
  const leave = () => over.abort(clientGone);
  const routeMs = arrival.route.deadlineMs ?? fanOuts.limits.deadlineMs;
  const deadline = clock.after(Math.min(routeMs, leftMs * answerShare), () =>
    over.abort("deadline"),
  );
  signal.addEventListener("abort", leave, { once: true });
  if (signal.aborted) leave();
  record.forwardedMs = clock.monotonicMs();
  const budget: Budget = { left: fanOuts.limits.totalBytesMax };
  const headers = headersOf(arrival.headers);
  try {
    return await Promise.all(
      decision.targets.map((placed) =>
        "missing" in placed
          ? missingPart(placed.missing, placed.halted ? "halted" : "unlisted")
          : askCell(context, {
              ...{ placed, headers, budget, signal: over.signal, spans: record.spans },
              path: arrival.path,
              cellBytesMax: fanOuts.limits.cellBytesMax,
            }),
      ),
    );
  } finally {
    deadline.cancel();
    signal.removeEventListener("abort", leave);
  }
}

/** What asks for a part of an answer, for none, or for one in an encoding; and of a body not sent on. */
const notPassedOn: ReadonlySet<string> = new Set([
  "accept-encoding",
  "content-encoding",
  "content-length",
  "content-type",
  "if-match",
  "if-modified-since",
  "if-none-match",
  "if-range",
  "if-unmodified-since",
  "range",
  "te",
]);

const headersOf = (raw: RawHeaders): string[] =>
  filterHeaders(raw, (name) => !notPassedOn.has(name));

function respond(
  { metrics, routerId }: FanOutContext,
  { client, record }: FanOutRequest,
  parts: readonly Part[],
  table: TableState,
  unsettled: ReadonlySet<CellId>,
): void {
  const missing = missingOf(parts, unsettled);
  for (const { reason } of missing) metrics.fanOutMissing.inc({ reason });
  const nameOf = shownNames(
    parts.map(({ cell }) => cell),
    (cell) => shownCell(table, cell),
  );
  const { status, headers, body } = buildFanOutAnswer(parts, missing, nameOf);
  const bytes = Buffer.byteLength(body);
  record.attempt = 1;
  record.status = status;
  record.bytesOut = bytes;
  if (status === 207) record.flag = "incomplete";
  client.res.writeHead(status, [
    ...headers,
    ...["content-length", String(bytes)],
    ...[names.answeredBy, `router ${routerId}`],
    ...[requestIdHeader, record.trace.requestId],
  ]);
  client.res.end(client.req.method === "HEAD" ? undefined : body);
}
