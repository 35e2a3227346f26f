/**
 * Pure: may a failed attempt be followed by another? Only to a cell that owns the tenant by the table, and
 * only if the first provably did nothing (promise 7): nothing was sent, or the gate said with the
 * attempt's own nonce that it was not admitted, or repeating it changes nothing.
 *
 * At most one attempt follows one that an application may have seen. What a gate did not admit nobody has
 * seen, so it counts for nothing here; each such repetition needs news of the table instead
 * (decision 0053), and there are at most `refusedMax` of them.
 */

export type FailedAttempt = {
  /** 1 for the first. */
  readonly attempt: number;
  /** So many of those before it were not admitted, each of them by a gate that was told of a placement. */
  readonly refused: number;
  readonly method: string;
  /** `connect`: no connection came about. `reset`: it ended before an answer. */
  readonly failure: "connect" | "reset" | "other";
  readonly sent: "nothing" | "maybe";
  /** The endpoint answered 421 with this attempt's nonce. */
  readonly notAdmitted: boolean;
  /** Bytes of an answer had come; the client saw none of them. */
  readonly answered: boolean;
  /** What was read of the body is still at hand, so that it can be sent whole again. */
  readonly bodyIntact: boolean;
  /** Endpoints of the same service in the same cell. */
  readonly endpoints: number;
};

export const retryReasons = ["connect", "not-admitted", "reset-idempotent"] as const;
export type RetryReason = (typeof retryReasons)[number];
export const keepReasons = [
  "second-attempt",
  "refused-often",
  "body-gone",
  "no-other-endpoint",
  "may-have-acted",
  "not-repeatable",
  "budget-exhausted",
] as const;
export type KeepReason = (typeof keepReasons)[number];

export type RetryVerdict =
  /** `again`: the same cell, another endpoint if there is one. `decide`: ask the table anew. */
  | { readonly kind: "again" | "decide"; readonly reason: RetryReason }
  | { readonly kind: "keep"; readonly reason: KeepReason };

/** RFC 9110 section 9.2.2. */
const idempotentMethods: ReadonlySet<string> = new Set(["GET", "HEAD", "OPTIONS", "PUT", "DELETE"]);

/** More switches in a row than a move tries. */
export const refusedMax = 8;

const keep = (reason: KeepReason): RetryVerdict => ({ kind: "keep", reason });

export function decideRetry(failed: FailedAttempt): RetryVerdict {
  if (failed.attempt - failed.refused > 1) return keep("second-attempt");
  if (!failed.bodyIntact) return keep("body-gone");
  if (failed.notAdmitted) {
    return failed.refused < refusedMax
      ? { kind: "decide", reason: "not-admitted" }
      : keep("refused-often");
  }
  if (failed.failure === "connect" && failed.sent === "nothing") {
    return failed.endpoints > 1 ? { kind: "again", reason: "connect" } : keep("no-other-endpoint");
  }
  if (failed.failure !== "reset") return keep("not-repeatable");
  if (failed.answered) return keep("may-have-acted");
  const harmless = idempotentMethods.has(failed.method);
  return harmless ? { kind: "again", reason: "reset-idempotent" } : keep("may-have-acted");
}
