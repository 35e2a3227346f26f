/**
 * How long a change of the table takes to be served: from its publication by this process until each router
 * acknowledged it. A router that begins to call is not judged by what came before.
 */
import type { Metrics } from "../runtime/metrics.ts";

export type Propagation = {
  readonly published: (revision: number) => void;
  readonly acknowledged: (router: string, revision: number) => void;
};

/** Publications remembered; a router that is further behind is counted from there. */
const publishedMax = 512;
const routersMax = 1000;
const buckets = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300] as const;

export function watchPropagation(metrics: Metrics, monotonicMs: () => number): Propagation {
  const seconds = metrics.histogram(
    "cellfleet_control_plane_route_propagation_seconds",
    "From the publication of a revision until a router acknowledged it, per router.",
    buckets,
  );
  const child = seconds.with({});
  /** In rising order of revision. */
  const published: { readonly revision: number; readonly atMs: number }[] = [];
  const served = new Map<string, number>();
  return {
    published: (revision) => {
      published.push({ revision, atMs: monotonicMs() });
      if (published.length > publishedMax) published.shift();
    },
    acknowledged: (router, revision) => {
      const before = served.get(router);
      if (before !== undefined && revision <= before) return;
      if (before === undefined && served.size >= routersMax) served.clear();
      served.set(router, revision);
      if (before === undefined) return;
      const nowMs = monotonicMs();
      for (const one of published) {
        if (one.revision > before && one.revision <= revision) {
          child.observe((nowMs - one.atMs) / 1000);
        }
      }
    },
  };
}
