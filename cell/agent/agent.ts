/**
 * One agent, put together: the gate in front of the application, the cell's
 * stores, the conversation with the control plane. Several may stand in front of one cell.
 */
import { readFileSync } from "node:fs";
import type { Server } from "node:net";
import { must } from "../../runtime/assert.ts";
import type { Clock } from "../../runtime/clock.ts";
import { createLifecycle, type Lifecycle } from "../../runtime/lifecycle.ts";
import { listenOn } from "../../runtime/listen.ts";
import { errorFields } from "../../runtime/log.ts";
import { openAcks } from "./acks/open.ts";
import {
  type AgentMetrics,
  type AgentParts,
  addGauges,
  createAdmin,
  createAgentMetrics,
} from "./admin.ts";
import {
  type AgentOptions,
  followConfigured,
  type Stats,
  startStats,
  startSync,
  watchReplicas,
} from "./agent-parts.ts";
import { startAppProbe } from "./app-probe.ts";
import type { Address, AgentConfig } from "./config.ts";
import { Gate } from "./gate.ts";
import type { GateView } from "./gate-decision.ts";
import { openGateTls } from "./gate-tls.ts";
import { createIngress, type IngressOptions } from "./ingress.ts";
import { createLasting } from "./lasting.ts";
import { noteServed, OutcomeBatches } from "./outcome-batches.ts";
import { RequestMeter } from "./request-meter.ts";
import { createSignatureCheck } from "./router-signatures.ts";
import { openStanding, type Standing } from "./standby/standing.ts";
import { openStores, type Stores } from "./stores/stores.ts";
import type { Sync } from "./sync.ts";
import { createTunnels, isWebSocketUpgrade } from "./tunnel.ts";
import { Upstreams } from "./upstreams.ts";
import { createWorkerPages } from "./worker-pages.ts";
import { WouldRefuse } from "./would-refuse.ts";

export type Agent = {
  /** As routers reach it. */
  readonly endpoint: string;
  readonly admin: string;
  readonly gate: Gate;
  /** Takes nothing new, waits for what is in flight, then ends. */
  readonly close: () => Promise<void>;
};

/** Requests in flight have this long to end when the agent stops. */
const graceMs = 5000;
/** How often the lease's end and the tunnels are looked at between readings of the database. */
const reviewMs = 250;

export async function startAgent(options: AgentOptions): Promise<Agent> {
  const { clock, log } = options;
  const lifecycle = createLifecycle({
    clock,
    graceMs: graceMs + 1000,
    onTrouble: (name, error) =>
      log.event("step.failed", { step: name, ...errorFields(error) }, "warn"),
  });
  try {
    return await assemble(options, lifecycle);
  } catch (error) {
    await lifecycle.close();
    throw error;
  }
}

async function assemble(options: AgentOptions, lifecycle: Lifecycle): Promise<Agent> {
  const { config, clock, random, log, standbyServer } = options;
  const { cell } = config;
  const instance = `${cell}-${random.hex(4)}`;
  const gate = new Gate();
  const meter = new RequestMeter(clock.monotonicMs());
  const outcomes = new OutcomeBatches(clock.monotonicMs);
  let sync: Sync | undefined;
  let stats: Stats | undefined;
  let stopping = false;
  // Closed last of all, so that probes see the agent leave.
  let closeAdmin = async (): Promise<void> => {};
  lifecycle.onClose("admin", () => closeAdmin());

  const counters = createAgentMetrics();
  const wouldRefuse = new WouldRefuse(instance, counters.passedOver);
  const onNews = () => {
    sync?.interrupt();
    stats?.wake();
  };
  const lasting = createLasting();
  const onOwnership = () => lasting.review(ingress);
  const known = { clock, random, log, instance, cell, gate, wouldRefuse, onNews, onOwnership };
  const stores = openStores({ ...known, ...databasesOf(options) }, lifecycle);
  stats = startStats({ options, stores, meter, lifecycle });
  const isFresh = () => stores.ownership.isFresh(clock.monotonicMs());
  const upstreams = new Upstreams(clock, config.services);
  lifecycle.onClose("upstreams", () => upstreams.close());
  const probe = startAppProbe({ clock, random, log, upstreams });
  lifecycle.onClose("probe", probe.close);

  const standing = openStanding(
    {
      ...{ clock, random, log, cell, instance, stores, onNews, standbyServer },
      silentMs: () => sync?.silentMs() ?? 0,
      tls: () => ownCertificate(config.tls),
    },
    lifecycle,
  );
  const watch = watchReplicas(options, stores, lifecycle);
  const acks = openAcks(
    {
      ...{ clock, random, log, ...databasesOf(options) },
      ...{ isPrimary: () => stores.primary(), counter: counters.gold, goldMs: config.goldMs },
    },
    lifecycle,
  );
  const signatures = createSignatureCheck({ clock, counter: counters.signatures });
  const ingress: IngressOptions = {
    signatures: { mode: config.routerSignatures, check: signatures.check },
    ...{ cell, clock, gate, upstreams, watch, acks, lasting, reads: counters.reads },
    ...{ door: standing.door, look: stores.look, onWouldRefuse: wouldRefuse.note },
    view: () => viewOf({ config, stores, standing, gate, isFresh }),
    onAdmitted: (keyspace, tenant) => meter.count(keyspace, tenant),
    onDone: (status, code) => noteDone(counters, status, code),
    onServed: (entry, status) => noteServed(outcomes, entry, status),
  };
  const table = await followConfigured(options, lifecycle, signatures.follow);
  const endpoint = await openGate(ingress, options, lifecycle, stores.lease.tick);
  sync = startSync(
    options,
    {
      ...{ instance, endpoint, stores, standing, wouldRefuse, stats: stats.numbers, outcomes },
      ...{ appReachable: probe.reachable, services: upstreams.services, onAnswer: acks.hear },
    },
    lifecycle,
  );
  const parts: AgentParts = {
    ...{ cell, instance, gate, stores, sync, probe, isFresh },
    isStopping: () => stopping,
  };
  addGauges(counters.metrics, parts);
  const pages = createWorkerPages({ view: ingress.view, cache: stores.ownership, table });
  const adminServer = createAdmin(parts, counters.metrics, pages);
  const admin = await listen(adminServer, config.admin);
  closeAdmin = () => closeServer(adminServer, clock);
  log.event("agent.started", { cell, instance, endpoint, admin });
  return {
    ...{ endpoint, admin, gate },
    close: async () => {
      stopping = true;
      await lifecycle.close();
      log.event("agent.stopped", { cell });
    },
  };
}

