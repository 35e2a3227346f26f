/** A little of what a web framework does: routes, JSON, limits, errors, an orderly end. */
import { createServer } from "node:http";
import { Failure, toFailure } from "./failure.js";

const bodyBytesMax = 64 * 1024;
const stopMs = 5000;

/**
 * `routes`: `{"GET /orders/:id": handler}`; a handler gets `{tenant, headers, query, params, body}`
 * and returns `{status?, headers?, json}` or `{text}`.
 */
export function serve({ routes, port, onClose }) {
  const table = Object.entries(routes).map(([line, handler]) => {
    const [method, path] = line.split(" ");
    return { method, parts: path.split("/"), handler };
  });
  const server = createServer((request, response) => {
    answer(table, request)
      .catch((error) => {
        const failure = toFailure(error);
        if (failure.status === 500) process.stderr.write(`${error.stack}\n`);
        return refusal(failure);
      })
      .then((reply) => send(response, reply))
      .catch(() => response.destroy());
  });
  // Kept open longer than a proxy keeps an idle connection, so that it never meets a closed one.
  server.keepAliveTimeout = 75_000;
  server.listen(port, process.env.HOST ?? "127.0.0.1", () => {
    process.stdout.write(`listening on ${server.address().port}\n`);
  });
  const stop = () => {
    setTimeout(() => process.exit(1), stopMs).unref();
    server.close(() => void onClose().then(() => process.exit(0)));
    server.closeIdleConnections();
  };
  process.once("SIGTERM", stop);
  process.once("SIGINT", stop);
}

async function answer(table, request) {
  const url = new URL(request.url, "http://shop");
  const parts = url.pathname.split("/");
  const route = table.find((one) => one.method === request.method && fits(one.parts, parts));
  if (route === undefined) throw new Failure(404, "NOT_FOUND", "there is nothing at this address");
  const params = Object.fromEntries(
    route.parts.flatMap((part, at) => (part.startsWith(":") ? [[part.slice(1), parts[at]]] : [])),
  );
  const body = request.method === "POST" ? await readBody(request) : "";
  return route.handler({
    headers: request.headers,
    query: url.searchParams,
    params,
    body,
    get tenant() {
      return tenantOf(request.headers);
    },
  });
}

/**
 * The router in front says it; without one, whoever calls does. The header of the company's own
 * gateway, `x-tenant-id`, is what the shop always used.
 */
function tenantOf(headers) {
  const tenant = headers["x-cellfleet-tenant"] ?? headers["x-tenant-id"];
  if (typeof tenant === "string" && tenant !== "") return tenant;
  throw new Failure(400, "TENANT_MISSING", "the request names no account", {
    nextSteps: ["send the header x-tenant-id"],
  });
}

const fits = (pattern, parts) =>
  pattern.length === parts.length &&
  pattern.every((part, at) => part.startsWith(":") || part === parts[at]);

async function readBody(request) {
  const chunks = [];
  let bytes = 0;
  for await (const chunk of request) {
    bytes += chunk.length;
    if (bytes <= bodyBytesMax) chunks.push(chunk);
  }
  if (bytes > bodyBytesMax) {
    throw new Failure(413, "BODY_TOO_LARGE", `the body is larger than ${bodyBytesMax} bytes`);
  }
  return Buffer.concat(chunks).toString("utf8");
}

function refusal({ status, code, message, nextSteps, retryAfter }) {
  return {
    status,
    headers: retryAfter === undefined ? {} : { "retry-after": String(retryAfter) },
    json: { error: { code, message, next_steps: nextSteps } },
  };
}

function send(response, { status = 200, headers = {}, json, text }) {
  const body = text ?? (typeof json === "string" ? json : JSON.stringify(json));
  response.writeHead(status, {
    "content-type": text === undefined ? "application/json" : "text/plain; charset=utf-8",
    "content-length": Buffer.byteLength(body),
    ...headers,
  });
  response.end(body);
}

/** Undefined for anything but a safe whole number from 0 in plain digits. */
export function wholeNumber(raw) {
  if (typeof raw !== "string" || !/^\d{1,16}$/.test(raw)) return undefined;
  const number = Number(raw);
  return Number.isSafeInteger(number) ? number : undefined;
}
