/**
 * The agent's own door, for people and probes, on a port that routers do not use: `/livez`, `/readyz`
 * (`?verbose` says each check), `/metrics`, `/cellfleet/status`, and what workers ask (`worker-pages.ts`). It decides nothing.
 */
import { createServer, type Server, type ServerResponse } from "node:http";
import { type AgentStatus, ownershipStates } from "../../contract/cell-protocol.ts";
import { CellError } from "../../contract/errors.ts";
import type { CellId } from "../../contract/ids.ts";
import { revisionSchema } from "../../contract/ids.ts";
import { release } from "../../contract/release.ts";
import type { CellStage } from "../../contract/routing-table.ts";
import { defaultService } from "../../contract/service-route.ts";
import { type Counter, createMetrics, type Metrics } from "../../runtime/metrics.ts";
import { goldResults } from "./acks/gold-gate.ts";
import type { AppProbe } from "./app-probe.ts";
import type { Gate } from "./gate.ts";
import { passageCodes } from "./passage.ts";
import { readChoices } from "./read-choice.ts";
import { buildAnswer, sendAnswer } from "./refusal.ts";
import { signatureVerdicts } from "./router-signatures.ts";
import type { Stores } from "./stores/stores.ts";
import type { Sync } from "./sync.ts";
import type { WorkerPages } from "./worker-pages.ts";

/** Everything that can be asked about one agent. */
export type AgentParts = {
  readonly cell: CellId;
  readonly instance: string;
  readonly gate: Gate;
  readonly stores: Stores;
  readonly sync: Sync;
  readonly probe: AppProbe;
  readonly isFresh: () => boolean;
  readonly isStopping: () => boolean;
};

const headersMs = 5000;

export function createAdmin(parts: AgentParts, metrics: Metrics, workers: WorkerPages): Server {
  const server = createServer({ headersTimeout: headersMs, requestTimeout: headersMs });
  const ready: Page = (res, verbose) => sendReady(parts, res, verbose);
  const pages: Readonly<Record<string, Page>> = {
    "/livez": (res) => send(res, 200, "text/plain", "ok\n"),
    "/readyz": ready,
    "/healthz": ready,
    "/metrics": (res) => send(res, 200, "text/plain; version=0.0.4", metrics.text()),
    "/cellfleet/status": (res) =>
      send(res, 200, "application/json", `${JSON.stringify(buildStatus(parts))}\n`),
  };
  server.on("request", (req, res) => {
    req.resume();
    const [path = "", query = ""] = (req.url ?? "").split("?");
    const ask = Object.hasOwn(workers, path) ? workers[path] : undefined;
    const page =
      ask === undefined
        ? Object.hasOwn(pages, path) && pages[path]
        : (to: ServerResponse) => answerWorker(to, () => ask(new URLSearchParams(query)));
    const verbose = query.split("&").includes("verbose");
    if (!readMethods.has(req.method ?? "")) {
      sendAnswer(res, buildAnswer(new CellError("METHOD_NOT_ALLOWED", "Only GET."), undefined));
    } else if (page === undefined || page === false) {
      sendAnswer(res, buildAnswer(new CellError("NOT_FOUND", "Nothing is here."), undefined));
    } else page(res, verbose);
  });
  return server;
}

type Page = (res: ServerResponse, verbose: boolean) => void;
const readMethods: ReadonlySet<string> = new Set(["GET", "HEAD"]);

/** Machines read the status; people add `?verbose`. */
function sendReady(parts: AgentParts, res: ServerResponse, verbose: boolean): void {
  const trouble = findTrouble(parts);
  const checks: ReadonlyArray<readonly [string, boolean]> = [
    ["running", !parts.isStopping()],
    ["database", parts.isFresh()],
    ["lease", parts.stores.lease.remainingMs() > 0],
    ["application", parts.probe.silentServices().length === 0],
    ["control-plane", parts.sync.connected()],
  ];
  const lines = checks.map(([name, ok]) => `[${ok ? "+" : "-"}]${name} ${ok ? "ok" : "failed"}\n`);
  const text = `${verbose ? lines.join("") : ""}${trouble ?? "ok"}\n`;
  send(res, trouble === undefined ? 200 : 503, "text/plain", text);
}

function answerWorker(res: ServerResponse, ask: () => unknown): void {
  try {
    send(res, 200, "application/json", `${JSON.stringify(ask())}\n`);
  } catch (error) {
    if (!(error instanceof CellError)) throw error;
    sendAnswer(res, buildAnswer(error, undefined));
  }
}

export function buildStatus(parts: AgentParts): AgentStatus {
  const remainingMs = Math.floor(parts.stores.lease.remainingMs());
  return {
    cell: parts.cell,
    instance: parts.instance,
    primary: parts.stores.primary(),
    lease: { live: remainingMs > 0, remainingMs, grant: parts.stores.lease.grant },
    appliedRevision: revisionSchema.parse(parts.stores.facts()?.cell.appliedRevision ?? 0),
    keys: parts.stores.ownership.countByState(),
    inFlight: parts.gate.inFlight,
    reason: findTrouble(parts) ?? servingWords[parts.stores.stage.now],
  };
}

const servingWords: Readonly<Record<CellStage, string>> = {
  enforce: "serving: lease, database and application are as they should be",
  observe: "serving everything: stage observe counts what would be refused, and refuses nothing",
  "pass-through": "serving everything: stage pass-through",
};

