/**
 * The control API, assembled: authentication, role, endpoint, rescue, one log line per request.
 * Unauthenticated are `/livez`, `/readyz`, `/openapi.json` and `/docs` only.
 */
import { OpenAPIHono } from "@hono/zod-openapi";
import type { Context } from "hono";
import { CellError } from "../contract/errors.ts";
import { requestIdHeader } from "../contract/headers.ts";
import { release } from "../contract/release.ts";
import { errorFields } from "../runtime/log.ts";
import { durationBuckets } from "../runtime/metrics.ts";
import { authenticate, requireRole } from "./api/auth.ts";
import type { ApiContext } from "./api/context.ts";
import { docsPage } from "./api/docs-page.ts";
import type { Answer, Endpoint, Incoming } from "./api/endpoint.ts";
import { auditRefusal } from "./api/mutation.ts";
import { rescue } from "./api/rescue.ts";
import { answerWithHosts, errorWithHosts } from "./api/show-hosts.ts";
import { createTurnstile, type Turnstile } from "./api/turnstile.ts";

const lanes = 4;
const queueMax = 2000;
const waitMsMax = 20_000;

export type ControlApp = { readonly fetch: (request: Request) => Response | Promise<Response> };

export function createApp(context: ApiContext, endpoints: readonly Endpoint[]): ControlApp {
  const app = new OpenAPIHono();
  const turnstile = createTurnstile({ clock: context.clock, lanes, queueMax, waitMsMax });
  const serve = createServe(context, turnstile);

  app.openAPIRegistry.registerComponent("securitySchemes", "bearer", {
    type: "http",
    scheme: "bearer",
  });
  for (const one of endpoints) {
    app.openAPIRegistry.registerPath(one.openapi);
    app.on(one.method, one.path.replace(/\{(\w+)\}/g, ":$1"), (c) => serve(c, one));
  }
  const document = () =>
    app.getOpenAPI31Document({
      openapi: "3.1.0",
      info: { title: "Cellfleet control API", version: release },
    });
  app.get("/livez", (c) => c.text("ok"));
  app.get("/openapi.json", (c) => c.json(document()));
  app.get("/docs", (c) => {
    c.header("content-security-policy", "default-src 'none'; style-src 'unsafe-inline'");
    return c.html(docsPage(document()));
  });
  app.notFound((c) => refuseUnknown(c, endpoints));
  app.onError((error) => rescue(error, context.random.uuid()));
  return { fetch: (request) => app.fetch(request) };
}

/** A known address with another method, or nothing at all. */
function refuseUnknown(c: Context, endpoints: readonly Endpoint[]): Response {
  const path = new URL(c.req.url).pathname;
  const here = endpoints.filter(({ path: template }) => matches(template, path));
  const error =
    here.length > 0
      ? new CellError("METHOD_NOT_ALLOWED", `${c.req.method} is not served here.`, {
          details: { allow: [...new Set(here.map(({ method }) => method.toUpperCase()))] },
        })
      : new CellError("NOT_FOUND", "There is nothing at this address.", {
          nextSteps: ["GET /docs lists every address."],
        });
  return rescue(error, "");
}

function matches(template: string, path: string): boolean {
  const parts = template.split("/");
  const given = path.split("/");
  return (
    parts.length === given.length &&
    parts.every((part, index) => part.startsWith("{") || part === given[index])
  );
}

type Serve = (c: Context, one: Endpoint) => Promise<Response>;

function createServe(context: ApiContext, turnstile: Turnstile): Serve {
  const requests = context.metrics.counter(
    "cellfleet_control_plane_api_requests_total",
    "Requests to the control API, by answer.",
  );
  const seconds = context.metrics.histogram(
    "cellfleet_control_plane_api_request_duration_seconds",
    "Time to answer a request to the control API, long polls included.",
    durationBuckets,
  );
  context.metrics.gaugeFrom(
    "cellfleet_control_plane_api_mutations_waiting",
    "Mutations that wait for their turn.",
    () => turnstile.waiting(),
  );

  return async (c, one) => {
    const startedMs = context.clock.monotonicMs();
    const requestId = requestIdOf(c, context);
    let caller = "";
    let response: Response;
    try {
      const incoming = await admit(context, c, one, requestId, (name) => {
        caller = name;
      });
      const answer =
        one.audit === undefined || one.queues === false
          ? await one.serve(incoming)
          : await turnstile.pass(() => one.serve(incoming));
      response =
        answer instanceof Response
          ? answer
          : toResponse(await answerWithHosts(context.database, one, answer));
    } catch (error) {
      const told = await errorWithHosts(context.database, error, one, c.req.param());
      response = rescue(told, requestId);
      if (response.status === 500 || response.status === 503) {
        const { method, path } = c.req;
        const fields = { method, path, requestId, ...errorFields(error) };
        context.log.event("request.failed", { error: "", ...fields }, "error");
      }
    }
    response.headers.set(requestIdHeader, requestId);
    const ms = context.clock.monotonicMs() - startedMs;
    const code = response.headers.get("x-cellfleet-error") ?? "";
    requests.inc({ method: one.method, path: one.path, status: String(response.status) });
    seconds.observe(ms / 1000, { path: one.path });
    const line = { method: c.req.method, path: c.req.path, status: response.status };
    context.log.event(
      "request.done",
      { ...line, ms: Math.round(ms), requestId, caller, code },
      "debug",
    );
    return response;
  };
}

/** Who asks, and may they; a mutation refused for its role is an audit entry. */
async function admit(
  context: ApiContext,
  c: Context,
  one: Endpoint,
  requestId: string,
  onCaller: (name: string) => void,
): Promise<Incoming> {
  const authorization = c.req.header("authorization") ?? null;
  const caller = await authenticate(context.database, authorization, context.clock.nowMs());
  onCaller(caller.tokenId);
  const incoming: Incoming = { caller, request: c.req.raw, params: c.req.param(), requestId };
  try {
    if (caller.role !== one.alsoFor) requireRole(caller, one.role);
  } catch (error) {
    if (error instanceof CellError && one.audit !== undefined) {
      const what = { action: one.audit.action, object: one.audit.object(incoming), caller };
      await auditRefusal(context, what, error, { reason: "", after: null });
    }
    throw error;
  }
  return incoming;
}

function requestIdOf(c: Context, context: ApiContext): string {
  const given = c.req.header(requestIdHeader) ?? "";
  return /^[\x21-\x7e]{1,128}$/.test(given) ? given : context.random.uuid();
}

function toResponse(answer: Answer): Response {
  const response = Response.json(answer.body, { status: answer.status });
  for (const [name, value] of Object.entries(answer.headers ?? {})) {
    response.headers.set(name, value);
  }
  return response;
}
