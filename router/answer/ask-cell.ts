/**
 * One cell's part of a fan-out: a GET to one of its endpoints, its answer kept in memory within limits.
 *
 * What must always be true: it ends, with an answer that the cell confirmed or with the reason why there
 * is none; a seat that was taken is given back; nothing is read beyond the limits.
 */
import { headers as names } from "../../contract/headers.ts";
import type { CellId } from "../../contract/ids.ts";
import { headerValues, type RawHeaders } from "../../contract/raw-headers.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { Endpoint } from "../../runtime/http/endpoint.ts";
import type { Random } from "../../runtime/random.ts";
import type { Evidence } from "../cells/breaker.ts";
import type { Picked } from "../cells/endpoints.ts";
import type { RetryBudget } from "../cells/retry-budget.ts";
import type { AttemptSpan, RequestSpans } from "../observe/request-spans.ts";
import type { Placed, Subject } from "../place/decide.ts";
import type { AttemptContext } from "./attempt.ts";
import { cellConfirmedUntilMs } from "./confirm.ts";
import { embedAnswer, type MissingReason, type Part } from "./fan-out-answer.ts";
import { askAgain } from "./passing-on.ts";
import { wireHeaders } from "./wire-headers.ts";

export type AskContext = Pick<
  AttemptContext,
  "endpoints" | "cells" | "tally" | "wouldRefuse" | "view" | "sign"
> & {
  readonly random: Random;
  readonly clock: Clock;
};

/** Bytes that all answers of one fan-out may still take. */
export type Budget = { left: number };

export type AskCell = {
  readonly placed: Placed & { readonly cell: NonNullable<Placed["cell"]> };
  readonly path: string;
  readonly headers: RawHeaders;
  readonly cellBytesMax: number;
  readonly budget: Budget;
  /** Aborted when the deadline is over, or nobody waits any more. */
  readonly signal: AbortSignal;
  /** Undefined: the request is not traced. */
  readonly spans: RequestSpans | undefined;
};

/** A part as it came: it may be passed on until its cell's lease may be over. */
export type Came = {
  readonly part: Part;
  /** Monotonic; infinite where nothing is confirmed. */
  readonly untilMs: number;
  /** Asks the same gate once more; until when it stands by the answer then, if it does. */
  readonly again: () => Promise<number | undefined>;
};

/** Never rejects. A GET changes nothing, so another endpoint is tried once when one cannot be reached. */
export async function askCell(context: AskContext, ask: AskCell): Promise<Came> {
  const { slots, budget } = context.cells.of(ask.placed);
  budget.noteRequest(context.clock.monotonicMs());
  const seat = await slots.take(ask.signal);
  if (seat !== "taken") return missingFrom(ask)(ask.signal.aborted ? "late" : "overloaded");
  try {
    const came = await askTwice(context, ask, budget);
    const { part } = came;
    const isDead = part.kind === "missing" && part.reason === "unreachable";
    context.tally.note(ask.placed.cell, isDead);
    return came;
  } finally {
    slots.give();
  }
}

async function askTwice(context: AskContext, ask: AskCell, budget: RetryBudget): Promise<Came> {
  const { endpoints } = ask.placed;
  const first = context.endpoints.pick(endpoints, undefined);
  if (first === undefined) return missingFrom(ask)("unreachable");
  const came = await askEndpoint(context, ask, first);
  const { part } = came;
  const failed = part.kind === "missing" && part.reason === "unreachable";
  if (!failed || context.endpoints.count(endpoints) < 2 || ask.signal.aborted) return came;
  if (!budget.take(context.clock.monotonicMs())) return came;
  const second = context.endpoints.pick(endpoints, first.endpoint.name);
  return second === undefined ? came : askEndpoint(context, ask, second);
}

async function askEndpoint(context: AskContext, ask: AskCell, picked: Picked): Promise<Came> {
  const { endpoint } = picked;
  const came = await askSeated(context, ask, endpoint);
  const { part } = came;
  // Of a failed exchange it is not known whether it was the connection: a reset is the lesser charge.
  const failed = part.kind === "missing" && part.reason === "unreachable";
  const evidence: Evidence =
    part.kind === "answered"
      ? { kind: "answered" }
      : failed
        ? { kind: "failed", reason: "reset" }
        : { kind: "none" };
  context.endpoints.note(picked, { evidence, who: "" });
  return came;
}

