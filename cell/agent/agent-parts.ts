/**
 * The longer-lived parts of an agent, each made once by `agent.ts` and closed in reverse:
 * measuring of tenants, the table, replicas, the conversation with the control plane.
 */
import type { TableState } from "../../contract/table-state.ts";
import type { Clock } from "../../runtime/clock.ts";
import { createJsonClient } from "../../runtime/http-client.ts";
import type { Lifecycle } from "../../runtime/lifecycle.ts";
import { errorFields } from "../../runtime/log.ts";
import { startLoop } from "../../runtime/loop.ts";
import type { Random } from "../../runtime/random.ts";
import type { AgentConfig } from "./config.ts";
import type { AgentLog } from "./events.ts";
import { Questions } from "./questions.ts";
import { ReplicaWatch } from "./replica-watch.ts";
import type { RequestMeter } from "./request-meter.ts";
import type { Stores } from "./stores/stores.ts";
import { Sync, type SyncOptions } from "./sync.ts";
import { startTableFollower } from "./table-follower.ts";
import { TenantStats } from "./tenant-stats.ts";
import type { WorkerParts } from "./worker-pages.ts";

export type AgentOptions = {
  readonly config: AgentConfig;
  readonly databaseUrl: string;
  /** Of the further stores, by their names in the configuration. */
  readonly storeDatabaseUrls?: ReadonlyMap<string, string>;
  readonly token: string;
  /** Of a login that may only read; absent: operators' questions are refused. */
  readonly queryDatabaseUrl?: string;
  /** Where the server of this annex's physical standby is now; absent: it is no annex of that kind. */
  readonly standbyServer?: (() => Promise<string>) | undefined;
  /** By their references in the configuration. */
  readonly replicaDatabaseUrls?: ReadonlyMap<string, string>;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: AgentLog;
};

const statsEveryMs = 30_000;
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
  stores: Stores,
  lifecycle: Lifecycle,
): ReplicaWatch | undefined {
  const { config, clock, random, log, databaseUrl, replicaDatabaseUrls } = options;
  if (!config.services.some(({ replicas }) => replicas.length > 0)) return undefined;
  const watch = new ReplicaWatch({
    ...{ cell: config.cell, clock, random, log },
    primaryUrl: databaseUrl,
    systemIdentifier: () => stores.first.session.facts()?.systemIdentifier,
    replicas: replicaDatabaseUrls ?? new Map(),
    lagMsMax: config.replicaLagMs,
  });
  lifecycle.onClose("replicas", () => watch.close());
  return watch;
}

export type Stats = { readonly numbers: TenantStats; readonly wake: () => void };

export function startStats(known: {
  readonly options: AgentOptions;
  readonly stores: Stores;
  readonly meter: RequestMeter;
  readonly lifecycle: Lifecycle;
}): Stats {
  const { options, stores, meter } = known;
  const { clock, random, log } = options;
  const numbers = new TenantStats();
  let troubled = false;
  const loop = startLoop({
    ...{ clock, random },
    intervalMs: statsEveryMs,
    backoffMaxMs: 4 * statsEveryMs,
    turn: async () => {
      // Only the primary reports, and what is not there cannot be measured.
      if (!stores.primary()) return "idle";
      numbers.measure(await stores.readTenantSizes(), meter.take(clock.monotonicMs()));
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
  "clock" | "random" | "log" | "client" | "cell" | "controlPlane" | "questions"
>;

/** The conversation with the control plane, and what it gives to do in the background. */
export function startSync(options: AgentOptions, parts: SyncParts, lifecycle: Lifecycle): Sync {
  const { config, clock, random, log, token, queryDatabaseUrl } = options;
  const { cell, controlPlane } = config;
  const client = createJsonClient({
    origin: controlPlane.replace(/\/+$/, ""),
    token,
    unreachable: "CONTROL_PLANE_UNREACHABLE",
  });
  lifecycle.onClose("control plane client", client.close);
  const questions = new Questions({ cell, clock, log, client, databaseUrl: queryDatabaseUrl });
  lifecycle.onClose("questions", () => questions.close());
  const sync = new Sync({
    ...{ clock, random, log, client, cell, controlPlane, questions },
    ...parts,
  });
  lifecycle.onClose("sync", () => sync.close());
  return sync;
}
