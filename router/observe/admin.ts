/**
 * The admin port: for probes, scrapers and people. `/livez` depends on nothing; `/readyz` on a table
 * and a listener, never on the control plane: a router without one serves on.
 */
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { CellError, errorBody, errorTable } from "../../contract/errors.ts";
import type { RememberedAnswer } from "../../contract/remembered-request.ts";
import { listenOn } from "../../runtime/listen.ts";
import type { Address } from "../config.ts";
import type { RoutingView } from "../place/decide.ts";
import { explain } from "./explain.ts";

export type AdminOptions = {
  readonly address: Address;
  readonly metrics: { readonly text: () => string | Promise<string> };
  readonly view: () => RoutingView | undefined;
  /** What readiness depends on: never the control plane. */
  readonly checks: () => readonly ReadyCheck[];
  /** Since the control plane last answered; undefined in static mode. */
  readonly ageMs: () => number | undefined;
  readonly remembered: {
    readonly find: (requestId: string) => RememberedAnswer | Promise<RememberedAnswer>;
  };
  /** Of a router with worker threads. */
  readonly workers?: AdminWorkers | undefined;
};

export type AdminWorkers = {
  readonly list: () => ReadonlyArray<{
    readonly worker: number;
    readonly state: string;
    readonly revision: number;
  }>;
  /** Begins to replace one after the other; false: that is happening already. */
  readonly restart: () => boolean;
};

export type ReadyCheck = { readonly name: string; readonly ok: boolean; readonly text: string };

export type Admin = { readonly address: AddressInfo; readonly close: () => Promise<void> };

export async function startAdmin(options: AdminOptions): Promise<Admin> {
  const server = createServer((req, res) => {
    res.on("error", () => {});
    // Only a browser says where a page came from: no page may act here.
    if (req.headers.origin !== undefined && req.method !== "GET") {
      sendError(res, new CellError("METHOD_NOT_ALLOWED", "Pages of a browser may not act here."));
      return;
    }
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
  if (url.pathname === "/workers") return sendWorkers(options, res);
  if (url.pathname === "/workers/restart") return restartWorkers(options, method, res);
  if (method !== "GET" && method !== "HEAD") {
    return sendError(res, new CellError("METHOD_NOT_ALLOWED", "Only GET is served here."));
  }
  switch (url.pathname) {
    case "/":
      return sendText(res, 200, addresses);
    case "/livez":
      return sendText(res, 200, "ok\n");
    case "/readyz":
    case "/healthz":
      return sendReady(options, res, url.searchParams.has("verbose"));
    case "/metrics":
      return sendText(res, 200, await options.metrics.text(), "text/plain; version=0.0.4");
    case "/table":
      return sendTable(options, res, url.searchParams.get("full") === "1");
    case "/explain":
      return sendExplanation(options, res, url.searchParams);
    default:
      return sendError(res, new CellError("NOT_FOUND", "There is nothing at this address."));
  }
}

const addresses = `The admin port of a Cellfleet router.

/livez                     it runs
/readyz                    it may get traffic; ?verbose says each check
/metrics                   for Prometheus
/table                     the routing table it serves by; ?full=1 with every placement
/explain?tenant=ID         where a request would go; or ?host=HOST&path=PATH, ?alias=NAMESPACE:NAME
/explain?request=ID        what became of a request, by the x-request-id of its answer
/workers                   its worker threads; POST /workers/restart replaces them, one after the other
`;

const noWorkers = (): CellError =>
  new CellError("NOT_FOUND", "This router serves in one thread.", {
    nextSteps: ["cellctl router --workers auto ..."],
  });

function sendWorkers({ workers }: AdminOptions, res: ServerResponse): void {
  if (workers === undefined) sendError(res, noWorkers());
  else sendJson(res, 200, { items: workers.list() });
}

/** 202: it has begun, now or before; `/workers` and the log tell how it goes. */
function restartWorkers({ workers }: AdminOptions, method: string, res: ServerResponse): void {
  if (workers === undefined) {
    sendError(res, noWorkers());
  } else if (method === "POST") {
    sendJson(res, 202, { restarting: true, begun: workers.restart() });
  } else {
    sendError(res, new CellError("METHOD_NOT_ALLOWED", "A restart is asked for by POST."));
  }
}

/** Machines read the status; people add `?verbose`. */
function sendReady({ checks }: AdminOptions, res: ServerResponse, verbose: boolean): void {
  const all = checks();
  const failed = all.find(({ ok }) => !ok);
  const verdict = failed?.text ?? "ready";
  const lines = all.map(
    ({ name, ok, text }) => `[${ok ? "+" : "-"}]${name} ${ok ? "ok" : "failed"}: ${text}\n`,
  );
  sendText(res, failed === undefined ? 200 : 503, `${verbose ? lines.join("") : ""}${verdict}\n`);
}

async function sendTable(options: AdminOptions, res: ServerResponse, full: boolean): Promise<void> {
  const view = options.view();
  if (view === undefined) return sendError(res, noTable());
  const { table, protocol, passThrough } = view;
  const { aliasing, ...lists } = table.lists;
  const ageMs = options.ageMs();
  const summary = {
    fleet: table.fleet,
    revision: table.revision,
    checksum: table.checksum,
    epochMax: table.epochMax,
    placements: table.size,
    aliases: table.aliasCount,
    protocol,
    ...(passThrough === undefined ? {} : { passThrough }),
    ...(ageMs === undefined ? {} : { ageSeconds: Math.round(ageMs / 1000) }),
    ...lists,
    // Without the salt: it is what keeps hashes from being tried out.
    ...(aliasing === undefined ? {} : { aliasing: { namespaces: aliasing.namespaces } }),
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

/** Enough for every id that a router takes from a trusted proxy. */
const requestIdCharsMax = 128;

async function sendExplanation(
  { view: read, remembered }: AdminOptions,
  res: ServerResponse,
  query: URLSearchParams,
): Promise<void> {
  const request = query.get("request");
  if (request !== null) {
    sendJson(res, 200, await remembered.find(request.slice(0, requestIdCharsMax)));
    return;
  }
  try {
    const view = read();
    if (view === undefined) throw noTable();
    sendJson(res, 200, explain(view, query));
  } catch (error) {
    if (!(error instanceof CellError)) throw error;
    sendError(res, error);
  }
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
