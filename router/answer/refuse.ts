/**
 * The single rescue: a `CellError` becomes an answer here and nowhere else. Its code stands in a header
 * too, and so does who made the answer, so that nobody takes the router's words for an application's.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import { type CellError, errorBody, errorTable } from "../../contract/errors.ts";
import { headers as names, requestIdHeader } from "../../contract/headers.ts";
import { proxyStatus, proxyStatusHeader } from "./proxy-status.ts";

export const retryAfterSeconds = 1;
/** Of requests that broke HTTP nothing after them on the connection can be believed. */
const closingCodes: ReadonlySet<string> = new Set([
  "REQUEST_INVALID",
  "HEADERS_TOO_LARGE",
  "URL_TOO_LONG",
  "BODY_TOO_LARGE",
  "EXPECTATION_FAILED",
  "URL_TOO_LONG",
  "REQUEST_TIMEOUT",
]);

export type RefusalText = {
  readonly status: number;
  readonly headers: readonly string[];
  readonly body: string;
};

export function buildRefusal(error: CellError, routerId: string, requestId: string): RefusalText {
  const { httpStatus } = errorTable[error.code];
  const told = { ...errorBody(error).error, request_id: requestId };
  const body = `${JSON.stringify({ error: told })}\n`;
  return {
    status: httpStatus,
    headers: [
      ...["content-type", "application/json"],
      ...["content-length", String(Buffer.byteLength(body))],
      ...["cache-control", "no-store"],
      ...[names.error, error.code],
      ...[names.answeredBy, `router ${routerId}`],
      ...[proxyStatusHeader, proxyStatus(error, routerId)],
      ...[requestIdHeader, requestId],
      // RFC 6750 section 3: what kind of credential is asked for, and that this one is no good.
      ...(error.code === "TENANT_TOKEN_INVALID"
        ? ["www-authenticate", 'Bearer error="invalid_token"']
        : []),
      ...(httpStatus === 503 || httpStatus === 429 ? ["retry-after", retryAfterOf(error)] : []),
      ...(closingCodes.has(error.code) ? ["connection", "close"] : []),
    ],
    body,
  };
}

const retryAfterOf = ({ details }: CellError): string => {
  const { retryAfterSeconds: own } = details;
  return String(typeof own === "number" ? own : retryAfterSeconds);
};

/** Returns the status that went out, or 0 if there was nobody left to tell. */
export function refuse(
  client: { readonly req: IncomingMessage; readonly res: ServerResponse },
  error: CellError,
  routerId: string,
  requestId: string,
): number {
  const { req, res } = client;
  if (res.headersSent || res.destroyed) {
    res.destroy();
    return 0;
  }
  const refusal = buildRefusal(error, routerId, requestId);
  res.writeHead(refusal.status, [...refusal.headers]);
  res.end(req.method === "HEAD" ? undefined : refusal.body);
  return refusal.status;
}
