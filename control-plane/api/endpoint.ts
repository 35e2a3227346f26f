/**
 * How an endpoint is declared: method, path, least role, schemas, and what it does. The same
 * declaration serves requests and describes them in OpenAPI, so the two cannot differ.
 */
import type { RouteConfig } from "@hono/zod-openapi";
import { z } from "zod";
import type { Role } from "../../contract/control-api.ts";
import { CellError, errorBodySchema } from "../../contract/errors.ts";
import type { Caller } from "./auth.ts";
import { hostileText, onOneLine, readJsonBody } from "./json-body.ts";

export type Answer = {
  readonly status: 200 | 201 | 202;
  readonly body: unknown;
  readonly headers?: Readonly<Record<string, string>>;
};

/** A request after authentication, before its parts are parsed. */
export type Incoming = {
  readonly caller: Caller;
  readonly request: Request;
  readonly params: Readonly<Record<string, string>>;
  readonly requestId: string;
};

export type Endpoint = {
  readonly method: "get" | "post" | "put" | "delete";
  /** OpenAPI form: `/v1/cells/{id}`. */
  readonly path: string;
  readonly role: Role;
  /** A machine role that may use it too: machine roles are on no ladder. */
  readonly alsoFor?: Role;
  readonly openapi: RouteConfig;
  /** Refusals of this endpoint are audited under this action; absent for reads. */
  readonly audit?: { readonly action: string; readonly object: (incoming: Incoming) => string };
  /** False: a mutation that takes long and bounds itself does not wait in line with the others. */
  readonly queues?: boolean;
  readonly serve: (incoming: Incoming) => Promise<Answer | Response>;
};

type Shape = z.ZodRawShape;
type Parsed<S extends Shape> = z.output<z.ZodObject<S>>;

export type Asked<P extends Shape, Q extends Shape, B extends z.ZodType> = Incoming & {
  readonly path: Parsed<P>;
  readonly query: Parsed<Q>;
  readonly body: z.output<B>;
};

/** Shape members of path and query are texts on the wire: use `z.coerce` for numbers. */
export type EndpointSpec<P extends Shape, Q extends Shape, B extends z.ZodType> = {
  readonly method: Endpoint["method"];
  readonly path: string;
  readonly role: Role;
  readonly alsoFor?: Role;
  readonly tag: string;
  readonly summary: string;
  readonly params?: P;
  readonly query?: Q;
  readonly body?: B;
  /** Of the JSON body, where a megabyte is not enough. */
  readonly bodyBytesMax?: number;
  /** Members of the body that may be written on several lines. */
  readonly lines?: readonly string[];
  /** The body holds what strangers wrote (rows of tenants): `serve` sees to what is kept of it. */
  readonly verbatim?: boolean;
  /** True: `serve` reads `request.body` itself, as a stream. */
  readonly streams?: boolean;
  readonly headers?: z.ZodObject;
  readonly answers: Readonly<Record<number, z.ZodType>>;
  readonly audit?: Endpoint["audit"];
  readonly queues?: boolean;
  readonly serve: (asked: Asked<P, Q, B>) => Promise<Answer | Response>;
};

const nothing = z.undefined();

export function endpoint<
  P extends Shape = Record<never, never>,
  Q extends Shape = Record<never, never>,
  B extends z.ZodType = typeof nothing,
>(spec: EndpointSpec<P, Q, B>): Endpoint {
  const params = z.strictObject(spec.params ?? {});
  const query = z.strictObject(spec.query ?? {});
  return {
    method: spec.method,
    path: spec.path,
    role: spec.role,
    ...(spec.alsoFor === undefined ? {} : { alsoFor: spec.alsoFor }),
    openapi: describe(spec),
    ...(spec.audit === undefined ? {} : { audit: spec.audit }),
    ...(spec.queues === undefined ? {} : { queues: spec.queues }),
    serve: async (incoming) => {
      const path = parse(params, incoming.params, "path");
      const asked = parse(query, queryOf(incoming.request), "query");
      const raw =
        spec.body === undefined
          ? undefined
          : await readJsonBody(incoming.request, spec.bodyBytesMax);
      const body = checkedBody(spec, raw);
      return spec.serve({
        ...incoming,
        // The generic object has exactly the shape's members; zod's output type does not reduce for an open P.
        path: path as Parsed<P>,
        query: asked as Parsed<Q>,
        body: body as z.output<B>,
      });
    },
  };
}

