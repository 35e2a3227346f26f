/**
 * The room of failovers, assembled: the executor over the store, the standbys' streams, the provider of
 * processes and the report. What begins a failover is elsewhere: a row is enough.
 */
import type { Clock } from "../../../runtime/clock.ts";
import { createLog, type LogOptions } from "../../../runtime/log.ts";
import type { Random } from "../../../runtime/random.ts";
import { createStandby } from "../../../standby/kinds.ts";
import type { StandbyProvider } from "../../../standby/ports.ts";
import { poisonLimits } from "../../core/failover/poison.ts";
import { stopLimits } from "../../core/failover/stopped.ts";
import { waveLimits } from "../../core/failover/waves.ts";
import type { Database } from "../../store/database.ts";
import type { WakeHub } from "../../store/wake-hub.ts";
import type { Leadership } from "../lead.ts";
import { watchRouters } from "../moving/routers.ts";
import type { ResolveSecret } from "../moving/task.ts";
import type { Provider } from "../provider.ts";
import { buildPair } from "../standby/pair.ts";
import { standbyServers } from "../standby/servers.ts";
import { startAmending } from "./amend.ts";
import { type CanaryTarget, createCanary } from "./canary.ts";
import { createClockWatch } from "./clock-watch.ts";
import { startExecutor } from "./executor.ts";
import { makeRpoReport, type ReportEvents } from "./report.ts";
import { cutWayBack } from "./salvage-soak.ts";
import type { FailoverBoundary, FailoverEvents, FailoverPatience, FailoverWorld } from "./world.ts";

export const failoverPatience: FailoverPatience = {
  ...stopLimits,
  ...{ drainMs: 2000, annexMs: 10_000, serverMs: 60_000, ownMs: 1000, serveMs: 15_000 },
  ...{ canaryMs: 300, canaryMostMs: 2000, routeMs: 10_000, watchMs: 3000 },
  marksMs: 1500,
  waves: waveLimits,
  poison: poisonLimits,
};

export type FailingOptions = {
  readonly database: Database;
  readonly hub: WakeHub;
  readonly clock: Clock;
  readonly random: Random;
  readonly logTo: LogOptions;
  readonly lead: Pick<Leadership, "term">;
  readonly provider: Pick<Provider, "act" | "look">;
  /** In tests: in place of the one that reaches databases. */
  readonly standby?:
    | Pick<StandbyProvider, "status" | "sever" | "activate" | "open" | "own" | "own">
    | undefined;
  readonly resolve: ResolveSecret;
  /** Where canaries are sent; absent: nowhere. */
  readonly canary?: CanaryTarget | undefined;
  readonly patience?: Partial<FailoverPatience>;
  /** In tests: in place of what reads the adopters' databases. */
  readonly report?: FailoverWorld["report"];
  readonly pairOf?: FailoverWorld["pairOf"];
  readonly onBoundary?: FailoverBoundary | undefined;
  readonly onError: (error: unknown) => void;
};

export type Failing = {
  /** A router has acknowledged a revision, to this process. */
  readonly acknowledged: (router: string, revision: number) => void;
  readonly underWay: () => number;
  readonly wake: () => void;
  readonly close: () => Promise<void>;
};

export function startFailing(options: FailingOptions): Failing {
  const { database, hub, clock, random, resolve, provider } = options;
  const streams = createStandby({ clock, servers: standbyServers(provider) });
  const standby = options.standby ?? streams;
  const log = createLog<ReportEvents>(options.logTo);
  let listeningSinceMs = 0;
  const about = { database, clock, log, resolve };
  const routers = watchRouters({
    ...{ database, hub, clock },
    listeningSinceMs: () => listeningSinceMs,
  });
  const world: FailoverWorld = {
    ...{ database, hub, clock, random, provider, standby, routers },
    log: createLog<FailoverEvents>(options.logTo),
    pairOf:
      options.pairOf ??
      ((row) => {
        const buckets = { lo: row.bucketLo, hi: row.bucketHi };
        return buildPair(database.read, resolve, { ...row, buckets });
      }),
    cutWayBack: (move) => cutWayBack({ database, clock, resolve }, move),
    clockWatch: createClockWatch(clock, database.read),
    canary: createCanary({ database, clock, random, target: options.canary }),
    report: options.report ?? ((failover) => makeRpoReport(about, failover)),
    patience: { ...failoverPatience, ...options.patience },
    onBoundary: options.onBoundary,
  };
  const executor = startExecutor({
    ...{ world, lead: options.lead, onError: options.onError },
    onTerm: (sinceMs) => {
      listeningSinceMs = sinceMs;
    },
  });
  const amending =
    options.report === undefined
      ? startAmending({ world: about, random, lead: options.lead, onError: options.onError })
      : undefined;
  return {
    acknowledged: routers.heard,
    underWay: executor.underWay,
    wake: executor.wake,
    close: async () => {
      await amending?.close();
      await executor.close();
      await streams.close();
    },
  };
}
