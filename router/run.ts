/**
 * Assembles a router and runs it: `startRouter` for whoever holds one in the hand, `runRouter` for the
 * command line, which lives until it is told to stop.
 */
import { release } from "../contract/release.ts";
import { type Clock, systemClock } from "../runtime/clock.ts";
import { forwardLimits } from "../runtime/http/forward.ts";
import { createLifecycle } from "../runtime/lifecycle.ts";
import { createLog, errorFields, type Log } from "../runtime/log.ts";
import { createMetrics, type Metrics } from "../runtime/metrics.ts";
import { type Random, systemRandom } from "../runtime/random.ts";
import { resolveSecret } from "../runtime/secret-ref.ts";
import { type FanOuts, fanOutLimits } from "./answer/fan-out.ts";
import { CellTally } from "./cells/cell-tally.ts";
import { Endpoints } from "./cells/endpoints.ts";
import { parseRouterConfig, type RouterConfig } from "./config.ts";
import { listenH2c } from "./listen/h2c.ts";
import { type ListenerOptions, listen } from "./listen/server.ts";
import { createTunnels, tunnelLimits } from "./listen/upgrade.ts";
import { type ReadyCheck, startAdmin } from "./observe/admin.ts";
import type { RouterEvents } from "./observe/events.ts";
import { createRouterMetrics } from "./observe/metrics.ts";
import { Remembered } from "./observe/remembered.ts";
import { startTracing, type Tracing } from "./observe/tracing.ts";
import { Hold } from "./place/hold.ts";
import { WouldRefuse } from "./place/would-refuse.ts";
import { type ServeContext, serve } from "./serve.ts";
import { type OpenedTable, openTable } from "./table/open-table.ts";
import { createServedView } from "./table/served-view.ts";

/** Small bodies are kept until the answer's head is there, for one repetition. */
const keepBytesMax = 64 * 1024;
const bodyIdleMs = 30_000;
const fieldsMax = 100;
const targetBytesMax = 8192;
const staleMs = 1000;
const passesMax = 2;
const releaseBatchMax = 64;

export type RouterOptions = {
  readonly config: RouterConfig;
  readonly log: Log<RouterEvents>;
  /** Of the control plane; empty in static mode. */
  readonly token: string;
  readonly clock?: Clock;
  readonly random?: Random;
};

export type Router = {
  readonly port: number;
  /** Of cleartext HTTP/2, if it is served. */
  readonly h2cPort: number | undefined;
  readonly adminPort: number;
  readonly metrics: Metrics;
  /** Static mode: reads the file again. A bad one is refused and logged. */
  readonly reload: () => Promise<void>;
  /** Finishes what is in flight, within the configured time. */
  readonly close: () => Promise<void>;
};

export async function startRouter(options: RouterOptions): Promise<Router> {
  const { config, log } = options;
  const parts = createParts(options);
  const lifecycle = createLifecycle({
    clock: parts.clock,
    graceMs: config.drainDelayMs + config.drainMs + 5000,
    onTrouble: (where, error) => log.event("router.trouble", { where, ...errorFields(error) }),
  });
  try {
    return await start(parts, lifecycle);
  } catch (error) {
    await lifecycle.close();
    throw error;
  }
}

type Parts = ReturnType<typeof createParts>;

function createParts(options: RouterOptions) {
  const { config, log, token } = options;
  const clock = options.clock ?? systemClock;
  const random = options.random ?? systemRandom;
  const registry = createMetrics();
  const metrics = createRouterMetrics(registry);
  const limits = {
    connectionsMax: config.connectionsMax,
    pendingMax: config.pendingMax,
    queueMs: config.queueMs,
    connectMs: config.connectMs,
  };
  const endpoints = new Endpoints({ clock, random, limits });
  const hold = new Hold({
    clock,
    limits: {
      holdMs: config.holdMs,
      perKeyMax: config.heldPerKeyMax,
      totalMax: config.heldMax,
      batchMax: releaseBatchMax,
    },
    onVerdict: (result) => metrics.holds.inc({ result }),
  });
  const served = createServedView(({ table }) => {
    endpoints.follow(table);
    hold.release((key) => table.get(key)?.state !== "hold");
  });
  const status: { draining: boolean; listening: boolean } = { draining: false, listening: false };
  const tally = new CellTally();
  const wouldRefuse = new WouldRefuse(metrics.wouldRefuse);
  const remembered = new Remembered({
    router: config.id,
    nowMs: clock.nowMs,
    limits: { requestsMax: config.explainRequestsMax, bytesMax: config.explainBytesMax },
  });
  const fanOuts: FanOuts = {
    limits: { ...fanOutLimits, runningMax: config.fanOutsMax },
    running: 0,
  };
  return {
    config,
    log,
    token,
    clock,
    random,
    registry,
    metrics,
    endpoints,
    hold,
    served,
    status,
    tally,
    wouldRefuse,
    remembered,
    fanOuts,
  };
}