function noteDone(counters: AgentMetrics, status: number, code: string | undefined): void {
  counters.requests.inc({ code_class: `${Math.floor(status / 100)}xx` });
  if (code !== undefined) counters.refusals.inc({ code });
}

function viewOf(known: {
  readonly config: AgentConfig;
  readonly stores: Stores;
  readonly standing: Standing;
  readonly gate: Gate;
  readonly isFresh: () => boolean;
}): GateView {
  const { stage, lease, ownership } = known.stores;
  return {
    cell: known.config.cell,
    stage: stage.now,
    leaseRemainingMs: lease.remainingMs(),
    fresh: known.isFresh(),
    placement: ownership.get,
    closed: (key) => known.gate.isClosed(key),
    stopped: known.standing.stopped(),
  };
}

/** Shown to an annex that asks who calls. */
function ownCertificate(tls: AgentConfig["tls"]): { cert?: string; key?: string } {
  if (tls?.cert === undefined || tls.key === undefined) return {};
  return { cert: readFileSync(tls.cert, "utf8"), key: readFileSync(tls.key, "utf8") };
}

/** The first store's connection string, and those of the others. */
function databasesOf({ config, databaseUrl, storeDatabaseUrls }: AgentOptions) {
  const others = config.stores.map(({ name }) => ({
    name,
    databaseUrl: must(storeDatabaseUrls?.get(name), `the database of store ${name}`),
  }));
  return { databaseUrl, others };
}

/** Returns the address for routers. */
async function openGate(
  ingress: IngressOptions,
  options: AgentOptions,
  lifecycle: Lifecycle,
  onReview: () => void,
): Promise<string> {
  const { config, clock } = options;
  const tunnels = createTunnels(ingress);
  const tls = config.tls && (await openGateTls(config.tls, options, lifecycle));
  const server = createIngress(ingress, isWebSocketUpgrade, tls?.createServer);
  server.on("upgrade", tunnels.serve);
  const listening = await listen(server, config.listen, tls === undefined ? "http" : "https");
  lifecycle.onClose("gate", async () => {
    tunnels.close();
    await closeServer(server, clock);
  });
  const review = clockwork(clock, reviewMs, () => {
    onReview();
    ingress.lasting.review(ingress);
  });
  lifecycle.onClose("review", review);
  return config.endpoint ?? listening;
}

/** Calls again and again; returns how to stop. */
function clockwork(clock: Clock, everyMs: number, run: () => void): () => void {
  let timer = clock.after(everyMs, again, { background: true });
  function again(): void {
    timer = clock.after(everyMs, again, { background: true });
    run();
  }
  return () => timer.cancel();
}

async function listen(
  server: Server,
  address: Address,
  scheme: "http" | "https" = "http",
): Promise<string> {
  const { port } = await listenOn(server, address);
  const host = address.host.includes(":") ? `[${address.host}]` : address.host;
  return `${scheme}://${host}:${port}`;
}

/** Accepts nothing more; exchanges in flight may end within the grace, then they are cut. */
function closeServer(server: ReturnType<typeof createAdmin>, clock: Clock): Promise<void> {
  return new Promise((resolve) => {
    const cut = clock.after(graceMs, () => server.closeAllConnections());
    server.close(() => {
      cut.cancel();
      resolve();
    });
    server.closeIdleConnections();
  });
}
