/**
 * The control plane, assembled: database, publisher, API, admin port, and the loops that lead. Started in
 * order, stopped in reverse; several may run over one database.
 */
import { createServer } from "node:http";
import { getRequestListener, RequestError } from "@hono/node-server";
import { CellError } from "../contract/errors.ts";
import type { FailoverPolicy } from "../contract/failover-api.ts";
import type { LeaseMode } from "../contract/lease-mode.ts";
import type { StandbyProviderName } from "../contract/standby-api.ts";
import type { Clock } from "../runtime/clock.ts";
import { createLifecycle } from "../runtime/lifecycle.ts";
import { createLog, errorFields, type LogOptions } from "../runtime/log.ts";
import { createMetrics } from "../runtime/metrics.ts";
import type { Random } from "../runtime/random.ts";
import { resolveSecret } from "../runtime/secret-ref.ts";
import type { Signer } from "../runtime/signing.ts";
import { type Check, createAdminServer } from "./admin.ts";
import { hashSecret } from "./api/auth.ts";
import type { ApiContext, ApiEvents, ApiSettings } from "./api/context.ts";
import { pairTokens, promiseMsDefault } from "./api/machine-standby.ts";
import { rescue } from "./api/rescue.ts";
import { createApp } from "./app.ts";
import type { Address } from "./config.ts";
import type { FleetSnapshot } from "./core/fleet.ts";
import { controlEndpoints } from "./endpoints.ts";
import { listen } from "./listening.ts";
import { showFleet } from "./metrics.ts";
import { watchPropagation } from "./route-propagation.ts";
import { ensureBootstrapToken } from "./store/bootstrap-token.ts";
import { openDatabase, prepareDatabase } from "./store/database.ts";
import { channels, startListener } from "./store/notify.ts";
import { createWakeHub } from "./store/wake-hub.ts";
import { startBalancing } from "./work/balancing/balancer.ts";
import type { CanaryTarget } from "./work/failover/canary.ts";
import { startSalvaging } from "./work/failover/salvage.ts";
import { startFailing } from "./work/failover/start.ts";
import { startWatching, type WatchEvents } from "./work/failover/watch.ts";
import { showFailovers } from "./work/failover/watch-metrics.ts";
import type { FailoverBoundary } from "./work/failover/world.ts";
import { startHousekeeping } from "./work/housekeeping.ts";
import { startJudging } from "./work/judge-health.ts";
import { startLeading } from "./work/lead.ts";
import { startMoving } from "./work/moving/start.ts";
import type { MoveBoundary } from "./work/moving/world.ts";
import { paced } from "./work/pace.ts";
import { createProvider, noProvider, type Provider } from "./work/provider.ts";
import { type Publisher, startPublisher } from "./work/publish.ts";
import { type ReconcileEvents, startReconciling } from "./work/reconcile.ts";
import { checkIncarnation, startRecovery } from "./work/recovery.ts";
import { startBudgeting } from "./work/slo.ts";
import { startStandbys } from "./work/standby/start.ts";

type ProcessEvents = {
  "process.started": { listen: string; admin: string; instance: string; fleet: string };
  "process.stopped": { instance: string };
  "leader.changed": { term: number | null };
  "recovery.stepped": { text: string };
  "trouble.met": { where: string; error: string };
};

