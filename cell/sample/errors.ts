/**
 * What the sample application answers when it cannot do what was asked: one class, one JSON shape.
 *
 * `retryAfterSeconds` is set only where the same request may be sent again with hope.
 */

export class AppError extends Error {
  override readonly name = "AppError";
  readonly status: 400 | 404 | 409 | 413 | 422 | 500 | 503;
  readonly code: string;
  readonly nextSteps: readonly string[];
  readonly retryAfterSeconds: number | undefined;

  constructor(
    status: AppError["status"],
    code: string,
    message: string,
    options: {
      readonly nextSteps?: readonly string[];
      readonly retryAfterSeconds?: number;
      readonly cause?: unknown;
    } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.status = status;
    this.code = code;
    this.nextSteps = options.nextSteps ?? [];
    this.retryAfterSeconds = options.retryAfterSeconds;
  }
}

export const errorBody = (error: AppError) => ({
  error: { code: error.code, message: error.message, next_steps: [...error.nextSteps] },
});

/**
 * SQLSTATEs that say "this cell may not write this key now": ownership, lease or epoch changed, or
 * the transaction lost against such a change. Resolving the route anew and repeating is the cure.
 */
const fencedStates = new Set(["CF001", "CF004", "CF006", "CF010", "40001", "40P01"]);

/** Refused by the database for a passing reason: locks, time limits, too many connections, shutdown. */
const passingStates = new Set(["55P03", "57014", "25P03", "53300", "57P01", "57P02", "57P03"]);

/** Any error a transaction may end with, as the answer to give. */
export function fromDatabaseError(error: unknown): AppError {
  if (error instanceof AppError) return error;
  const state = sqlState(error);
  if (state !== undefined && fencedStates.has(state)) {
    return new AppError(
      503,
      "KEY_NOT_ACTIVE",
      `the database refused the transaction: ${messageOf(error)} (${state})`,
      { retryAfterSeconds: 1, cause: error, nextSteps: ["repeat the request"] },
    );
  }
  if (state === undefined || passingStates.has(state) || state.startsWith("08")) {
    return new AppError(503, "DATABASE_UNAVAILABLE", "the database cannot be reached or is busy", {
      retryAfterSeconds: 1,
      cause: error,
      nextSteps: ["repeat the request"],
    });
  }
  return new AppError(500, "INTERNAL", `the database refused the statement (${state})`, {
    cause: error,
  });
}

/** The SQLSTATE of an error PostgreSQL itself sent; undefined for a lost or refused connection. */
export function sqlState(error: unknown): string | undefined {
  if (!(error instanceof Error) || !("code" in error) || !("severity" in error)) return undefined;
  return typeof error.code === "string" ? error.code : undefined;
}

export const messageOf = (error: unknown): string =>
  error instanceof Error ? error.message : String(error);
