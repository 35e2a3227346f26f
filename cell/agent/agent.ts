/**
 * One agent, put together: the gate in front of the application, the connection to the cell's
 * database, the conversation with the control plane. Several may stand in front of one cell.
 */
import type { Server } from "node:net";
import pg from "pg";
import type { Clock } from "../../runtime/clock.ts";
import { createJsonClient } from "../../runtime/http-client.ts";
import { createLifecycle, type Lifecycle } from "../../runtime/lifecycle.ts";
import { listenOn } from "../../runtime/listen.ts";
import { errorFields } from "../../runtime/log.ts";
import { startLoop } from "../../runtime/loop.ts";
import type { Random } from "../../runtime/random.ts";
import { readTenantSizes } from "../store/stats.ts";
import { type AgentParts, addGauges, createAdmin, createAgentMetrics } from "./admin.ts";
import { startAppProbe } from "./app-probe.ts";
import type { Address, AgentConfig } from "./config.ts";
import { DatabaseSession } from "./database-session.ts";
import type { AgentLog } from "./events.ts";
import { Gate } from "./gate.ts";
import type { GateView } from "./gate-decision.ts";
import { createIngress, type IngressOptions } from "./ingress.ts";
import { LeaseKeeper } from "./lease-keeper.ts";
import { OwnershipCache } from "./ownership-cache.ts";
import { RequestMeter } from "./request-meter.ts";
import { StageKeeper } from "./stage-keeper.ts";
import { Sync } from "./sync.ts";
import { TenantStats } from "./tenant-stats.ts";
import { createTunnels, isWebSocketUpgrade } from "./tunnel.ts";
import { Upstreams } from "./upstreams.ts";
import { WouldRefuse } from "./would-refuse.ts";

export type Agent = {
  /** As routers reach it. */
  readonly endpoint: string;
  readonly admin: string;
  readonly gate: Gate;
  /** Takes nothing new, waits for what is in flight, then ends. */
  readonly close: () => Promise<void>;
};

export type AgentOptions = {
  readonly config: AgentConfig;
  readonly databaseUrl: string;
  readonly token: string;
  /** Of a login that may only read; absent: operators' questions are refused. */
  readonly queryDatabaseUrl?: string;
  /** By their references in the configuration. */
  readonly replicaDatabaseUrls?: ReadonlyMap<string, string>;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: AgentLog;
};

/** Requests in flight have this long to end when the agent stops. */
const graceMs = 5000;
/** How often the lease's end and the tunnels are looked at between readings of the database. */
const reviewMs = 250;
const statsEveryMs = 30_000;
const statementMs = 30_000;
const connectionsMax = 3;

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
  const { config, clock, random, log } = options;
  const instance = `${config.cell}-${random.hex(4)}`;
  const pool = createPool(options, lifecycle);
  const cache = new OwnershipCache();
  const lease = new LeaseKeeper(clock, log);
  const gate = new Gate();
  const stage = new StageKeeper();
  const meter = new RequestMeter(clock.monotonicMs());
  let sync: Sync | undefined;
  let stats: Stats | undefined;
  let stopping = false;
  // Closed last of all, so that probes see the agent leave.
  let closeAdmin = async (): Promise<void> => {};
  lifecycle.onClose("admin", () => closeAdmin());

  const session = new DatabaseSession({
    ...{ clock, random, log, instance, cache, lease },
    cell: config.cell,
    databaseUrl: options.databaseUrl,
    onNews: () => {
      sync?.interrupt();
      stats?.wake();
    },
  });
  lifecycle.onClose("database session", () => session.close());
  stats = startStats({ options, pool, session, meter, lifecycle });
  const isFresh = () => cache.isFresh(clock.monotonicMs());
  const upstreams = new Upstreams(clock, config.services);
  lifecycle.onClose("upstreams", () => upstreams.close());
  const probe = startAppProbe({ clock, random, log, upstreams });
  lifecycle.onClose("probe", probe.close);

  const { metrics, requests, refusals, passedOver } = createAgentMetrics();
  const wouldRefuse = new WouldRefuse(passedOver);
  const ingress: IngressOptions = {
    ...{ clock, gate, upstreams },
    view: () => viewOf({ config, cache, lease, gate, stage, isFresh }),
    look: () => session.look(),
    onAdmitted: (keyspace, tenant) => meter.count(keyspace, tenant),
    onWouldRefuse: wouldRefuse.note,
    onDone: (status, code) => {
      requests.inc({ code_class: `${Math.floor(status / 100)}xx` });
      if (code !== undefined) refusals.inc({ code });
    },
  };
  const endpoint = await openGate(ingress, config, lifecycle, () => lease.tick());
  sync = createSync({
    options,
    instance,
    endpoint,
    pool,
    session,
    lease,
    stats: stats.numbers,
    lifecycle,
    appReachable: probe.reachable,
    services: upstreams.services,
  });
  const parts: AgentParts = {
    ...{ cell: config.cell, instance, gate, cache, lease, session, sync, probe, stage, isFresh },
    isStopping: () => stopping,
  };
  addGauges(metrics, parts);
  const adminServer = createAdmin(parts, metrics);
  const admin = await listen(adminServer, config.admin);
  closeAdmin = () => closeServer(adminServer, clock);
  log.event("agent.started", { cell: config.cell, instance, endpoint, admin });
  return {
    endpoint,
    admin,
    gate,
    close: async () => {
      stopping = true;
      await lifecycle.close();
      log.event("agent.stopped", { cell: config.cell });
    },
  };
}

