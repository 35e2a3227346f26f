/**
 * What an answer means for the write that was sent: acknowledged, certainly not done, or unknown. Pure, and
 * the error table decides: a code whose verdict is `idempotent-only` leaves the outcome open, every other
 * refusal promises that nothing was done; the checker holds the fleet to that promise.
 */
import { errorTable, isErrorCode } from "../contract/errors.ts";

export type Outcome = "ok" | "fail" | "unknown";

/** `code` is that of `x-cellfleet-error` or of the body; undefined when the answer has none. */
export function outcomeOf(status: number, code: string | undefined): Outcome {
  if (status >= 200 && status < 300) return "ok";
  if (code !== undefined && isErrorCode(code)) {
    return errorTable[code].retry === "idempotent-only" ? "unknown" : "fail";
  }
  // A refusal by the application, before it did anything; anything else came from who knows where.
  return status >= 400 && status < 500 ? "fail" : "unknown";
}

/** One write, tried several times under one key: it is done if any attempt was, open if any was open. */
export function combine(earlier: Outcome | undefined, now: Outcome): Outcome {
  if (earlier === "ok" || now === "ok") return "ok";
  return earlier === "unknown" || now === "unknown" ? "unknown" : "fail";
}

/** A connection that was refused carried nothing; every other trouble on the way may have. */
export const outcomeOfTrouble = (error: unknown): Outcome =>
  error instanceof Error && "code" in error && error.code === "ECONNREFUSED" ? "fail" : "unknown";
