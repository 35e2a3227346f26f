/**
 * The admin port: `/livez` (this process, nothing else), `/readyz` (may it be given requests), and
 * `/metrics`. Not for the public: it says how the inside stands.
 */
import { createServer, type Server } from "node:http";
import type { Metrics } from "../runtime/metrics.ts";

export type Check = { readonly name: string; readonly ok: boolean; readonly text: string };

const headersMs = 5000;

export function createAdminServer(options: {
  readonly metrics: Metrics;
  readonly checks: () => readonly Check[];
}): Server {
  return createServer({ headersTimeout: headersMs, requestTimeout: headersMs }, (req, res) => {
    req.resume();
    const readOnly = req.method === "GET" || req.method === "HEAD";
    const [path = "", query = ""] = (req.url ?? "").split("?");
    const page = readOnly ? pageOf(path, query, options) : { ...plain, status: 405, body: "GET\n" };
    res.writeHead(page.status, { "content-type": page.type });
    res.end(req.method === "HEAD" ? "" : page.body);
  });
}

type Page = { readonly status: number; readonly type: string; readonly body: string };
const plain = { status: 200, type: "text/plain; charset=utf-8" } as const;

function pageOf(
  path: string,
  query: string,
  options: { readonly metrics: Metrics; readonly checks: () => readonly Check[] },
): Page {
  if (path === "/livez") return { ...plain, body: "ok\n" };
  if (path === "/metrics") {
    const type = "text/plain; version=0.0.4; charset=utf-8";
    return { status: 200, type, body: options.metrics.text() };
  }
  if (path === "/readyz" || path === "/healthz") return readiness(options.checks(), query);
  return { ...plain, status: 404, body: "there are /livez, /readyz and /metrics\n" };
}

function readiness(checks: readonly Check[], query: string): Page {
  const ready = checks.every(({ ok }) => ok);
  const lines = checks.map(({ name, ok, text }) => `[${ok ? "+" : "-"}] ${name} ${text}\n`);
  const told = !ready || query.split("&").includes("verbose");
  return { ...plain, status: ready ? 200 : 503, body: told ? lines.join("") : "ok\n" };
}