function viewOf(known: {
  readonly config: AgentConfig;
  readonly cache: OwnershipCache;
  readonly lease: LeaseKeeper;
  readonly gate: Gate;
  readonly stage: StageKeeper;
  readonly isFresh: () => boolean;
}): GateView {
  return {
    cell: known.config.cell,
    stage: known.stage.now,
    leaseRemainingMs: known.lease.remainingMs(),
    fresh: known.isFresh(),
    placement: (key) => known.cache.get(key),
    closed: (key) => known.gate.isClosed(key),
  };
}

function createPool(options: AgentOptions, lifecycle: Lifecycle): pg.Pool {
  const pool = new pg.Pool({
    connectionString: options.databaseUrl,
    max: connectionsMax,
    connectionTimeoutMillis: 3000,
    idleTimeoutMillis: 30_000,
    statement_timeout: statementMs,
    query_timeout: statementMs + 5000,
    application_name: "cellfleet-agent",
  });
  // The session says when the database is lost; here it must only not end the process.
  pool.on("error", () => {});
  pool.on("connect", (client) => client.on("error", () => {}));
  lifecycle.onClose("pool", () => pool.end());
  return pool;
}

/** Returns the address for routers. */
async function openGate(
  ingress: IngressOptions,
  config: AgentConfig,
  lifecycle: Lifecycle,
  onReview: () => void,
): Promise<string> {
  const { clock } = ingress;
  const tunnels = createTunnels(ingress);
  const server = createIngress(ingress, isWebSocketUpgrade);
  server.on("upgrade", tunnels.serve);
  const listening = await listen(server, config.listen);
  lifecycle.onClose("gate", async () => {
    tunnels.close();
    await closeServer(server, clock);
  });
  const review = clockwork(clock, reviewMs, () => {
    onReview();
    tunnels.review();
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

type Stats = { readonly numbers: TenantStats; readonly wake: () => void };

function startStats(known: {
  readonly options: AgentOptions;
  readonly pool: pg.Pool;
  readonly session: DatabaseSession;
  readonly meter: RequestMeter;
  readonly lifecycle: Lifecycle;
}): Stats {
  const { options, pool, session, meter } = known;
  const { clock, random, log } = options;
  const numbers = new TenantStats();
  let troubled = false;
  const loop = startLoop({
    ...{ clock, random },
    intervalMs: statsEveryMs,
    backoffMaxMs: 4 * statsEveryMs,
    turn: async () => {
      // Only the primary reports, and what is not there cannot be measured.
      if (!session.primary()) return "idle";
      numbers.measure(await readTenantSizes(pool), meter.take(clock.monotonicMs()));
      troubled = false;
      return "idle";
    },
    onError: (error) => {
      if (!troubled) log.event("stats.failed", errorFields(error), "warn");
      troubled = true;
    },
  });
  known.lifecycle.onClose("stats", loop.close);
  return { numbers, wake: loop.wake };
}

function createSync(known: {
  readonly options: AgentOptions;
  readonly instance: string;
  readonly endpoint: string;
  readonly pool: pg.Pool;
  readonly session: DatabaseSession;
  readonly lease: LeaseKeeper;
  readonly stats: TenantStats;
  readonly lifecycle: Lifecycle;
  readonly appReachable: () => boolean;
  readonly services: readonly string[];
}): Sync {
  const { options, lifecycle, ...rest } = known;
  const { config, clock, random, log, token } = options;
  const client = createJsonClient({
    origin: config.controlPlane.replace(/\/+$/, ""),
    token,
    unreachable: "CONTROL_PLANE_UNREACHABLE",
  });
  lifecycle.onClose("control plane client", client.close);
  const sync = new Sync({
    ...{ clock, random, log, client, ...rest },
    cell: config.cell,
    controlPlane: config.controlPlane,
  });
  lifecycle.onClose("sync", () => sync.close());
  return sync;
}

async function listen(server: Server, address: Address): Promise<string> {
  const { port } = await listenOn(server, address);
  const host = address.host.includes(":") ? `[${address.host}]` : address.host;
  return `http://${host}:${port}`;
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
