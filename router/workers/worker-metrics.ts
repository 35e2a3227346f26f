/** What the one page of metrics says of the workers, and how it is put together from theirs. */
import {
  type Counter,
  type Metrics,
  type MetricsDump,
  renderMetrics,
} from "../../runtime/metrics.ts";
import { deathReasons, type Member } from "./member.ts";
import { keepCounts } from "./worker-page.ts";
import { workerStates } from "./worker-state.ts";

export type WorkerMetrics = {
  readonly restarts: Counter;
  /** The counts of a worker that has ended. */
  readonly keep: (counts: MetricsDump) => void;
  /** Of the main thread, the workers that are and those that were. */
  readonly page: (members: readonly Member[]) => Promise<string>;
};

const name = (rest: string) => `cellfleet_router_${rest}`;

export function createWorkerMetrics(registry: Metrics): WorkerMetrics {
  const restarts = registry.counter(
    name("worker_restarts_total"),
    "Workers that were replaced, by reason.",
    [...deathReasons, "asked"].map((reason) => ({ reason })),
  );
  const missed = registry.counter(
    name("worker_pages_missed_total"),
    "Scrapes that a worker did not answer in time: its last counts stood in for it.",
    [{}],
  );
  let kept: MetricsDump = [];
  return {
    restarts,
    keep: (counts) => {
      kept = keepCounts(kept, counts);
    },
    page: async (members) => {
      const pages = await Promise.all(
        members.map(async (member) => {
          const counts = await member.count();
          if (counts === undefined && member.state !== "gone") missed.inc();
          return { member, counts };
        }),
      );
      // One that has ended meanwhile is among those that were.
      const alive = pages.filter(({ member }) => member.state !== "gone");
      const dumps = alive.map(({ member, counts }) => counts ?? member.lastCounts);
      return renderMetrics([registry.dump(), ...dumps, kept]);
    },
  };
}

export function addWorkerGauges(
  registry: Metrics,
  read: { readonly members: readonly Member[]; readonly settledRevision: number },
): void {
  registry.gaugeFrom(name("workers"), "Worker threads, by state.", () =>
    workerStates
      .filter((state) => state !== "gone")
      .map((state) => {
        const count = read.members.filter((member) => member.state === state).length;
        return [{ state }, count] as const;
      }),
  );
  registry.gaugeFrom(
    name("table_settled_revision"),
    "The oldest revision that any worker still serves by.",
    () => read.settledRevision,
  );
}