export type ControlPlaneOptions = {
  readonly listen: Address;
  readonly admin: Address;
  readonly databaseUrl: string;
  readonly connections: number;
  readonly signer: Signer;
  readonly provider: { readonly url: string; readonly token: string } | undefined;
  readonly bootstrapToken: string | undefined;
  readonly leaseTtlMs: number;
  /** How leases of a new cell end; absent: `timed`. */
  readonly leaseMode?: LeaseMode;
  readonly instance: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly logTo: LogOptions;
  /** Awaited before and after the effect of each step of a move; crash tests stand still there. */
  readonly onMoveBoundary?: MoveBoundary;
  /** The same, of each step of a failover. */
  readonly onFailoverBoundary?: FailoverBoundary;
  /** What a reference to a secret stands for: logins of cells' databases, for moves. Default: no `env:`. */
  readonly resolveSecret?: (reference: string) => Promise<string>;
  /** How long partners promise a cell that has lost this control plane. Default 20 minutes. */
  readonly promiseMs?: number;
  /** Partners that keep each cell's standbys. Default 0: none, and those that stand leave. */
  readonly standbyPartners?: number;
  /** How standbys that are made from now on are kept. Default `logical`. */
  readonly standby?: StandbyProviderName;
  /** The application is kept running at standbys that are ready. Absent: only once they serve. */
  readonly warmStandbys?: boolean;
  /** What becomes of answers of tier gold while their partner is away. Default `refuse`. */
  readonly goldOnPartnerLoss?: "refuse" | "degrade";
  /** Hooks of stores may be commands, which run with this process's rights. Default false. */
  readonly allowHookCommands?: boolean;
  /** What is done about a cell that is gone, where nobody has said otherwise at runtime. Default `suggest`. */
  readonly failover?: FailoverPolicy;
  /** Where canaries are sent after a takeover; absent: nowhere. */
  readonly canary?: CanaryTarget | undefined;
};

export type ControlPlane = {
  readonly url: string;
  readonly adminUrl: string;
  /** What the last turn of the loop came to. */
  readonly sentence: () => string;
  readonly leads: () => boolean;
  readonly close: () => Promise<void>;
};

const graceMs = 5000;
const policyDefault: FailoverPolicy = "suggest";
/** A cell that lives has reported within it, however short its lease: nobody recovers without it before. */
const reportMsMin = 20_000;
/** Between two readings of the routing log while changes come in bulk. */
const publishGapMs = 25;

export async function startControlPlane(options: ControlPlaneOptions): Promise<ControlPlane> {
  const { clock, random, instance } = options;
  const log = createLog<ProcessEvents>(options.logTo);
  const trouble = (where: string) => (error: unknown) =>
    log.event("trouble.met", { where, error: "", ...errorFields(error) }, "warn");
  const lifecycle = createLifecycle({
    clock,
    graceMs,
    onTrouble: (name, error) => trouble(`stopping ${name}`)(error),
  });
  try {
    const database = openDatabase({
      url: options.databaseUrl,
      connectionsMax: options.connections,
      onConnectionError: trouble("database connection"),
    });
    lifecycle.onClose("database", database.close);
    await prepareDatabase(database, random);
    await welcomeAdmin(options, database);
    const recovery = {
      ...{ database, clock, random, leaseTtlMs: Math.max(options.leaseTtlMs, reportMsMin) },
      onError: trouble("recovery"),
      onStep: ({ text }: { readonly text: string }) => log.event("recovery.stepped", { text }),
    };
    await checkIncarnation(recovery);

    const metrics = createMetrics();
    const hub = createWakeHub(clock);
    const settings = settingsOf(options);
    const propagation = watchPropagation(metrics, clock.monotonicMs);
    const base: ApiContext = {
      ...{ database, hub, clock, random, metrics, settings },
      ...{ log: createLog<ApiEvents>(options.logTo), onAcknowledged: propagation.acknowledged },
    };
    const publisher = startPublisher({
      ...{ database, clock, random, signer: options.signer },
      onError: trouble("publisher"),
      onPublished: ({ revision }) => propagation.published(revision),
    });
    lifecycle.onClose("publisher", publisher.close);

    const loops = startLoops(options, { context: base, trouble });
    lifecycle.onClose("loops", loops.close);
    const context: ApiContext = { ...base, ...loops.forApi };
    const recovering = startRecovery(recovery);
    lifecycle.onClose("recovery", recovering.close);
    const published = paced(clock, publishGapMs, publisher.wake);
    lifecycle.onClose("pace", published.close);
    const listener = startListener({
      url: options.databaseUrl,
      clock,
      onWake: (channel, topic) => {
        hub.wake(channel, topic);
        if (channel === channels.revision) published.call();
        if (channel !== channels.event && channel !== channels.query) loops.wake();
      },
      onError: trouble("notifications"),
    });
    lifecycle.onClose("listener", listener.close);

    const app = createApp(context, controlEndpoints(context, publisher));
    const api = await listen(
      createServer(getRequestListener(app.fetch, { errorHandler: refuseRequest })),
      options.listen,
    );
    lifecycle.onClose("api", api.close);
    const checks = () => readyChecks(publisher, loops.sentence());
    const admin = await listen(createAdminServer({ metrics, checks }), options.admin);
    lifecycle.onClose("admin", admin.close);
    const started = { listen: api.url, admin: admin.url, instance, fleet: publisher.fleet() };
    log.event("process.started", started);
    return {
      url: api.url,
      adminUrl: admin.url,
      sentence: loops.sentence,
      leads: loops.leads,
      close: async () => {
        await lifecycle.close();
        log.event("process.stopped", { instance });
      },
    };
  } catch (error) {
    await lifecycle.close();
    throw error;
  }
}

