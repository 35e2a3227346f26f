/** One row of the error table: what a code means to whoever reads it. */

/** Who is at fault: what a reader of the answer looks at first. `depends`: its message says. */
export type ErrorSource = "client" | "router" | "cell" | "control" | "depends";

/**
 * May the same request be sent again?
 * `never`: it will fail the same way. `safe`: nothing was done. `idempotent-only`: it may have been
 * done; only an idempotent request, or one with the same Idempotency-Key, may be repeated.
 */
export type RetryVerdict = "never" | "safe" | "idempotent-only";

export type ErrorEntry = {
  readonly httpStatus: number;
  readonly source: ErrorSource;
  readonly retry: RetryVerdict;
  /** The exit code of `cellctl` (design of the CLI: 4 guardrail, 5 not found, 6 conflict, 64 usage …). */
  readonly exit: number;
  readonly meaning: string;
};

export const entry = (
  httpStatus: number,
  source: ErrorSource,
  retry: RetryVerdict,
  exit: number,
  meaning: string,
): ErrorEntry => ({ httpStatus, source, retry, exit, meaning });