async function askSeated(context: AskContext, ask: AskCell, endpoint: Endpoint): Promise<Came> {
  const missing = missingFrom(ask);
  const seat = await endpoint.slots.take(ask.signal);
  if (seat !== "taken") return missing(ask.signal.aborted ? "late" : "overloaded");
  const { clock, random } = context;
  const span = ask.spans?.open(random.hex(8), endpoint.url, clock.monotonicMs());
  try {
    const came = await exchange(context, ask, endpoint, span);
    const { part } = came;
    span?.end(part.kind === "missing" ? part.reason : undefined, clock.monotonicMs());
    return came;
  } catch {
    span?.end(ask.signal.aborted ? "late" : "unreachable", clock.monotonicMs());
    // What failed shows in the reason: the deadline or the connection; there is no third.
    return missing(ask.signal.aborted ? "late" : "unreachable");
  } finally {
    endpoint.slots.give();
  }
}

const missingFrom =
  ({ placed }: AskCell) =>
  (reason: MissingReason): Came =>
    missingPart(placed.cell, reason);

/** That it is missing needs nobody's word. */
export const missingPart = (cell: CellId, reason: MissingReason): Came => ({
  part: { kind: "missing", cell, reason },
  untilMs: Number.POSITIVE_INFINITY,
  again: async () => undefined,
});

const nobody: Subject = { kind: "refused", code: "TENANT_MISSING", message: "", named: [] };

async function exchange(
  context: AskContext,
  ask: AskCell,
  endpoint: Endpoint,
  span: AttemptSpan | undefined,
): Promise<Came> {
  const { placed, path, headers, signal } = ask;
  const missing = missingFrom(ask);
  const nonce = context.random.hex(12);
  const addressed = { placed, subject: nobody, routeClass: "fan-out" } as const;
  const own = wireHeaders(addressed, nonce, context);
  // A connection may have to be made first: if anything, this is too early.
  const sentMs = context.clock.monotonicMs();
  const answer = await endpoint.pool.request({
    method: "GET",
    path: endpoint.basePath + path,
    headers: span?.carriedBy([...headers, ...own]) ?? [...headers, ...own],
    signal,
  });
  const { statusCode: status, body } = answer;
  const untilMs = cellConfirmedUntilMs(answer.headers, placed.cell, sentMs);
  const problem = headProblem(context, ask, status, answer.headers, untilMs !== undefined);
  if (problem !== undefined) {
    // The connection is given up with what still comes on it.
    body.on("error", () => {}).destroy();
    return missing(problem);
  }
  const kept = await readWithin(body, ask);
  if (kept === undefined) return missing("too-large");
  const contentType = firstOf(answer.headers["content-type"]) ?? "";
  const text = embedAnswer(status, contentType, kept);
  return {
    part: { kind: "answered", cell: placed.cell, text },
    untilMs: placed.wire === "enforce" ? (untilMs ?? 0) : Number.POSITIVE_INFINITY,
    again: async () => {
      const said = await askAgain(context, addressed, endpoint);
      if (said === undefined) return undefined;
      const [value] = headerValues(said.raw, names.confirm);
      return cellConfirmedUntilMs({ [names.confirm]: value }, placed.cell, said.sentMs);
    },
  };
}

type AnswerHeaders = Readonly<Record<string, string | string[] | undefined>>;

function headProblem(
  { wouldRefuse }: AskContext,
  { placed }: AskCell,
  status: number,
  headers: AnswerHeaders,
  isConfirmed: boolean,
): MissingReason | undefined {
  if (status >= 500) return "failed";
  const encoding = firstOf(headers["content-encoding"]);
  if (encoding !== undefined && encoding !== "identity") return "unreadable";
  if (placed.wire === "plain" || placed.wire === "pass-through") return undefined;
  if (isConfirmed) return undefined;
  if (placed.wire === "enforce") return "unconfirmed";
  wouldRefuse.note("OUTCOME_UNKNOWN");
  return undefined;
}

const firstOf = (value: string | string[] | undefined): string | undefined =>
  typeof value === "string" ? value : value?.[0];

/** Undefined: it is too large; its bytes are given back to the others. */
async function readWithin(
  body: AsyncIterable<Buffer>,
  { cellBytesMax, budget }: AskCell,
): Promise<Buffer | undefined> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of body) {
    bytes += chunk.length;
    budget.left -= chunk.length;
    if (bytes > cellBytesMax || budget.left < 0) {
      budget.left += bytes;
      return undefined; // Leaving the loop destroys the body.
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
