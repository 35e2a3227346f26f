/**
 * The one place where an error becomes an answer. What is not a `CellError` is a fault of ours: it is
 * logged with its cause and answered as INTERNAL without a word about the inside.
 */
import { CellError, type ErrorBody, errorBody, errorTable } from "../../contract/errors.ts";
import { headers } from "../../contract/headers.ts";
import { sqlStateOf } from "../store/database.ts";

const retryAfterSeconds = "1";

export function rescue(error: unknown, requestId: string): Response {
  const known = error instanceof CellError ? error : translate(error, requestId);
  const body: ErrorBody = errorBody(known);
  const { httpStatus } = errorTable[known.code];
  const response = Response.json(body, { status: httpStatus });
  response.headers.set(headers.error, known.code);
  response.headers.set(headers.answeredBy, "control-plane");
  if (httpStatus === 503) response.headers.set("retry-after", retryAfterSeconds);
  if (httpStatus === 401) response.headers.set("www-authenticate", 'Bearer realm="cellfleet"');
  return response;
}

/** Only where no connection was made is it certain that nothing was done. */
function translate(error: unknown, requestId: string): CellError {
  if (neverConnected(error)) {
    return new CellError(
      "CONTROL_PLANE_UNREACHABLE",
      "The control plane's database does not answer.",
      {
        cause: error,
        nextSteps: ["Routers and cells do not need it to serve. Repeat the request in a moment."],
      },
    );
  }
  return new CellError("INTERNAL", "A fault in the control plane; its log has the request id.", {
    cause: error,
    details: { requestId },
    nextSteps: [`Look for ${requestId} in the control plane's log.`],
  });
}

const connectFailures: ReadonlySet<string> = new Set(["ECONNREFUSED", "ENOENT", "57P03", "53300"]);

function neverConnected(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  if (connectFailures.has(sqlStateOf(error) ?? "")) return true;
  if ("code" in error && typeof error.code === "string" && connectFailures.has(error.code)) {
    return true;
  }
  return (
    error.message.includes("timeout exceeded when trying to connect") || neverConnected(error.cause)
  );
}
