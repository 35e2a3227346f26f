/**
 * Requests are carried by worker threads. This thread has what there is once: the table and the control
 * plane, the admin port, the router's keys, the log; it takes no connection of a client.
 */
import { systemClock } from "../../runtime/clock.ts";
import { createMetrics } from "../../runtime/metrics.ts";
import { systemRandom } from "../../runtime/random.ts";
import type { AdminOptions } from "../observe/admin.ts";
import { addGauges } from "../observe/gauges.ts";
import { createRouterMetrics } from "../observe/metrics.ts";
import { Remembered } from "../observe/remembered.ts";
import { Doubt } from "../place/doubt.ts";
import type { Plane, PlaneOptions } from "../plane.ts";
import { ackedLimits } from "../serving.ts";
import { createServedView } from "../table/served-view.ts";
import { createTrust } from "../trust/trust.ts";
import { createAckedOfAll } from "./acked-of-all.ts";
import { Conductor } from "./conductor.ts";
import { createCountsSum } from "./counts.ts";
import { prepareSockets } from "./listening-sockets.ts";
import { togetherRemembered } from "./remembered-by-all.ts";
import { shareOfConfig } from "./share.ts";
import { addWorkerGauges, createWorkerMetrics, type WorkerMetrics } from "./worker-metrics.ts";
import { spawnThread } from "./worker-port.ts";

export type WorkersPlaneOptions = PlaneOptions & {
  /** Whole lines of the workers' logs. */
  readonly write: (lines: string) => void;
  /** Where a worker's thread begins; for tests of threads that break. */
  readonly thread?: URL | undefined;
};

export function createWorkersPlane(options: WorkersPlaneOptions): Plane {
  const { config, log } = options;
  const { clock = systemClock, random = systemRandom } = options;
  const registry = createMetrics();
  const metrics = createRouterMetrics(registry);
  const trust = createTrust({ config, clock, random, log, registry, ownsKeys: true });
  const status: { draining: boolean; listening: boolean } = { draining: false, listening: false };
  const counts = createCountsSum();
  const doubt = new Doubt();
  const workerMetrics = createWorkerMetrics(registry);
  const acked = createAckedOfAll(ackedLimits(config), () => conductor.members);
  const sockets = prepareSockets(config);
  // Whoever opens the doors hears of it.
  sockets.catch(() => {});
  const conductor = new Conductor({
    ...{ clock, log, metrics: workerMetrics, spawn: spawnThread(options.thread) },
    workers: config.workers,
    // The delay is waited for once, here.
    config: { ...shareOfConfig(config), drainDelayMs: 0 },
    openDoors: async () => (await sockets).open(),
    onLines: options.write,
    onSeen: counts.add,
    onDoubt: doubt.tell,
    onAcked: acked.take,
  });
  const served = createServedView((view, delta) => {
    trust.follow(view.table);
    conductor.publish(view, delta);
    acked.follow(view.table);
  });
  return {
    status,
    registry,
    parts: {
      ...{ config, clock, random, log, metrics, served, trust, doubt },
      ...{ tally: counts.tally, wouldRefuse: counts.wouldRefuse, outcomes: counts.outcomes },
      settled: () => conductor.settled(),
      ackedBy: acked,
    },
    admin: adminOf(options, conductor, workerMetrics),
    prepare: async (lifecycle) => {
      lifecycle.onClose("trust", () => trust.close());
      await trust.open();
    },
    addGauges: ({ ageMs, storedRevision }) => {
      const table = () => served.view()?.table;
      addGauges({ ...carriesNothing, registry, table, ageMs, storedRevision });
      addWorkerGauges(registry, conductor);
    },
    open: async (lifecycle) => {
      const hurry = new AbortController();
      hurry.signal.addEventListener("abort", () => conductor.hurry());
      lifecycle.onClose("workers", async () => {
        if (status.listening) {
          status.draining = true;
          log.event("router.draining", { graceMs: config.drainMs });
          // As in a router of one thread: load balancers must have seen it first.
          if (config.drainDelayMs > 0) await clock.sleep(config.drainDelayMs, hurry.signal);
        }
        await conductor.close();
      });
      const { port } = await sockets;
      await conductor.start();
      status.listening = true;
      return {
        port: port("http") ?? 0,
        h2cPort: port("h2c"),
        tlsPort: port("tls"),
        reloadTls: async () => conductor.reload(),
        hurry: () => hurry.abort(),
        restart: () => conductor.restart(),
        failed: conductor.failed,
      };
    },
  };
}

/** The gauges of requests are the workers'. */
const carriesNothing = {
  hold: { heldByKey: () => new Map(), heldBytes: 0 },
  endpoints: { load: () => [] },
  remembered: { kept: () => [] },
  fanOuts: { running: 0 },
};

function adminOf(
  { config, clock = systemClock }: PlaneOptions,
  conductor: Conductor,
  metrics: WorkerMetrics,
): Pick<AdminOptions, "metrics" | "remembered" | "workers"> {
  const { explainRequestsMax: requestsMax, explainBytesMax: bytesMax } = config;
  // Of no worker: what is answered when none of them answers.
  const nothing = new Remembered({
    router: config.id,
    nowMs: clock.nowMs,
    limits: { requestsMax, bytesMax },
  });
  return {
    metrics: { text: () => metrics.page(conductor.members) },
    remembered: {
      find: async (requestId) => {
        const asked = conductor.members.map((member) => member.find(requestId));
        const [first, ...rest] = (await Promise.all(asked)).filter((one) => one !== undefined);
        return first === undefined ? nothing.find(requestId) : togetherRemembered(first, rest);
      },
    },
    workers: {
      list: () =>
        conductor.members.map(({ number: worker, state, revision }) => ({
          ...{ worker, state, revision },
        })),
      restart: () => {
        const begun = !conductor.restarting;
        void conductor.restart();
        return begun;
      },
    },
  };
}
