/**
 * JSON over HTTP with undici: a deadline, a schema for the answer, and errors as `CellError`.
 *
 * An answer of the house that carries an error body comes back as `CellError` with the same code; a
 * peer that cannot be reached, or answers something else, becomes the code the caller names.
 */
import { Agent, request } from "undici";
import type { z } from "zod";
import { CellError, type ErrorCode, errorBodySchema, isErrorCode } from "../contract/errors.ts";

export type JsonClient = {
  readonly call: <T>(options: {
    readonly method: "GET" | "POST" | "PUT" | "DELETE";
    readonly path: string;
    readonly body?: unknown;
    readonly headers?: Readonly<Record<string, string>>;
    readonly schema: z.ZodType<T>;
    readonly timeoutMs: number;
    readonly signal?: AbortSignal;
  }) => Promise<T>;
  readonly close: () => Promise<void>;
};

const bodyBytesMax = 64 * 1024 * 1024;

export function createJsonClient(options: {
  /** `http://127.0.0.1:8090`, without a path. */
  readonly origin: string;
  /** Bearer token. */
  readonly token?: string;
  /** The code when the peer does not answer, or not in its language. */
  readonly unreachable: ErrorCode;
}): JsonClient {
  const agent = new Agent({ connections: 16, connectTimeout: 2000, allowH2: false });

  return {
    call: async ({ method, path, body, headers, schema, timeoutMs, signal }) => {
      const deadline = AbortSignal.timeout(timeoutMs);
      try {
        const response = await request(`${options.origin}${path}`, {
          method,
          dispatcher: agent,
          headersTimeout: timeoutMs,
          bodyTimeout: timeoutMs,
          signal: signal === undefined ? deadline : AbortSignal.any([signal, deadline]),
          headers: {
            accept: "application/json",
            ...(body === undefined ? {} : { "content-type": "application/json" }),
            ...(options.token === undefined ? {} : { authorization: `Bearer ${options.token}` }),
            ...headers,
          },
          ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        });
        const text = await readText(response.body);
        return readAnswer(response.statusCode, text, schema, options.unreachable);
      } catch (error) {
        if (error instanceof CellError) throw error;
        throw new CellError(
          options.unreachable,
          `${method} ${path} at ${options.origin} got no answer`,
          {
            cause: error,
          },
        );
      }
    },
    close: () => agent.destroy(),
  };
}

async function readText(body: AsyncIterable<Buffer>): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of body) {
    bytes += chunk.length;
    if (bytes > bodyBytesMax) throw new Error(`answer is larger than ${bodyBytesMax} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

function readAnswer<T>(
  status: number,
  text: string,
  schema: z.ZodType<T>,
  unreachable: ErrorCode,
): T {
  const json = parseJson(text);
  if (status >= 200 && status < 300) {
    const parsed = schema.safeParse(json);
    if (parsed.success) return parsed.data;
    throw new CellError(unreachable, `answer ${status} does not fit the contract`, {
      cause: parsed.error,
    });
  }
  const refusal = errorBodySchema.safeParse(json);
  if (!refusal.success) {
    throw new CellError(unreachable, `answer ${status} without an error body`);
  }
  const { code, message, next_steps, details } = refusal.data.error;
  throw new CellError(isErrorCode(code) ? code : "INTERNAL", message, {
    nextSteps: next_steps,
    ...(details === undefined ? {} : { details }),
  });
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // Not JSON: the schema or the error branch says so with the status.
  }
}