async function start(parts: Parts, lifecycle: ReturnType<typeof createLifecycle>): Promise<Router> {
  const { config, log, served, status, registry } = parts;
  lifecycle.onClose("endpoints", () => parts.endpoints.close());
  const table = await openTable(parts);
  lifecycle.onClose("table", () => table.close());
  gauges(parts, table);
  const admin = await startAdmin({
    address: config.admin,
    metrics: registry,
    view: served.view,
    checks: () => checks(parts),
    ageMs: table.ageMs,
    remembered: parts.remembered,
  });
  lifecycle.onClose("admin", () => admin.close());
  table.follow(`http://${urlHost(config.admin.host)}:${admin.address.port}`);
  const tracing = await openTracing(parts, lifecycle);
  const context = serveContext(parts, tracing);
  const tunnels = createTunnels(context, tunnelLimits);
  registry.gaugeFrom("cellfleet_router_tunnels_open", "WebSocket tunnels.", tunnels.open);
  const onRequest: ListenerOptions["onRequest"] = (req, res, expectsContinue) =>
    void serve(context, { req, res }, expectsContinue);
  const { clock } = parts;
  const { clientsMax } = config;
  const listener = await listen({
    ...{ clock, onRequest, clientsMax, address: config.listen },
    routerId: config.id,
    onUpgrade: tunnels.serve,
    onBadInput: (code) => parts.metrics.refusals.inc({ code }),
  });
  const h2c =
    config.h2c && (await listenH2c({ clock, onRequest, clientsMax, address: config.h2c }));
  status.listening = true;
  lifecycle.onClose("listener", async () => {
    status.draining = true;
    log.event("router.draining", { graceMs: config.drainMs });
    // Load balancers read /readyz now and then; until they have, requests are still served.
    await parts.clock.sleep(config.drainDelayMs);
    const drained = [listener, h2c].map((one) => one?.drain(config.drainMs));
    tunnels.close();
    await Promise.all(drained);
  });
  log.event("router.started", {
    id: config.id,
    listen: `${config.listen.host}:${listener.address.port}`,
    admin: `${config.admin.host}:${admin.address.port}`,
    mode: config.source.kind,
    release,
  });
  return {
    port: listener.address.port,
    h2cPort: h2c?.address.port,
    adminPort: admin.address.port,
    metrics: registry,
    reload: table.reload,
    close: async () => {
      await lifecycle.close();
      log.event("router.stopped", { id: config.id });
    },
  };
}

const checks = ({ status, served }: Parts): readonly ReadyCheck[] => [
  { name: "running", ok: !status.draining, text: status.draining ? "draining" : "not draining" },
  {
    name: "table",
    ok: served.view() !== undefined,
    text: tableText(served.view()?.table.revision),
  },
  {
    name: "listener",
    ok: status.listening,
    text: status.listening ? "listening" : "not listening yet",
  },
];

const tableText = (revision: number | undefined): string =>
  revision === undefined ? "no routing table yet" : `routing table at revision ${revision}`;

async function openTracing(
  { config, clock, registry }: Parts,
  lifecycle: ReturnType<typeof createLifecycle>,
): Promise<Tracing | undefined> {
  if (config.tracing === undefined) return undefined;
  const parts = { clock, metrics: registry, routerId: config.id };
  const tracing = await startTracing(config.tracing, parts);
  lifecycle.onClose("tracing", tracing.close);
  return tracing;
}

