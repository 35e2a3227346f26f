/**
 * The data plane of one thread: all that a request needs, and the doors through which requests come.
 * A router of one thread has one beside its table and its admin port, a router of many has one in each
 * of its workers.
 */
import { isIP } from "node:net";
import { type Clock, systemClock } from "../runtime/clock.ts";
import { forwardLimits } from "../runtime/http/forward.ts";
import type { Lifecycle } from "../runtime/lifecycle.ts";
import { errorFields, type Log } from "../runtime/log.ts";
import { type Loop, startLoop } from "../runtime/loop.ts";
import { createMetrics } from "../runtime/metrics.ts";
import { type Random, systemRandom } from "../runtime/random.ts";
import { type AckedLimits, AckedWrites } from "./acked/acked-writes.ts";
import { type FanOuts, fanOutLimits } from "./answer/fan-out.ts";
import { CellTally } from "./cells/cell-tally.ts";
import { createCellTls } from "./cells/cell-tls.ts";
import type { RouterConfig } from "./config.ts";
import { dropMoved } from "./fallback/instead.ts";
import { KeptAnswers, keptLimits } from "./fallback/kept-answers.ts";
import { createProtection } from "./limits/protection.ts";
import type { Certificates } from "./listen/certificates.ts";
import {
  followCertificates,
  type ListenerSockets,
  openListeners,
} from "./listen/open-listeners.ts";
import { createTunnels, tunnelLimits } from "./listen/upgrade.ts";
import type { RouterEvents } from "./observe/events.ts";
import { createCellSeries } from "./observe/gauges.ts";
import { addLimitGauges } from "./observe/limit-metrics.ts";
import { createListenerMetrics } from "./observe/listener-metrics.ts";
import { createRouterMetrics } from "./observe/metrics.ts";
import { Outcomes } from "./observe/outcomes.ts";
import { Remembered } from "./observe/remembered.ts";
import { rankMs, TopTenants } from "./observe/top-tenants.ts";
import { startTracing, type Tracing } from "./observe/tracing.ts";
import { Doubt } from "./place/doubt.ts";
import { Halts } from "./place/halts.ts";
import { News } from "./place/news.ts";
import { openWaiting } from "./place/waiting.ts";
import { WouldRefuse } from "./place/would-refuse.ts";
import { type ServeContext, serve } from "./serve.ts";
import { createServedView } from "./table/served-view.ts";
import { createTrust } from "./trust/trust.ts";

/** Small bodies are kept until the answer's head is there, for one repetition. */
const keepBytesMax = 64 * 1024;
/** A body may begin slowly. */
const bodyRateAfterMs = 10_000;
const fieldsMax = 100;
const targetBytesMax = 8192;
const passesMax = 2;
/** Longer than a table that is on its way takes: then it may not be. */
const doubtMs = 200;

export type ServingOptions = {
  readonly config: RouterConfig;
  readonly log: Log<RouterEvents>;
  readonly clock?: Clock;
  readonly random?: Random;
  /** False in a worker: its process exchanges the router's keys, the worker reads them. */
  readonly ownsKeys?: boolean;
};

export type Serving = ReturnType<typeof createServing>;

