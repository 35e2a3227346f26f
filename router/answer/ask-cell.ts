/**
 * One cell's part of a fan-out: a GET to one of its endpoints, its answer kept in memory within limits.
 *
 * What must always be true: it ends, with an answer that the cell confirmed or with the reason why there
 * is none; a seat that was taken is given back; nothing is read beyond the limits.
 */
import type { RawHeaders } from "../../contract/raw-headers.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { Endpoint } from "../../runtime/http/endpoint.ts";
import type { Random } from "../../runtime/random.ts";
import type { Evidence } from "../cells/breaker.ts";
import type { Picked } from "../cells/endpoints.ts";
import type { RetryBudget } from "../cells/retry-budget.ts";
import type { AttemptSpan, RequestSpans } from "../observe/request-spans.ts";
import type { Placed, Subject } from "../place/decide.ts";
import { type AttemptContext, wireHeaders } from "./attempt.ts";
import { confirmsCell } from "./confirm.ts";
import { embedAnswer, type MissingReason, type Part } from "./fan-out-answer.ts";

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

/** Never rejects. A GET changes nothing, so another endpoint is tried once when one cannot be reached. */
export async function askCell(context: AskContext, ask: AskCell): Promise<Part> {
  const { slots, budget } = context.cells.of(ask.placed);
  budget.noteRequest(context.clock.monotonicMs());
  const seat = await slots.take(ask.signal);
  if (seat !== "taken") return missingFrom(ask)(ask.signal.aborted ? "late" : "overloaded");
  try {
    const part = await askTwice(context, ask, budget);
    const isDead = part.kind === "missing" && part.reason === "unreachable";
    context.tally.note(ask.placed.cell, isDead);
    return part;
  } finally {
    slots.give();
  }
}

async function askTwice(context: AskContext, ask: AskCell, budget: RetryBudget): Promise<Part> {
  const { endpoints } = ask.placed;
  const first = context.endpoints.pick(endpoints, undefined);
  if (first === undefined) return missingFrom(ask)("unreachable");
  const part = await askEndpoint(context, ask, first);
  const failed = part.kind === "missing" && part.reason === "unreachable";
  if (!failed || context.endpoints.count(endpoints) < 2 || ask.signal.aborted) return part;
  if (!budget.take(context.clock.monotonicMs())) return part;
  const second = context.endpoints.pick(endpoints, first.endpoint.name);
  return second === undefined ? part : askEndpoint(context, ask, second);
}

async function askEndpoint(context: AskContext, ask: AskCell, picked: Picked): Promise<Part> {
  const { endpoint } = picked;
  const part = await askSeated(context, ask, endpoint);
  // Of a failed exchange it is not known whether it was the connection: a reset is the lesser charge.
  const failed = part.kind === "missing" && part.reason === "unreachable";
  const evidence: Evidence =
    part.kind === "answered"
      ? { kind: "answered" }
      : failed
        ? { kind: "failed", reason: "reset" }
        : { kind: "none" };
  context.endpoints.note(picked, { evidence, who: "" });
  return part;
}

async function askSeated(context: AskContext, ask: AskCell, endpoint: Endpoint): Promise<Part> {
  const missing = missingFrom(ask);
  const seat = await endpoint.slots.take(ask.signal);
  if (seat !== "taken") return missing(ask.signal.aborted ? "late" : "overloaded");
  const { clock, random } = context;
  const span = ask.spans?.open(random.hex(8), endpoint.url, clock.monotonicMs());
  try {
    const part = await exchange(context, ask, endpoint, span);
    span?.end(part.kind === "missing" ? part.reason : undefined, clock.monotonicMs());
    return part;
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
  (reason: MissingReason): Part => ({ kind: "missing", cell: placed.cell, reason });

const nobody: Subject = { kind: "refused", code: "TENANT_MISSING", message: "", named: [] };

async function exchange(
  context: AskContext,
  ask: AskCell,
  endpoint: Endpoint,
  span: AttemptSpan | undefined,
): Promise<Part> {
  const { placed, path, headers, signal } = ask;
  const missing = missingFrom(ask);
  const nonce = context.random.hex(12);
  const own = wireHeaders({ placed, subject: nobody, routeClass: "fan-out" }, nonce, context);
  const answer = await endpoint.pool.request({
    method: "GET",
    path: endpoint.basePath + path,
    headers: span?.carriedBy([...headers, ...own]) ?? [...headers, ...own],
    signal,
  });
  const { statusCode: status, body } = answer;
  const problem = headProblem(context, ask, status, answer.headers);
  if (problem !== undefined) {
    // The connection is given up with what still comes on it.
    body.on("error", () => {}).destroy();
    return missing(problem);
  }
  const kept = await readWithin(body, ask);
  if (kept === undefined) return missing("too-large");
  const contentType = firstOf(answer.headers["content-type"]) ?? "";
  const text = embedAnswer(status, contentType, kept);
  return { kind: "answered", cell: placed.cell, text };
}

type AnswerHeaders = Readonly<Record<string, string | string[] | undefined>>;

function headProblem(
  { wouldRefuse }: AskContext,
  { placed }: AskCell,
  status: number,
  headers: AnswerHeaders,
): MissingReason | undefined {
  if (status >= 500) return "failed";
  const encoding = firstOf(headers["content-encoding"]);
  if (encoding !== undefined && encoding !== "identity") return "unreadable";
  if (placed.wire === "plain" || placed.wire === "pass-through") return undefined;
  if (confirmsCell(headers, placed.cell)) return undefined;
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
