/**
 * The gate's own answers: the error body of the house, the code in a header, and, only where the
 * application has not seen a byte, the request's nonce, which lets a router send it again
 * (corrections A11). The application cannot make such an answer: its `x-cellfleet-*` headers are removed.
 */
import type { ServerResponse } from "node:http";
import { type CellError, errorBody, errorTable } from "../../contract/errors.ts";
import { headers } from "../../contract/headers.ts";

export const answeredByCell = "cell";
const retryAfterSeconds = "1";

export type GateAnswer = {
  readonly status: number;
  readonly headers: readonly string[];
  readonly body: string;
};

/** `notAdmitted`: the nonce of a request of which the application has seen nothing. */
export function buildAnswer(error: CellError, notAdmitted: string | undefined): GateAnswer {
  const { httpStatus } = errorTable[error.code];
  const body = `${JSON.stringify(errorBody(error))}\n`;
  return {
    status: httpStatus,
    headers: [
      "content-type",
      "application/json",
      "content-length",
      String(Buffer.byteLength(body)),
      "cache-control",
      "no-store",
      headers.error,
      error.code,
      headers.answeredBy,
      answeredByCell,
      ...(notAdmitted === undefined ? [] : [headers.notAdmitted, notAdmitted]),
      ...(httpStatus === 503 ? ["retry-after", retryAfterSeconds] : []),
    ],
    body,
  };
}

export function sendAnswer(res: ServerResponse, answer: GateAnswer): void {
  if (res.headersSent || res.destroyed) return;
  res.writeHead(answer.status, [...answer.headers]);
  res.end(answer.body);
}
