/** One request of a customer through a router, and what of its answer the workloads read. */
import { type Dispatcher, request } from "undici";
import { z } from "zod";
import { cellEpochHeader, cellHeader, headers } from "../contract/headers.ts";
import { outcomeOf, outcomeOfTrouble } from "./outcome.ts";

export type Asking = {
  /** Origin of a router, asked for at every attempt: a restart may move it. */
  readonly router: () => Promise<string> | string;
  readonly dispatcher: Dispatcher;
  readonly timeoutMs: number;
};
export type Question = {
  readonly tenant: string;
  readonly method: "GET" | "POST" | "PUT";
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: unknown;
};

export type Answer = { readonly status: number; readonly text: string; readonly json: unknown } & {
  readonly header: (name: string) => string | undefined;
};
/** Who answered, and what; or why nobody said that it was done. */
export type Attempt<Result> =
  | {
      readonly outcome: "ok";
      readonly cell: string;
      readonly epoch: number;
      readonly result: Result;
    }
  | { readonly outcome: "fail" | "unknown"; readonly reason: string };

const refusalSchema = z.object({ error: z.object({ code: z.string() }) });

/** Asks once. An answer without cell, epoch or the expected form leaves the outcome open. */
export async function attempt<Result>(
  asking: Asking,
  question: Question,
  schema: z.ZodType<Result>,
): Promise<Attempt<Result>> {
  try {
    const answer = await ask(asking, question);
    const code =
      answer.header(headers.error) ?? refusalSchema.safeParse(answer.json).data?.error.code;
    const outcome = outcomeOf(answer.status, code);
    if (outcome !== "ok") return { outcome, reason: code ?? `status ${answer.status}` };
    const result = schema.safeParse(answer.json);
    const cell = answer.header(cellHeader);
    const epoch = Number(answer.header(cellEpochHeader));
    if (!result.success || cell === undefined || !Number.isSafeInteger(epoch) || epoch < 1) {
      return { outcome: "unknown", reason: `${answer.status} without result, cell or epoch` };
    }
    return { outcome: "ok", cell, epoch, result: result.data };
  } catch (error) {
    return {
      outcome: outcomeOfTrouble(error) === "fail" ? "fail" : "unknown",
      reason: String(error),
    };
  }
}

export async function ask(asking: Asking, question: Question): Promise<Answer> {
  const { tenant, method, path, body } = question;
  const answer = await request(`${await asking.router()}${path}`, {
    method,
    dispatcher: asking.dispatcher,
    headersTimeout: asking.timeoutMs,
    bodyTimeout: asking.timeoutMs,
    headers: {
      ...(body === undefined ? {} : { "content-type": "application/json" }),
      ...question.headers,
      "x-tenant-id": tenant,
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const text = await answer.body.text();
  return {
    status: answer.statusCode,
    text,
    json: parseJson(text),
    header: (name: string): string | undefined => {
      const value = answer.headers[name];
      return Array.isArray(value) ? value[0] : value;
    },
  };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // Not JSON: the schemas refuse it, and the status is what counts.
  }
}
