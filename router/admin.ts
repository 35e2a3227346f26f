/**
 * The admin port: for probes, scrapers and people. `/livez` depends on nothing; `/readyz` on a table
 * and a listener, never on the control plane: a router without one serves on.
 */
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { CellError, errorBody, errorTable } from "../contract/errors.ts";
import { parseKeyspaceName, parseTenantId, tenantIdRule } from "../contract/ids.ts";
import { listenOn } from "../runtime/listen.ts";
import type { Metrics } from "../runtime/metrics.ts";
import type { Address } from "./config.ts";
import { chooseService, decide, type RouteDecision, type RoutingView } from "./decide.ts";
import { identify } from "./identify.ts";

export type AdminOptions = {
  readonly address: Address;
  readonly metrics: Metrics;
  readonly view: () => RoutingView | undefined;
  /** Why the router is not ready; undefined when it is. */
  readonly notReady: () => string | undefined;
  /** Since the control plane last answered; undefined in static mode. */
  readonly ageMs: () => number | undefined;
};

export type Admin = { readonly address: AddressInfo; readonly close: () => Promise<void> };

export async function startAdmin(options: AdminOptions): Promise<Admin> {
  const server = createServer((req, res) => {
    res.on("error", () => {});
    answer(options, req.method ?? "", req.url ?? "/", res).catch(() => res.destroy());
  });
  const address = await listenOn(server, options.address);
  return {
    address,
    close: async () => {
      const closed = new Promise((resolve) => server.close(resolve));
      server.closeAllConnections();
      await closed;
    },
  };
}

async function answer(
  options: AdminOptions,
  method: string,
  target: string,
  res: ServerResponse,
): Promise<void> {
  const url = new URL(target, "http://admin");
  if (method !== "GET" && method !== "HEAD") {
    return sendError(res, new CellError("METHOD_NOT_ALLOWED", "Only GET is served here."));
  }
  switch (url.pathname) {
    case "/livez":
      return sendText(res, 200, "ok\n");
    case "/readyz":
    case "/healthz":
      return sendReady(options, res);
    case "/metrics":
      return sendText(res, 200, options.metrics.text(), "text/plain; version=0.0.4");
    case "/table":
      return sendTable(options, res, url.searchParams.get("full") === "1");
    case "/explain":
      return sendExplanation(options, res, url.searchParams);
    default:
      return sendError(res, new CellError("NOT_FOUND", "There is nothing at this address."));
  }
}

function sendReady({ notReady }: AdminOptions, res: ServerResponse): void {
  const reason = notReady();
  sendText(res, reason === undefined ? 200 : 503, `${reason ?? "ready"}\n`);
}

async function sendTable(options: AdminOptions, res: ServerResponse, full: boolean): Promise<void> {
  const view = options.view();
  if (view === undefined) return sendError(res, noTable());
  const { table, protocol, passThrough } = view;
  const { tenantSources, serviceRoutes, keyspaces, cells } = table.lists;
  const ageMs = options.ageMs();
  const summary = {
    fleet: table.fleet,
    revision: table.revision,
    checksum: table.checksum,
    epochMax: table.epochMax,
    placements: table.size,
    protocol,
    ...(passThrough === undefined ? {} : { passThrough }),
    ...(ageMs === undefined ? {} : { ageSeconds: Math.round(ageMs / 1000) }),
    tenantSources,
    serviceRoutes,
    keyspaces,
    cells,
  };
  if (!full) return sendJson(res, 200, summary);
  res.writeHead(200, { "content-type": "application/x-ndjson" });
  res.write(`${JSON.stringify(summary)}\n`);
  for (const group of table.groups(1000)) {
    const roomLeft = res.write(`${JSON.stringify(group)}\n`);
    if (!roomLeft)
      await new Promise((resolve) => res.once("drain", resolve).once("close", resolve));
    if (res.destroyed) return;
  }
  res.end();
}

const noTable = (): CellError =>
  new CellError("TABLE_NOT_LOADED", "The router has not received a routing table yet.");

/** `?tenant=&keyspace=&service=`, or `?host=&path=` as a request would name it. */
function sendExplanation(
  { view: read }: AdminOptions,
  res: ServerResponse,
  query: URLSearchParams,
): void {
  try {
    const view = read();
    if (view === undefined) throw noTable();
    sendJson(res, 200, explain(view, query));
  } catch (error) {
    if (!(error instanceof CellError)) throw error;
    sendError(res, error);
  }
}

/** Throws what a request would be refused with, as far as nobody owns the tenant. */
function explain(view: RoutingView, query: URLSearchParams): object {
  const trace: string[] = [];
  const wanted = readWanted(view, query, trace);
  const { fleet, revision } = view.table;
  trace.push(`the table of fleet ${fleet} is at revision ${revision}`);
  const decision = decide(view, wanted);
  const { route } = decision;
  if (route === undefined) {
    const { code, message } =
      decision.kind === "refuse" ? decision : { code: "INTERNAL" as const, message: "" };
    throw new CellError(code, message, { details: { trace } });
  }
  const passed = view.table.get(route.key) === undefined;
  const how = passed ? "is passed through to" : `is decided by key ${route.key}:`;
  trace.push(
    `tenant ${wanted.tenant} ${how} cell ${route.cell}, epoch ${route.epoch}, ${route.state}`,
  );
  trace.push(consequence(decision));
  const { key, via, cell, epoch, state } = route;
  return { ...wanted, key, via, cell, epoch, state, revision, decision: decision.kind, trace };
}

function consequence(decision: RouteDecision): string {
  if (decision.kind === "hold") return "requests wait for the next revision of this key";
  if (decision.kind === "refuse") return `refused with ${decision.code}: ${decision.message}`;
  return `service ${decision.service} is forwarded to ${decision.endpoints.join(", ")}`;
}

/** Throws what is wrong with the question. */
function readWanted(view: RoutingView, query: URLSearchParams, trace: string[]) {
  const raw = query.get("tenant");
  const { tenantSources, serviceRoutes } = view.table.lists;
  if (raw !== null) {
    const tenant = parseTenantId(raw);
    const keyspace = parseKeyspaceName(query.get("keyspace") ?? "default");
    if (tenant === undefined) {
      throw new CellError("TENANT_INVALID", `A tenant id is ${tenantIdRule}.`);
    }
    if (keyspace === undefined) {
      throw new CellError("VALIDATION_FAILED", "That is no name of a keyspace.");
    }
    return { tenant, keyspace, service: query.get("service") ?? "default" };
  }
  const hostname = (query.get("host") ?? "").toLowerCase();
  const path = query.get("path") ?? "/";
  const identity = identify({ hostname, path, headers: [] }, tenantSources);
  if (identity.kind === "refused") throw new CellError(identity.code, identity.message);
  trace.push(`${identity.source} names tenant ${identity.tenant} of keyspace ${identity.keyspace}`);
  const { tenant, keyspace } = identity;
  return { tenant, keyspace, service: chooseService(serviceRoutes, hostname, identity.path) };
}

function sendText(
  res: ServerResponse,
  status: number,
  text: string,
  type: string = "text/plain",
): void {
  res.writeHead(status, { "content-type": type, "content-length": Buffer.byteLength(text) });
  res.end(text);
}

const sendJson = (res: ServerResponse, status: number, value: unknown): void =>
  sendText(res, status, `${JSON.stringify(value)}\n`, "application/json");

const sendError = (res: ServerResponse, error: CellError): void =>
  sendJson(res, errorTable[error.code].httpStatus, errorBody(error));