/** What requests need, before anybody may send one. */
export function createServing(options: ServingOptions) {
  const { config, log } = options;
  const clock = options.clock ?? systemClock;
  const random = options.random ?? systemRandom;
  const registry = createMetrics();
  const metrics = createRouterMetrics(registry);
  const listenerMetrics = createListenerMetrics(registry);
  const cellTls = createCellTls({
    ...{ clock, config, log },
    onRefused: () => listenerMetrics.certificatesRefused.inc({ for: "cells" }),
  });
  const { endpoints, cells, ...protection } = createProtection({
    ...{ config, clock, random, metrics, log, tls: cellTls },
  });
  const waiting = openWaiting({ config, clock, metrics, table: () => served.view()?.table });
  const news = new News();
  const doubt = new Doubt();
  const cellSeries = createCellSeries(metrics);
  const tenants = new TopTenants(metrics.tenantRequests);
  const kept = new KeptAnswers({ ...keptLimits, totalBytesMax: config.staleBytesMax });
  const trust = createTrust({
    ...{ config, clock, random, log, registry },
    ownsKeys: options.ownsKeys ?? true,
  });
  const halts = new Halts();
  const acked = new AckedWrites(ackedLimits(config));
  const served = createServedView(({ table }, delta) => {
    news.note(table.revision, delta);
    trust.follow(table);
    cellSeries(table);
    protection.follow(table);
    dropMoved(kept, table);
    waiting.follow(table);
    halts.follow(table);
    acked.follow(table);
  });
  addLimitGauges({
    ...{ registry, endpoints, cells, ...protection.limits },
    table: () => served.view()?.table,
  });
  const status: { draining: boolean; listening: boolean } = { draining: false, listening: false };
  const tally = new CellTally(clock.monotonicMs);
  const wouldRefuse = new WouldRefuse(metrics.wouldRefuse);
  const outcomes = new Outcomes();
  const remembered = openRemembered(config, clock);
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
    listenerMetrics,
    cellTls,
    endpoints,
    cells,
    limits: protection.limits,
    ...{ hold: waiting.hold, handovers: waiting.handovers },
    news,
    doubt,
    served,
    halts,
    acked,
    status,
    ...{ tally, wouldRefuse, outcomes },
    trust,
    remembered,
    tenants,
    kept,
    fanOuts,
  };
}

const openRemembered = (config: RouterConfig, clock: Clock): Remembered =>
  new Remembered({
    router: config.id,
    nowMs: clock.nowMs,
    limits: { requestsMax: config.explainRequestsMax, bytesMax: config.explainBytesMax },
  });

export const ackedLimits = (config: RouterConfig): AckedLimits => ({
  perCellMax: config.ackedMax,
  totalMax: config.ackedTotalMax,
  keepMs: config.ackedMs,
});

export type Doors = {
  readonly port: number;
  /** Of cleartext HTTP/2, if it is served. */
  readonly h2cPort: number | undefined;
  /** Of HTTP/1 and HTTP/2 over TLS, if it is served. */
  readonly tlsPort: number | undefined;
  /** For another thread to take, which listens on; connections stay. */
  readonly sockets: ListenerSockets;
  /** Reads the certificates again. */
  readonly reloadTls: () => Promise<void>;
  /** Ends a drain that runs, or will: what is open is cut. */
  readonly hurry: () => void;
};

/**
 * From here on requests come, by the addresses of the settings or by `sockets` that listen already.
 * What is opened is closed by the lifecycle, the doors first.
 */