/** Why this agent passes nothing on, in one sentence; undefined while it serves. */
function findTrouble(parts: AgentParts): string | undefined {
  if (parts.isStopping()) return "not serving: the agent is stopping";
  const closed = parts.stores.stage.now === "enforce" ? findClosure(parts) : undefined;
  if (closed !== undefined) return closed;
  const [silent] = parts.probe.silentServices();
  if (silent === undefined) return undefined;
  return silent === defaultService
    ? "not serving: the application does not answer"
    : `not serving: no instance of service ${silent} answers`;
}

function findClosure(parts: AgentParts): string | undefined {
  if (!parts.isFresh()) {
    const hidden = parts.stores.outOfSight();
    return hidden.length === 0
      ? "not serving: the cell's database is out of sight"
      : `not serving: out of sight of the cell's databases: ${hidden.join(", ")}`;
  }
  if (parts.stores.lease.remainingMs() <= 0) {
    return parts.sync.connected()
      ? "not serving: the control plane has granted no lease that is still valid"
      : "not serving: the lease is over and the control plane does not answer";
  }
  return undefined;
}

export type AgentMetrics = {
  readonly metrics: Metrics;
  readonly requests: Counter;
  readonly refusals: Counter;
  /** Let pass by a stage that refuses nothing. */
  readonly passedOver: Counter;
  /** Requests of class read, by where they went and why. */
  readonly reads: Counter;
  readonly signatures: Counter;
  /** Answers to writes of tier gold, by whether a partner had them. */
  readonly gold: Counter;
};

const ownCodes = ["PLACEMENT_STALE", "LEASE_MISSING", "GATE_CLOSED", "GATE_HEADERS_MISSING"];
const otherCodes = [
  "SERVICE_UNKNOWN",
  "OUTCOME_UNKNOWN",
  "APP_UNREACHABLE",
  "CELL_TIMEOUT",
  "CELL_PROTOCOL",
];

export function createAgentMetrics(): AgentMetrics {
  const metrics = createMetrics();
  return {
    metrics,
    requests: metrics.counter(
      "cellfleet_agent_requests_total",
      "Answers that went out, by class of status.",
      [..."12345"].map((digit) => ({ code_class: `${digit}xx` })),
    ),
    refusals: metrics.counter(
      "cellfleet_agent_refused_total",
      "Answers that the gate made itself, by code.",
      [...ownCodes, ...otherCodes].map((code) => ({ code })),
    ),
    passedOver: metrics.counter(
      "cellfleet_cell_would_refuse_total",
      "Requests that passed in this stage and would be refused in enforce, by code.",
      passageCodes.map((reason) => ({ reason })),
    ),
    signatures: metrics.counter(
      "cellfleet_agent_router_signatures_total",
      "Requests by what their router's signature was found to be; `valid` and `no-keys` pass.",
      signatureVerdicts.map((verdict) => ({ verdict })),
    ),
    gold: metrics.counter(
      "cellfleet_agent_gold_total",
      "Answers to writes of tier gold, by whether a partner had them first.",
      goldResults.map((result) => ({ result })),
    ),
    reads: metrics.counter(
      "cellfleet_agent_reads_total",
      "Requests of class read to services with replicas, by where they went and why.",
      readChoices,
    ),
  };
}

export function addGauges(metrics: Metrics, parts: AgentParts): void {
  metrics.gaugeFrom("cellfleet_build_info", "Always 1.", () => [[{ part: "agent", release }, 1]]);
  const flag = (value: boolean) => (value ? 1 : 0);
  const { cell } = parts;
  const ofCell = (value: number) => [[{ cell }, value]] as const;
  metrics.gaugeFrom(
    "cellfleet_agent_lease_remaining_seconds",
    "Time for which this cell may still serve; 0 when it may not.",
    () => ofCell(Math.max(0, parts.stores.lease.remainingMs()) / 1000),
  );
  metrics.gaugeFrom(
    "cellfleet_agent_lease_grant",
    "Number of the last grant of a lease; 0: there never was one.",
    () => ofCell(parts.stores.lease.grantMax),
  );
  const gauges: ReadonlyArray<readonly [string, string, () => number]> = [
    ["in_flight", "Requests between admission and their end.", () => parts.gate.inFlight],
    ["primary", "1 on the agent that renews the lease.", () => flag(parts.stores.primary())],
    ["database_connected", "1 while connected.", () => flag(parts.stores.connected())],
    [
      "control_plane_connected",
      "1 while the last call was answered.",
      () => flag(parts.sync.connected()),
    ],
    [
      "control_plane_failures",
      "Calls that failed since the last answer.",
      () => parts.sync.failures(),
    ],
    ["app_reachable", "1 while the application answers.", () => flag(parts.probe.reachable())],
    [
      "applied_revision",
      "Revision up to which ownership is applied.",
      () => parts.stores.facts()?.cell.appliedRevision ?? 0,
    ],
  ];
  for (const [name, help, read] of gauges) {
    metrics.gaugeFrom(`cellfleet_agent_${name}`, help, read);
  }
  metrics.gaugeFrom("cellfleet_agent_keys", "Placement keys by state.", () => {
    const counts = parts.stores.ownership.countByState();
    return ownershipStates.map((state) => [{ state }, counts[state]] as const);
  });
}

function send(res: ServerResponse, status: number, type: string, body: string): void {
  res.writeHead(status, { "content-type": type, "cache-control": "no-store" });
  res.end(body);
}