const settingsOf = ({
  instance,
  leaseTtlMs,
  leaseMode = "timed",
  provider,
  failover = policyDefault,
  standbyPartners = 0,
  goldOnPartnerLoss = "refuse",
  signer,
  promiseMs = promiseMsDefault,
}: ControlPlaneOptions): ApiSettings => ({
  ...{ instance, leaseTtlMs, leaseMode, failover, standbyPartners, goldOnPartnerLoss },
  standbys: { pairToken: pairTokens(signer), promiseMs },
  providers: provider === undefined ? [] : ["local"],
});

const readyChecks = (publisher: Publisher, sentence: string): readonly Check[] => [
  { name: "routing-table", ok: publisher.isReady(), text: `revision ${publisher.revision()}` },
  { name: "loop", ok: true, text: sentence },
];

/** What is no request at all: a Host header that is none, a target that is no address. */
const refuseRequest = (error: unknown): Response =>
  rescue(
    error instanceof RequestError ? new CellError("REQUEST_INVALID", error.message) : error,
    "",
  );

async function welcomeAdmin(
  options: ControlPlaneOptions,
  database: ReturnType<typeof openDatabase>,
): Promise<void> {
  if (options.bootstrapToken === undefined) return;
  const id = `tok-${options.random.hex(6)}`;
  const hash = hashSecret(options.bootstrapToken);
  await ensureBootstrapToken(database, { id, hash }, options.clock.nowMs());
}

