/** One streamed request to the control API: the body is read as fast as the other side takes it. */
import type { Readable } from "node:stream";
import { Agent, request } from "undici";
import type { z } from "zod";
import { CellError, errorBodySchema, isErrorCode } from "../contract/errors.ts";
import type { Fleet } from "./fleet.ts";

/** Between two chunks, or after the last: a million lines are checked and placed before the answer. */
const silenceMaxMs = 600_000;

export async function upload<T>(options: {
  readonly fleet: Fleet;
  readonly path: string;
  readonly query: Readonly<Record<string, string>>;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Readable;
  readonly schema: z.ZodType<T>;
  readonly signal: AbortSignal;
}): Promise<T> {
  const { fleet } = options;
  const agent = new Agent({ connectTimeout: 2000, allowH2: false });
  try {
    const { statusCode, body } = await request(
      `${fleet.origin}${options.path}?${new URLSearchParams(options.query)}`,
      {
        method: "POST",
        dispatcher: agent,
        headersTimeout: silenceMaxMs,
        bodyTimeout: silenceMaxMs,
        signal: options.signal,
        headers: {
          accept: "application/json",
          authorization: `Bearer ${fleet.token}`,
          ...options.headers,
        },
        body: options.body,
      },
    );
    return readAnswer(statusCode, await body.text(), options.schema);
  } catch (error) {
    if (error instanceof CellError) throw error;
    throw new CellError("CONTROL_PLANE_UNREACHABLE", `${fleet.origin} gave no answer`, {
      cause: error,
    });
  } finally {
    await agent.destroy();
  }
}

function readAnswer<T>(status: number, text: string, schema: z.ZodType<T>): T {
  const json = parseJson(text);
  if (status >= 200 && status < 300) {
    const parsed = schema.safeParse(json);
    if (parsed.success) return parsed.data;
    throw new CellError("CONTROL_PLANE_UNREACHABLE", `answer ${status} does not fit the contract`);
  }
  const refusal = errorBodySchema.safeParse(json);
  if (!refusal.success) {
    throw new CellError("CONTROL_PLANE_UNREACHABLE", `answer ${status} without an error body`);
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
    return undefined; // Not JSON: the status says what to make of it.
  }
}
