/**
 * What carries requests: this thread, or its workers. A router has one of them beside its table and its
 * admin port, which do not know which.
 */
import type { Clock } from "../runtime/clock.ts";
import type { Lifecycle } from "../runtime/lifecycle.ts";
import type { Log } from "../runtime/log.ts";
import type { Metrics } from "../runtime/metrics.ts";
import type { Random } from "../runtime/random.ts";
import type { RouterConfig } from "./config.ts";
import type { AdminOptions } from "./observe/admin.ts";
import type { RouterEvents } from "./observe/events.ts";
import { addGauges } from "./observe/gauges.ts";
import type { Doubt } from "./place/doubt.ts";
import { createServing, openDoors } from "./serving.ts";
import type { OpenedTable, TableParts } from "./table/open-table.ts";

export type PlaneOptions = {
  readonly config: RouterConfig;
  readonly log: Log<RouterEvents>;
  readonly clock?: Clock;
  readonly random?: Random;
};

export type Plane = {
  readonly status: { draining: boolean; listening: boolean };
  readonly registry: Metrics;
  readonly parts: Omit<TableParts, "token"> & {
    readonly trust: { readonly ready: () => boolean };
    readonly doubt: Pick<Doubt, "follow">;
  };
  readonly admin: Pick<AdminOptions, "metrics" | "remembered" | "workers">;
  /** Before the table is opened. */
  readonly prepare: (lifecycle: Lifecycle) => Promise<void>;
  readonly addGauges: (table: OpenedTable) => void;
  /** From here on requests come. The lifecycle closes what is opened, the doors first. */
  readonly open: (lifecycle: Lifecycle) => Promise<PlaneDoors>;
};

export type PlaneDoors = {
  readonly port: number;
  readonly h2cPort: number | undefined;
  readonly tlsPort: number | undefined;
  /** Reads the certificates again. */
  readonly reloadTls: () => Promise<void>;
  /** Ends a drain that runs, or will: what is open is cut. */
  readonly hurry: () => void;
  /** Replaces the workers; undefined: there are none. False: one could not be replaced, and serves on. */
  readonly restart: (() => Promise<boolean>) | undefined;
  /** Resolves when requests cannot be carried any more. */
  readonly failed: Promise<Error>;
};

export function createThreadPlane(options: PlaneOptions): Plane {
  const serving = createServing(options);
  const { status, registry, served, remembered, endpoints, trust } = serving;
  return {
    status,
    registry,
    parts: {
      ...serving,
      ackedBy: { listsOf: async (cell) => [serving.acked.list(cell)], onLost: () => {} },
    },
    admin: { metrics: registry, remembered },
    prepare: async (lifecycle) => {
      lifecycle.onClose("endpoints", () => endpoints.close());
      lifecycle.onClose("trust", () => trust.close());
      await trust.open();
    },
    addGauges: ({ ageMs, storedRevision }) =>
      addGauges({ ...serving, table: () => served.view()?.table, ageMs, storedRevision }),
    open: async (lifecycle) => {
      const doors = await openDoors(serving, lifecycle);
      return { ...doors, restart: undefined, failed: new Promise<never>(() => {}) };
    },
  };
}