function checkedBody(
  spec: {
    readonly body?: z.ZodType;
    readonly lines?: readonly string[];
    readonly verbatim?: boolean;
  },
  raw: unknown,
): unknown {
  const schema = spec.body ?? nothing;
  if (spec.verbatim === true) return readAs(schema, raw, "body");
  refuseHostile(flattened(raw, spec.lines ?? []), "body");
  return readAs(schema, raw, "body");
}

function flattened(raw: unknown, lines: readonly string[]): unknown {
  if (lines.length === 0 || typeof raw !== "object" || raw === null) return raw;
  const flat = Object.entries(raw).map(([name, value]: [string, unknown]) => [
    name,
    lines.includes(name) && typeof value === "string" ? onOneLine(value) : value,
  ]);
  return Object.fromEntries(flat);
}

/** Throws VALIDATION_FAILED, listing every problem as `path: message`. */
export function parse<T extends z.ZodType>(schema: T, raw: unknown, part: string): z.output<T> {
  refuseHostile(raw, part);
  return readAs(schema, raw, part);
}

function refuseHostile(raw: unknown, part: string): void {
  const bad = hostileText(raw, part);
  if (bad !== undefined) throw new CellError("VALIDATION_FAILED", bad, { details: { part } });
}

function readAs<T extends z.ZodType>(schema: T, raw: unknown, part: string): z.output<T> {
  const result = schema.safeParse(raw);
  if (result.success) return result.data;
  const problems = result.error.issues.map((issue) => {
    const at = issue.path.join(".");
    return `${at === "" ? part : at}: ${issue.message}`;
  });
  const shown = problems.slice(0, problemsShownMax);
  throw new CellError("VALIDATION_FAILED", shown.join("; "), {
    details: { part, problems: shown, problemsTotal: problems.length },
  });
}

const problemsShownMax = 20;

function queryOf(request: Request): Record<string, string | string[]> {
  const all = new URL(request.url).searchParams;
  // A null prototype: a parameter may be called `__proto__`.
  const query: Record<string, string | string[]> = Object.create(null);
  for (const name of new Set(all.keys())) {
    const values = all.getAll(name);
    query[name] = values.length === 1 ? (values[0] ?? "") : values;
  }
  return query;
}

function describe<P extends Shape, Q extends Shape, B extends z.ZodType>(
  spec: EndpointSpec<P, Q, B>,
): RouteConfig {
  const answers = Object.entries(spec.answers).map(([status, schema]) => [
    status,
    { description: answerTexts[status] ?? "Answer", content: { "application/json": { schema } } },
  ]);
  return {
    method: spec.method,
    path: spec.path,
    summary: spec.summary,
    tags: [spec.tag],
    description: `Role: ${spec.role}${spec.alsoFor === undefined ? "" : ` or ${spec.alsoFor}`}.`,
    security: [{ bearer: [] }],
    request: {
      ...(spec.params === undefined ? {} : { params: z.strictObject(spec.params) }),
      ...(spec.query === undefined ? {} : { query: z.strictObject(spec.query) }),
      ...(spec.headers === undefined ? {} : { headers: spec.headers }),
      ...(spec.body === undefined
        ? {}
        : { body: { content: { "application/json": { schema: spec.body } }, required: true } }),
    },
    responses: {
      ...Object.fromEntries(answers),
      default: {
        description: "Refusal or fault",
        content: { "application/json": { schema: errorBodySchema } },
      },
    },
  };
}

const answerTexts: Readonly<Record<string, string>> = {
  200: "Done, or the plan of a dry run",
  201: "Created",
  202: "Recorded; watch the operation",
};
