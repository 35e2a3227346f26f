/**
 * The data plane of one thread: all that a request needs, and the doors through which requests come.
 * A router of one thread has one beside its table and its admin port, a router of many has one in each
 * of its workers.
 */
import { type Clock, systemClock } from "../runtime/clock.ts";
import { forwardLimits } from "../runtime/http/forward.ts";
import type { Lifecycle } from "../runtime/lifecycle.ts";
import { errorFields, type Log } from "../runtime/log.ts";
import { type Loop, startLoop } from "../runtime/loop.ts";
import { createMetrics } from "../runtime/metrics.ts";
import { type Random, systemRandom } from "../runtime/random.ts";
import { type FanOuts, fanOutLimits } from "./answer/fan-out.ts";
import { CellTally } from "./cells/cell-tally.ts";
import { Endpoints } from "./cells/endpoints.ts";
import type { RouterConfig } from "./config.ts";
import { dropMoved } from "./fallback/instead.ts";
import { KeptAnswers, keptLimits } from "./fallback/kept-answers.ts";
import { listenH2c } from "./listen/h2c.ts";
import { type ListenerOptions, listen } from "./listen/server.ts";
import { createTunnels, tunnelLimits } from "./listen/upgrade.ts";
import type { RouterEvents } from "./observe/events.ts";
import { createCellSeries } from "./observe/gauges.ts";
import { createRouterMetrics } from "./observe/metrics.ts";
import { Remembered } from "./observe/remembered.ts";
import { rankMs, TopTenants } from "./observe/top-tenants.ts";
import { startTracing, type Tracing } from "./observe/tracing.ts";
import { Hold } from "./place/hold.ts";
import { WouldRefuse } from "./place/would-refuse.ts";
import { type ServeContext, serve } from "./serve.ts";
import { createServedView } from "./table/served-view.ts";

/** Small bodies are kept until the answer's head is there, for one repetition. */
const keepBytesMax = 64 * 1024;
const bodyIdleMs = 30_000;
const fieldsMax = 100;
const targetBytesMax = 8192;
const staleMs = 1000;
const passesMax = 2;
const releaseBatchMax = 64;

export type ServingOptions = {
  readonly config: RouterConfig;
  readonly log: Log<RouterEvents>;
  readonly clock?: Clock;
  readonly random?: Random;
};

export type Serving = ReturnType<typeof createServing>;

/** What requests need, before anybody may send one. */
export function createServing(options: ServingOptions) {
  const { config, log } = options;
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
  const cellSeries = createCellSeries(metrics);
  const tenants = new TopTenants(metrics.tenantRequests);
  const kept = new KeptAnswers({ ...keptLimits, totalBytesMax: config.staleBytesMax });
  const served = createServedView(({ table }) => {
    cellSeries(table);
    endpoints.follow(table);
    dropMoved(kept, table);
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
    tenants,
    kept,
    fanOuts,
  };
}

export type Doors = {
  readonly port: number;
  /** Of cleartext HTTP/2, if it is served. */
  readonly h2cPort: number | undefined;
};

/** From here on requests come. What is opened is closed by the lifecycle, the doors first. */
export async function openDoors(serving: Serving, lifecycle: Lifecycle): Promise<Doors> {
  const ranks = startRanks(serving);
  lifecycle.onClose("ranks", ranks.close);
  const { config, clock, status, registry, log } = serving;
  const tracing = await openTracing(serving, lifecycle);
  const context = serveContext(serving, tracing);
  const tunnels = createTunnels(context, tunnelLimits);
  registry.gaugeFrom("cellfleet_router_tunnels_open", "WebSocket tunnels.", tunnels.open);
  const onRequest: ListenerOptions["onRequest"] = (req, res, expectsContinue) =>
    void serve(context, { req, res }, expectsContinue);
  const { clientsMax } = config;
  const listener = await listen({
    ...{ clock, onRequest, clientsMax, address: config.listen },
    routerId: config.id,
    onUpgrade: tunnels.serve,
    onBadInput: (code) => serving.metrics.refusals.inc({ code }),
  });
  const h2c =
    config.h2c && (await listenH2c({ clock, onRequest, clientsMax, address: config.h2c }));
  status.listening = true;
  lifecycle.onClose("listener", async () => {
    status.draining = true;
    log.event("router.draining", { graceMs: config.drainMs });
    // Load balancers read /readyz now and then; until they have, requests are still served.
    await serving.clock.sleep(config.drainDelayMs);
    const drained = [listener, h2c].map((one) => one?.drain(config.drainMs));
    tunnels.close();
    await Promise.all(drained);
  });
  return { port: listener.address.port, h2cPort: h2c?.address.port };
}

const startRanks = ({ clock, random, tenants, log }: Serving): Loop =>
  startLoop({
    ...{ clock, random, intervalMs: rankMs, backoffMaxMs: rankMs },
    turn: async () => {
      tenants.rank();
      return "idle";
    },
    onError: (error) => log.event("router.trouble", { where: "ranks", ...errorFields(error) }),
  });

async function openTracing(
  { config, clock, registry }: Serving,
  lifecycle: Lifecycle,
): Promise<Tracing | undefined> {
  if (config.tracing === undefined) return undefined;
  const parts = { clock, metrics: registry, routerId: config.id };
  const tracing = await startTracing(config.tracing, parts);
  lifecycle.onClose("tracing", tracing.close);
  return tracing;
}

function serveContext(parts: Serving, tracing: Tracing | undefined): ServeContext {
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
    ...{ remembered: parts.remembered, tenants: parts.tenants, tracing },
    fallbacks: { kept: parts.kept, clock, metrics, routerId: config.id },
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