export async function openDoors(
  serving: Serving,
  lifecycle: Lifecycle,
  sockets?: ListenerSockets,
): Promise<Doors> {
  const ranks = startRanks(serving);
  lifecycle.onClose("ranks", ranks.close);
  const { config, clock, status, registry, log } = serving;
  const tracing = await openTracing(serving, lifecycle);
  const certificates = await openTls(serving, lifecycle);
  const context = serveContext(serving, tracing, certificates);
  const tunnels = createTunnels(context, {
    ...tunnelLimits,
    idleMs: config.wsIdleMs,
    ageMsMax: config.wsMaxAgeMs,
    totalMax: config.wsMax,
    perTenantMax: config.wsPerTenantMax,
  });
  serving.halts.onHalted(tunnels.endOf);
  registry.gaugeFrom("cellfleet_router_ws_open", "WebSocket tunnels.", tunnels.open);
  registry.gaugeFrom(
    "cellfleet_router_acked_writes",
    "Acknowledged writes that are remembered.",
    () => serving.acked.size,
  );
  const listeners = await openListeners({
    ...{ config, clock, log, registry, certificates, isTrusted: context.isTrusted },
    metrics: serving.listenerMetrics,
    onRequest: (req, res, expectsContinue) => void serve(context, { req, res }, expectsContinue),
    onUpgrade: tunnels.serve,
    onBadInput: (code) => serving.metrics.refusals.inc({ code }),
    farewell: tunnels.close,
    sockets,
  });
  const hurry = new AbortController();
  status.listening = true;
  lifecycle.onClose("listener", async () => {
    status.draining = true;
    // Of many workers the main thread speaks for all.
    if (sockets === undefined) log.event("router.draining", { graceMs: config.drainMs });
    // Load balancers read /readyz now and then; until they have, requests are still served.
    if (config.drainDelayMs > 0) await clock.sleep(config.drainDelayMs, hurry.signal);
    await listeners.drain(hurry.signal);
  });
  const { port, h2cPort, tlsPort } = listeners;
  return {
    ...{ port, h2cPort, tlsPort, sockets: listeners.sockets },
    reloadTls: async () => {
      await Promise.all([certificates?.reload(), serving.cellTls.reload()]);
    },
    hurry: () => hurry.abort(),
  };
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

/** Towards cells and towards clients. */
async function openTls(serving: Serving, lifecycle: Lifecycle): Promise<Certificates | undefined> {
  await serving.cellTls.open();
  lifecycle.onClose("tls to cells", serving.cellTls.close);
  const { listenerMetrics: metrics } = serving;
  const certificates = await followCertificates({ ...serving, metrics });
  if (certificates !== undefined) lifecycle.onClose("certificates", certificates.close);
  return certificates;
}

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

const bodyLimits = ({ bodyBytesMax, bodyIdleMs, bodyRateMin }: RouterConfig) => ({
  bytesMax: bodyBytesMax,
  keepBytesMax,
  idleMs: bodyIdleMs,
  ...(bodyRateMin === 0
    ? {}
    : { pace: { bytesPerSecondMin: bodyRateMin, afterMs: bodyRateAfterMs } }),
});

function serveContext(
  parts: Serving,
  tracing: Tracing | undefined,
  certificates: Certificates | undefined,
): ServeContext {
  const { config, clock, random, log, metrics, endpoints, hold, served } = parts;
  const { tally, wouldRefuse, outcomes, fanOuts, trust, acked } = parts;
  return {
    ...{ clock, random, log, metrics, endpoints, cells: parts.cells, hold },
    ...{ news: parts.news, handovers: parts.handovers },
    limits: parts.limits,
    view: served.view,
    isUsable: endpoints.isUsable,
    ...{ tally, wouldRefuse, outcomes, fanOuts, acked, tokens: trust.tokens, sign: trust.sign },
    monotonicMs: clock.monotonicMs,
    routerId: config.id,
    viaName: `cellfleet-${config.id}`,
    accessLog: config.accessLog,
    ...{ remembered: parts.remembered, tenants: parts.tenants, tracing },
    fallbacks: { kept: parts.kept, clock, metrics, routerId: config.id },
    cellHeaders: config.cellHeaders,
    coversHost: (servername, host) => certificates?.covers(servername, host) ?? true,
    isTrusted: rememberTrust(
      (peer) =>
        isIP(peer) > 0 && config.trustedProxies.check(peer, peer.includes(":") ? "ipv6" : "ipv4"),
    ),
    headLimits: { fieldsMax, targetBytesMax },
    forwardLimits: { ...forwardLimits, headMs: config.headMs },
    body: bodyLimits(config),
    staleMs: config.staleMs,
    doubtLater: () => clock.after(doubtMs, parts.doubt.tell),
    passesMax,
  };
}

/** Peers whose trust is known; most requests come from one that has asked before. */
const trustedPeersMax = 4096;

function rememberTrust(check: (peer: string) => boolean): (peer: string) => boolean {
  const known = new Map<string, boolean>();
  return (peer) => {
    const before = known.get(peer);
    if (before !== undefined) return before;
    const trusted = check(peer);
    if (known.size >= trustedPeersMax) known.clear();
    known.set(peer, trusted);
    return trusted;
  };
}
