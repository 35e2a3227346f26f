/**
 * The longer-lived parts of an agent, each made once by `agent.ts` and closed in reverse: connections
 * to the cell's database, measuring of tenants, the table, replicas, the conversation with the control plane.
 */
import pg from "pg";
import type { TableState } from "../../contract/table-state.ts";
import type { Clock } from "../../runtime/clock.ts";
import { createJsonClient } from "../../runtime/http-client.ts";
import type { Lifecycle } from "../../runtime/lifecycle.ts";
import { errorFields } from "../../runtime/log.ts";
import { startLoop } from "../../runtime/loop.ts";
import type { Random } from "../../runtime/random.ts";
import { readTenantSizes } from "../store/stats.ts";
import type { AgentConfig } from "./config.ts";
import type { DatabaseSession } from "./database-session.ts";
import type { AgentLog } from "./events.ts";
import { Purger } from "./purger.ts";
import { Questions } from "./questions.ts";
import { ReplicaWatch } from "./replica-watch.ts";
import type { RequestMeter } from "./request-meter.ts";
import { Sync, type SyncOptions } from "./sync.ts";
import { startTableFollower } from "./table-follower.ts";
import { TenantStats } from "./tenant-stats.ts";
import type { WorkerParts } from "./worker-pages.ts";

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

const statsEveryMs = 30_000;
const statementMs = 30_000;
const connectionsMax = 3;

export function createPool(options: AgentOptions, lifecycle: Lifecycle): pg.Pool {
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

/** What is known of the routing table, if the configuration asks for it. */
export async function followConfigured(
  options: AgentOptions,
  lifecycle: Lifecycle,
  onChange: (table: TableState) => void,
): Promise<WorkerParts["table"]> {
  const { config, token, clock, random, log } = options;
  if (config.table === undefined) return () => "off";
  const { cell, controlPlane } = config;
  const follower = await startTableFollower({
    ...{ cell, controlPlane, token, clock, random, log, onChange },
    ...config.table,
  });
  lifecycle.onClose("routing table", follower.close);
  return follower.view;
}

/** Undefined: no service has a replica, and nobody is asked for positions. */
export function watchReplicas(
  options: AgentOptions,
  session: DatabaseSession,
  lifecycle: Lifecycle,
): ReplicaWatch | undefined {
  const { config, clock, random, log, databaseUrl, replicaDatabaseUrls } = options;
  if (!config.services.some(({ replicas }) => replicas.length > 0)) return undefined;
  const watch = new ReplicaWatch({
    ...{ cell: config.cell, clock, random, log },
    primaryUrl: databaseUrl,
    systemIdentifier: () => session.facts()?.systemIdentifier,
    replicas: replicaDatabaseUrls ?? new Map(),
    lagMsMax: config.replicaLagMs,
  });
  lifecycle.onClose("replicas", () => watch.close());
  return watch;
}

export type Stats = { readonly numbers: TenantStats; readonly wake: () => void };

export function startStats(known: {
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

type SyncParts = Omit<
  SyncOptions,
  "clock" | "random" | "log" | "client" | "cell" | "controlPlane" | "purger" | "questions"
>;

/** The conversation with the control plane, and what it gives to do in the background. */
export function startSync(options: AgentOptions, parts: SyncParts, lifecycle: Lifecycle): Sync {
  const { config, clock, random, log, token, databaseUrl, queryDatabaseUrl } = options;
  const { cell, controlPlane } = config;
  const client = createJsonClient({
    origin: controlPlane.replace(/\/+$/, ""),
    token,
    unreachable: "CONTROL_PLANE_UNREACHABLE",
  });
  lifecycle.onClose("control plane client", client.close);
  const purger = new Purger({
    ...{ clock, random, log, databaseUrl },
    isPrimary: () => parts.session.primary(),
    onDone: () => sync.interrupt(),
  });
  lifecycle.onClose("purger", () => purger.close());
  const questions = new Questions({ cell, clock, log, client, databaseUrl: queryDatabaseUrl });
  lifecycle.onClose("questions", () => questions.close());
  const sync = new Sync({
    ...{ clock, random, log, client, cell, controlPlane, purger, questions },
    ...parts,
  });
  lifecycle.onClose("sync", () => sync.close());
  return sync;
}
