/**
 * Rule R2 as it is applied to every head that comes from a cell (`confirm.ts` decides): an answer that
 * took longer than the lease that it carries is confirmed once more by the same gate before its first
 * byte goes to the client. An answer that came in time costs no more than a look at the clock.
 *
 * What must always be true: whatever passes was confirmed by a lease that certainly still lived, and by
 * the table, in this very turn; the second question is bounded in time, and what it cannot settle has
 * an unknown outcome.
 */
import { CellError } from "../../contract/errors.ts";
import { confirmAgain, confirmPath, headers as names } from "../../contract/headers.ts";
import type { FoundRoute } from "../../contract/keyspace-routes.ts";
import type { RawHeaders } from "../../contract/raw-headers.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { Endpoint } from "../../runtime/http/endpoint.ts";
import type { Random } from "../../runtime/random.ts";
import type { RouterMetrics } from "../observe/metrics.ts";
import type { RequestRecord } from "../observe/record.ts";
import { findRoute, isHalted, type Placed, type Subject } from "../place/decide.ts";
import type { WouldRefuse } from "../place/would-refuse.ts";
import { type ConfirmVerdict, confirmAnswer } from "./confirm.ts";
import { type Addressed, type WireContext, wireHeaders } from "./wire-headers.ts";

/** Longest wait for the gate's second word; the client waits meanwhile. */
const againMs = 1000;

export type AgainContext = WireContext & {
  readonly clock: Clock;
  readonly random: Random;
};
export type PassingContext = AgainContext & {
  readonly metrics: Pick<RouterMetrics, "confirmations">;
  readonly wouldRefuse: WouldRefuse;
};

export type AnswerHead = {
  readonly status: number;
  readonly raw: RawHeaders;
  readonly nonce: string;
  /** Monotonic: nothing of the request had been sent before. */
  readonly sentMs: number;
};

export type Answered = Addressed & { readonly record: RequestRecord };

type Came = {
  readonly route: FoundRoute;
  /** That answered. */
  readonly endpoint: Endpoint;
  readonly head: AnswerHead;
};

/**
 * Also true of an answer that a cell in `observe` did not confirm, which is counted. A promise, which
 * does not reject, only where the gate is asked once more.
 */
export function isConfirmed(
  context: PassingContext,
  answered: Answered,
  { route, endpoint, head }: Came,
): boolean | Promise<boolean> {
  const verdict = judge(context, answered.subject, route, head);
  if (verdict !== "lease-spent" || answered.placed.wire === "observe") {
    return settle(context, answered, verdict);
  }
  context.metrics.confirmations.inc({ verdict });
  return askAgain(context, answered, endpoint).then((again) => {
    const second =
      again === undefined ? "not-again" : judge(context, answered.subject, route, again);
    return settle(context, answered, second === "gate-answer" ? "not-again" : second);
  });
}

function judge(
  { view: current, clock }: PassingContext,
  subject: Subject,
  route: FoundRoute,
  { raw, status, sentMs }: AnswerHead,
): ConfirmVerdict {
  const view = current();
  const now = {
    route: view && findRoute(view, subject),
    halted: view !== undefined && isHalted(view.table, route.cell),
  };
  return confirmAnswer(raw, status, route, now, { sentMs, nowMs: clock.monotonicMs() });
}

function settle(
  { metrics, wouldRefuse }: PassingContext,
  { placed, record }: Answered,
  verdict: ConfirmVerdict,
): boolean {
  metrics.confirmations.inc({ verdict });
  if (verdict === "confirmed" || verdict === "gate-answer") return true;
  if (placed.wire === "observe") {
    wouldRefuse.note("OUTCOME_UNKNOWN");
    return true;
  }
  record.flag = `unconfirmed-${verdict}`;
  return false;
}

/** Undefined: it did not say anything in time. */
export async function askAgain(
  context: AgainContext,
  addressed: Addressed,
  endpoint: Endpoint,
): Promise<AnswerHead | undefined> {
  const { clock, random } = context;
  const nonce = random.hex(12);
  const over = new AbortController();
  const timer = clock.after(againMs, () => over.abort("late"));
  const sentMs = clock.monotonicMs();
  try {
    const answer = await endpoint.side().request({
      method: "GET",
      path: endpoint.basePath + confirmPath,
      headers: [...wireHeaders(addressed, nonce, context), names.confirm, confirmAgain],
      signal: over.signal,
    });
    await answer.body.dump();
    const said = answer.headers[names.confirm];
    const raw = typeof said === "string" ? [names.confirm, said] : [];
    return { status: answer.statusCode, raw, nonce, sentMs };
  } catch {
    // Unreachable, broken or late: in each case nobody has confirmed anything.
    return undefined;
  } finally {
    timer.cancel();
  }
}

/** It came from a cell that is being taken over, without naming a placement that could be confirmed. */
export const isFromHalted = ({ view }: Pick<PassingContext, "view">, { cell }: Placed): boolean => {
  const table = view()?.table;
  return table !== undefined && cell !== undefined && isHalted(table, cell);
};

export const unconfirmed = ({ shown }: Pick<Placed, "shown">): CellError =>
  new CellError(
    "OUTCOME_UNKNOWN",
    `Cell ${shown} answered, but that it still owned the tenant could not be confirmed.`,
    { nextSteps: ["Repeat the request with the same Idempotency-Key."] },
  );