/** What only the leader does; every process runs them, and they stand still where it does not lead. */
function startLoops(
  options: ControlPlaneOptions,
  shared: {
    readonly context: ApiContext;
    readonly trouble: (where: string) => (error: unknown) => void;
  },
) {
  const { clock, random, instance } = options;
  const log = createLog<ProcessEvents>(options.logTo);
  const { trouble, context } = shared;
  const { database, metrics } = context;
  let fleet: FleetSnapshot | undefined;
  // Connections of its own: renewing the seat must not wait behind anybody's requests.
  const seat = openDatabase({
    url: options.databaseUrl,
    connectionsMax: 2,
    onConnectionError: trouble("leader's connection"),
  });
  const lead = startLeading({
    ...{ database: seat, clock, random, instance },
    onChange: (term) => {
      log.event("leader.changed", { term: term ?? null });
      reconciler?.wake();
      moving?.wake();
      further?.onLead();
    },
    onError: trouble("leader's seat"),
  });
  const provider = options.provider === undefined ? noProvider : createProvider(options.provider);
  const reconciler: ReturnType<typeof startReconciling> | undefined = startReconciling({
    ...{ database, clock, random, lead, provider },
    log: createLog<ReconcileEvents>(options.logTo),
    onError: trouble("reconcile"),
    onFleet: (seen) => {
      fleet = seen;
    },
  });
  const health = startJudging({
    ...{ database, clock, random, lead },
    onError: trouble("health"),
    onVerdict: () => reconciler?.wake(),
  });
  const housekeeping = startHousekeeping({
    ...{ database, clock, random, lead },
    onError: trouble("housekeeping"),
  });
  const moving: ReturnType<typeof startMoving> | undefined = startMoving({
    ...{ database, clock, random, metrics, lead, hub: context.hub, logTo: options.logTo },
    resolve: options.resolveSecret ?? ((reference) => resolveSecret(reference, {})),
    allowHookCommands: options.allowHookCommands ?? false,
    onBoundary: options.onMoveBoundary,
    onError: trouble("moves"),
  });
  const further: ReturnType<typeof startFurther> | undefined = startFurther(options, {
    ...{ context, trouble, lead, provider },
  });
  showFleet(metrics, { fleet: () => fleet, term: lead.term });
  return {
    forApi: {
      lookAtMove: moving.look,
      onAcknowledged: (router: string, revision: number) => {
        context.onAcknowledged?.(router, revision);
        moving.acknowledged(router, revision);
        further.acknowledged(router, revision);
      },
    },
    wake: () => {
      reconciler.wake();
      moving.wake();
      further.wake();
    },
    sentence: reconciler.sentence,
    leads: () => lead.term() !== undefined,
    close: async () => {
      await Promise.all([
        ...[reconciler.close(), health.close(), housekeeping.close()],
        ...[moving.close(), further.close()],
      ]);
      await lead.close();
      await seat.close();
      await provider.close();
    },
  };
}

/** Standbys, detection, and what follows a failover. */
function startFurther(
  options: ControlPlaneOptions,
  shared: {
    readonly context: ApiContext;
    readonly trouble: (where: string) => (error: unknown) => void;
    readonly lead: ReturnType<typeof startLeading>;
    readonly provider: Provider;
  },
) {
  const { clock, random } = options;
  const { trouble, lead, provider } = shared;
  const { database, metrics } = shared.context;
  const resolve = options.resolveSecret ?? ((reference: string) => resolveSecret(reference, {}));
  const standbys = startStandbys({
    ...{ database, clock, random, lead, provider, metrics, resolve },
    ...{ partners: options.standbyPartners ?? 0, kind: options.standby ?? "logical" },
    warm: options.warmStandbys ?? false,
    onError: trouble("standbys"),
  });
  const salvaging = startSalvaging({
    ...{ database, clock, random, lead, provider, resolve, logTo: options.logTo },
    onError: trouble("salvage"),
  });
  const failing = startFailing({
    ...{ database, clock, random, lead, provider, resolve, logTo: options.logTo },
    hub: shared.context.hub,
    canary: options.canary,
    onBoundary: options.onFailoverBoundary,
    onError: trouble("failovers"),
  });
  const watching = startWatching({
    ...{ database, clock, random, lead, policy: options.failover ?? policyDefault },
    log: createLog<WatchEvents>(options.logTo),
    onError: trouble("detection"),
    onWatched: showFailovers(metrics),
  });
  const balancing = startBalancing({
    ...{ database, clock, random, lead },
    onError: trouble("drains and rebalances"),
  });
  const budgeting = startBudgeting({
    ...{ database, clock, random, lead, metrics },
    onError: trouble("error budgets"),
  });
  return {
    onLead: () => {
      standbys.wake();
      failing.wake();
    },
    acknowledged: failing.acknowledged,
    wake: () => {
      salvaging.wake();
      failing.wake();
    },
    close: async () => {
      await failing.close();
      await Promise.all(
        [standbys, watching, salvaging, balancing, budgeting].map((one) => one.close()),
      );
    },
  };
}
