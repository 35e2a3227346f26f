/**
 * Bytes that are no request, answered without harm to the answer before them, once per connection.
 */
import type { ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import { CellError, type ErrorCode } from "../../contract/errors.ts";
import { errorCode } from "../../runtime/http/error-code.ts";
import { buildRefusal } from "../answer/refuse.ts";
import type { ListenLimits } from "./limits.ts";

export type BadInputOptions = {
  readonly routerId: string;
  readonly limits: Pick<ListenLimits, "headerBytesMax" | "headersMs">;
  /** By code. */
  readonly onBadInput: (code: ErrorCode) => void;
  /** The answer to a request that is answered and whose body still comes. */
  readonly answeredEarly: (socket: Duplex) => ServerResponse | undefined;
  /** The newest answer that is still owed to a request that came whole. */
  readonly lastWhole: (socket: Duplex) => ServerResponse | undefined;
};

export function onClientError(error: Error, socket: Duplex, options: BadInputOptions): void {
  const problem = problemOf(error, options.limits);
  if (!socket.writable || errorCode(error) === "ECONNRESET") {
    socket.destroy();
    return;
  }
  const early = options.answeredEarly(socket);
  if (early !== undefined) {
    // One request, one answer: the bad bytes are of a body that nobody waited for.
    options.onBadInput(problem.code);
    endAfter(early, socket);
    return;
  }
  const pending = pendingAnswer(socket);
  const lastWhole = options.lastWhole(socket);
  if (pending !== undefined && lastWhole !== undefined && lastWhole !== pending) {
    // Whole requests came one behind the other: all of them are answered before the connection ends.
    options.onBadInput(problem.code);
    endAfter(lastWhole, socket);
    return;
  }
  if (pending !== undefined && (pending.headersSent || pending.req.complete)) {
    options.onBadInput(problem.code);
    endAfter(pending, socket);
    return;
  }
  options.onBadInput(problem.code);
  endWith(socket, problem, options.routerId);
}

/**
 * The connection ends after the answer that is on its way; an answer whose own request is broken and
 * that still streams is cut, so that it does not look whole.
 */
function endAfter(pending: ServerResponse, socket: Duplex): void {
  pending.shouldKeepAlive = false;
  if (pending.writableFinished) socket.end();
  else if (pending.req.complete || pending.writableEnded) {
    pending.once("finish", () => socket.end());
  } else socket.destroy();
}

function problemOf(error: Error, limits: BadInputOptions["limits"]): CellError {
  const { headerBytesMax, headersMs } = limits;
  switch (errorCode(error)) {
    case "ERR_HTTP_REQUEST_TIMEOUT":
      return new CellError("REQUEST_TIMEOUT", `No whole request head came within ${headersMs} ms.`);
    case "HPE_HEADER_OVERFLOW":
      return isLongLine(error, headerBytesMax)
        ? new CellError("URL_TOO_LONG", "The request target is longer than the limit.")
        : new CellError("HEADERS_TOO_LARGE", "The header section is larger than the limit.");
    default:
      return new CellError("REQUEST_INVALID", "The request breaks the rules of HTTP.");
  }
}

/** The packet that was too much is told with the error: a request line without an end in it. */
function isLongLine(error: Error, headerBytesMax: number): boolean {
  const packet: unknown = Reflect.get(error, "rawPacket");
  if (!Buffer.isBuffer(packet) || !/^[A-Z]+ \S/.test(packet.toString("latin1", 0, 64)))
    return false;
  const end = packet.indexOf("\n");
  return end === -1 || end >= headerBytesMax;
}

/** What is being answered on this connection of HTTP/1, if anything. */
export function pendingAnswer(socket: Duplex): ServerResponse | undefined {
  const pending: unknown = Reflect.get(socket, "_httpMessage");
  return isAnswer(pending) ? pending : undefined;
}

const isAnswer = (value: unknown): value is ServerResponse =>
  typeof value === "object" && value !== null && "req" in value && "finished" in value;

/** An answer where there is no response object to write it to. */
export function endWith(
  socket: Duplex,
  error: CellError,
  routerId: string,
  requestId: string = "",
): void {
  const { status, headers, body } = buildRefusal(error, routerId, requestId);
  const lines = [`HTTP/1.1 ${status} ${error.code}`];
  for (let at = 0; at + 1 < headers.length; at += 2) {
    if (headers[at] !== "connection") lines.push(`${headers[at]}: ${headers[at + 1]}`);
  }
  socket.on("error", () => socket.destroy());
  socket.end(`${lines.join("\r\n")}\r\nconnection: close\r\n\r\n${body}`, "latin1");
}
