/**
 * The control API as the CLI asks it: typed by the contract, with a deadline on every call, and with
 * an answer to "what now" when nobody, or somebody else, answers at the address.
 */
import { z } from "zod";
import { idempotencyHeader } from "../contract/control-api.ts";
import { CellError } from "../contract/errors.ts";
import { createJsonClient, type JsonClient } from "../runtime/http-client.ts";
import type { Fleet } from "./fleet.ts";
import type { Page } from "./render/output.ts";
import { supervisorListens } from "./supervisor-door.ts";

/** Waits of the API itself are shorter: a call that takes longer has lost its peer. */
const callTimeoutMs = 15_000;
const pageSize = 1000;

export type Query = Readonly<Record<string, string | number | undefined>>;

export type Api = {
  readonly fleet: Fleet;
  readonly get: <T>(path: string, schema: z.ZodType<T>, options?: GetOptions) => Promise<T>;
  readonly send: <T>(
    method: "POST" | "PUT" | "DELETE",
    path: string,
    options: {
      readonly body?: unknown;
      readonly schema: z.ZodType<T>;
      readonly idempotencyKey: string;
    },
  ) => Promise<T>;
  /** All pages of a list, or as many rows as `limit`. */
  readonly pages: <T>(
    path: string,
    item: z.ZodType<T>,
    options?: { readonly query?: Query; readonly limit?: number | undefined },
  ) => AsyncGenerator<Page<T>>;
  readonly close: () => Promise<void>;
};

export type GetOptions = {
  readonly query?: Query;
  /** The API may hold the answer back this long. */
  readonly waitMs?: number;
  /** The answer takes long to make: wait this much longer than usual. */
  readonly patienceMs?: number;
  readonly signal?: AbortSignal;
};

export function createApi(fleet: Fleet, signal: AbortSignal): Api {
  const client = createJsonClient({
    origin: fleet.origin,
    token: fleet.token,
    unreachable: "CONTROL_PLANE_UNREACHABLE",
  });
  const call = (options: Parameters<JsonClient["call"]>[0]) => client.call(options);

  async function ask<T>(options: Parameters<JsonClient["call"]>[0] & { schema: z.ZodType<T> }) {
    try {
      return (await call(options)) as T;
    } catch (error) {
      throw await explainSilence(error, fleet);
    }
  }

  async function get<T>(path: string, schema: z.ZodType<T>, options: GetOptions = {}): Promise<T> {
    const waitMs = options.waitMs ?? 0;
    const query = { ...options.query, ...(waitMs > 0 ? { waitMs } : {}) };
    return ask({
      method: "GET",
      path: withQuery(path, query),
      schema,
      timeoutMs: callTimeoutMs + waitMs + (options.patienceMs ?? 0),
      signal: options.signal === undefined ? signal : AbortSignal.any([signal, options.signal]),
    });
  }

  return {
    fleet,
    get,
    send: (method, path, { body, schema, idempotencyKey }) =>
      ask({
        method,
        path,
        body: body ?? {},
        schema,
        headers: { [idempotencyHeader]: idempotencyKey },
        timeoutMs: callTimeoutMs,
        signal,
      }),
    pages: async function* (path, item, options = {}) {
      const schema = z.object({ items: z.array(item), next: z.string().nullable() });
      let left = options.limit ?? Number.POSITIVE_INFINITY;
      let cursor: string | undefined;
      do {
        const limit = Math.min(pageSize, left);
        const page = await get(path, schema, { query: { ...options.query, limit, cursor } });
        left -= page.items.length;
        cursor = page.next ?? undefined;
        // A list that was cut short keeps its cursor; one that was read to its end has none.
        yield { items: page.items, next: page.next };
      } while (cursor !== undefined && left > 0);
    },
    close: client.close,
  };
}

function withQuery(path: string, query: Query): string {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined) parameters.set(name, String(value));
  }
  return parameters.size === 0 ? path : `${path}?${parameters}`;
}

/** Nobody there, or somebody who does not speak the contract: different next steps. */
async function explainSilence(error: unknown, fleet: Fleet): Promise<unknown> {
  if (!(error instanceof CellError) || error.code !== "CONTROL_PLANE_UNREACHABLE") return error;
  // The client gives the network's error as the cause; a foreign answer has none, or a schema's.
  const foreign = error.cause === undefined || error.cause instanceof z.ZodError;
  const unreachable = (message: string, nextSteps: readonly string[]) =>
    new CellError("CONTROL_PLANE_UNREACHABLE", message, {
      cause: error.cause,
      details: { address: fleet.origin, from: fleet.from },
      nextSteps,
    });
  const folder = fleet.local?.folder;
  const isSupervised = folder !== undefined && (await supervisorListens(folder));
  if (foreign) {
    const reason = `not as a control plane of this release (${error.message})`;
    return unreachable(`${fleet.origin} answers, but ${reason}`, waysOut(fleet, isSupervised));
  }
  const silence = `the control plane at ${fleet.origin} does not answer (${networkReason(error.cause)})`;
  if (folder !== undefined && !isSupervised) {
    return unreachable(`no fleet runs in ${folder}: ${silence}`, [`cellctl dev --data ${folder}`]);
  }
  const meanwhile = "routers and cells do not need it to serve, and a router answers meanwhile";
  return unreachable(`${silence}; ${meanwhile}`, [
    ...waysOut(fleet, isSupervised),
    ...withoutIt(fleet),
  ]);
}

/** Of a fleet that runs here nothing is named that could end in stopping it. */
function waysOut({ local }: Fleet, isSupervised: boolean): string[] {
  if (local === undefined) {
    return ["cellctl context current       (where the address comes from)", "cellctl check"];
  }
  const { folder } = local;
  return isSupervised
    ? [`cellctl dev start control-plane --data ${folder}`, `cellctl dev ps --data ${folder}`]
    : [`cellctl dev --data ${folder}`];
}

/** What a router's admin port tells by itself. */
function withoutIt({ local }: Fleet): string[] {
  const admin = `--router-admin ${local?.endpoints.routerAdmin ?? "URL"}`;
  return [`cellctl top ${admin}`, `cellctl explain request ID ${admin}`];
}

function networkReason(cause: unknown): string {
  if (!(cause instanceof Error)) return "no answer";
  if (cause.name === "TimeoutError") return "no answer in time";
  if ("code" in cause && typeof cause.code === "string") return cause.code;
  return cause.message === "" ? cause.name : cause.message;
}

/** A path of the API with an id in it: what a person typed cannot climb out of its segment. */
export function apiPath(parts: TemplateStringsArray, ...ids: readonly string[]): string {
  return parts.map((part, index) => part + encodeURIComponent(ids[index] ?? "")).join("");
}
