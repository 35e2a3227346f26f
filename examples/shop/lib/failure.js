/**
 * What the shop answers when it cannot do what was asked, and which errors of the database pass.
 *
 * This table of SQLSTATEs is all that the shop knows of cells, and it is text: without Cellfleet
 * the CF codes never come.
 */

export class Failure extends Error {
  constructor(status, code, message, { retryAfter, cause, nextSteps = [] } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
    this.nextSteps = nextSteps;
  }
}

export const invalid = (message) =>
  new Failure(400, "VALIDATION_FAILED", message, {
    nextSteps: ['send {"item": "…", "quantity": 1}'],
  });

/** "Not here, not now": the same work, sent again, finds its place. */
const movedStates = new Set(["CF001", "CF004", "CF006", "CF010", "40001", "40P01"]);
/** Locks, time limits, too many connections, a server that stops or starts. */
const passingStates = new Set(["55P03", "57014", "25P03", "53300", "57P01", "57P02", "57P03"]);

/** The SQLSTATE of an error PostgreSQL itself sent; undefined for a lost or refused connection. */
export const sqlState = (error) =>
  error instanceof Error && "severity" in error && typeof error.code === "string"
    ? error.code
    : undefined;

/** Should work in the background be put back, for whoever owns it now? */
export const isRequeue = (error) => movedStates.has(sqlState(error));

/** Any error as the answer to give. */
export function toFailure(error) {
  if (error instanceof Failure) return error;
  const state = sqlState(error);
  const retry = { retryAfter: 1, cause: error, nextSteps: ["repeat the request"] };
  if (movedStates.has(state)) {
    return new Failure(
      503,
      "NOT_HERE_NOW",
      `the database refused: ${error.message} (${state})`,
      retry,
    );
  }
  if (state === undefined && !(error instanceof Error && "code" in error)) {
    const lost = error instanceof Error && /connect|terminat|timeout/i.test(error.message);
    if (!lost) return new Failure(500, "INTERNAL", "a fault in the shop", { cause: error });
  }
  if (state === undefined || passingStates.has(state) || state.startsWith("08")) {
    return new Failure(503, "DATABASE_UNAVAILABLE", "the database cannot be reached", retry);
  }
  return new Failure(500, "INTERNAL", `the database refused the statement (${state})`, {
    cause: error,
  });
}