const urlHost = (host: string): string => (host.includes(":") ? `[${host}]` : host);

function serveContext(parts: Parts, tracing: Tracing | undefined): ServeContext {
  const { config, clock, random, log, metrics, endpoints, hold, served, status } = parts;
  const { tally, wouldRefuse, fanOuts } = parts;
  return {
    ...{ clock, random, log, metrics, endpoints, hold },
    view: served.view,
    isUsable: endpoints.isUsable,
    ...{ tally, wouldRefuse, fanOuts },
    monotonicMs: clock.monotonicMs,
    routerId: config.id,
    viaName: `cellfleet-${config.id}`,
    accessLog: config.accessLog,
    ...{ remembered: parts.remembered, tracing },
    cellHeaders: config.cellHeaders,
    closing: () => status.draining,
    isTrusted: (peer) => config.trustedProxies.check(peer, peer.includes(":") ? "ipv6" : "ipv4"),
    headLimits: { fieldsMax, targetBytesMax },
    forwardLimits: { ...forwardLimits, headMs: config.headMs },
    body: { bytesMax: config.bodyBytesMax, keepBytesMax, idleMs: bodyIdleMs },
    staleMs,
    passesMax,
  };
}

function gauges({ registry, hold, endpoints, served, fanOuts }: Parts, table: OpenedTable): void {
  const name = (rest: string) => `cellfleet_router_${rest}`;
  const current = () => served.view()?.table;
  registry.gaugeFrom(name("held_requests"), "Requests waiting for a placement.", () => hold.held);
  registry.gaugeFrom(name("table_revision"), "Revision served.", () => current()?.revision ?? 0);
  registry.gaugeFrom(
    name("table_placements"),
    "Placements in the table.",
    () => current()?.size ?? 0,
  );
  registry.gaugeFrom(
    name("table_aliases"),
    "Names of tenants in the table.",
    () => current()?.aliasCount ?? 0,
  );
  registry.gaugeFrom(name("fan_outs"), "Requests to all cells now.", () => fanOuts.running);
  registry.gaugeFrom(
    name("table_epoch_max"),
    "Highest epoch seen.",
    () => current()?.epochMax ?? 0,
  );
  registry.gaugeFrom(
    name("table_age_seconds"),
    "Since the control plane last said that nothing newer exists; 0 in static mode.",
    () => (table.ageMs() ?? 0) / 1000,
  );
  registry.gaugeFrom(name("inflight_requests"), "Requests at cells, by endpoint.", () =>
    endpoints.load().map(({ url, inFlight }) => [{ endpoint: url }, inFlight] as const),
  );
  registry.gaugeFrom(name("pending_requests"), "Requests waiting for a seat, by endpoint.", () =>
    endpoints.load().map(({ url, pending }) => [{ endpoint: url }, pending] as const),
  );
  registry.gaugeFrom("cellfleet_build_info", "Always 1.", () => [[{ part: "router", release }, 1]]);
}

export type RunRouterOptions = {
  /** As on the command line, by their names in camel case: see `config.ts`. */
  readonly flags: unknown;
  readonly env: Readonly<Record<string, string | undefined>>;
};

/** Runs until SIGTERM or SIGINT; SIGHUP reads a static table again. Resolves to the exit code. */
export async function runRouter(options: RunRouterOptions): Promise<number> {
  const config = parseRouterConfig(options.flags);
  const { source } = config;
  const token = source.kind === "static" ? "" : await resolveSecret(source.token, options.env);
  const log = createLog<RouterEvents>({
    clock: systemClock,
    part: "router",
    level: config.logLevel,
    write: (line) => process.stdout.write(line),
  });
  const stopped = new Promise<void>((resolve) => {
    process.once("SIGTERM", () => resolve());
    process.once("SIGINT", () => resolve());
  });
  const router = await startRouter({ config, log, token });
  const onHangUp = () => void router.reload();
  process.on("SIGHUP", onHangUp);
  await stopped;
  await router.close();
  process.off("SIGHUP", onHangUp);
  return 0;
}
