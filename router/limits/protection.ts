/**
 * Puts together what keeps one endpoint, cell or tenant from hurting the others: endpoints with their
 * breakers, bulkheads of cells, limits of tenants, the router's own load.
 */
import { lookup } from "node:dns/promises";
import type { TableState } from "../../contract/table-state.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { EndpointTlsSource } from "../../runtime/http/endpoint-tls.ts";
import type { Log } from "../../runtime/log.ts";
import type { Random } from "../../runtime/random.ts";
import { CellGuards } from "../cells/cell-guards.ts";
import { Endpoints } from "../cells/endpoints.ts";
import { type Lookup, Names } from "../cells/names.ts";
import { Probes } from "../cells/probes.ts";
import type { RouterConfig } from "../config.ts";
import type { RouterEvents } from "../observe/events.ts";
import { globalTarget, type RouterMetrics } from "../observe/metrics.ts";
import { Overload } from "./overload.ts";
import type { LimitsContext } from "./stay.ts";
import { TenantLimits } from "./tenant-limits.ts";

export type ProtectionOptions = {
  readonly config: RouterConfig;
  readonly clock: Clock;
  readonly random: Random;
  readonly metrics: RouterMetrics;
  readonly log: Log<RouterEvents>;
  /** For endpoints that are `https:`. */
  readonly tls: EndpointTlsSource;
  /** Default: as the system does, also from its file of hosts. */
  readonly lookup?: Lookup;
};

/** Of all seats of an endpoint or a cell, an eighth is out of reach for greedy tenants. */
const reserveOf = (seats: number): number => Math.floor(seats / 8);

export function createProtection(options: ProtectionOptions) {
  const { config, clock, random, metrics, tls } = options;
  const { connectionsMax, pendingMax, queueMs, connectMs } = config;
  const limits = {
    ...{ connectionsMax, pendingMax, queueMs, connectMs },
    reserve: reserveOf(connectionsMax),
  };
  const cellOf = new Map<string, string>();
  const names = new Names({
    ...{ clock, random, intervalMs: config.dnsMs },
    lookup: options.lookup ?? ((host) => lookup(host, { all: true })),
    onFailed: () => metrics.dnsFailures.inc(),
    onChange: () => endpoints.refresh(),
  });
  const endpoints: Endpoints = new Endpoints({
    addressesOf: (url) => names.addressesOf(url),
    ...{ clock, random, limits, tls },
    onEjection: (url, reason) =>
      metrics.ejections.inc({ cell: cellOf.get(url) ?? globalTarget, reason }),
  });
  const { cellInflightMax, cellPendingMax } = config;
  const cells = new CellGuards(clock, {
    inFlightMax: cellInflightMax,
    pendingMax: cellPendingMax,
    queueMs,
    reserve: reserveOf(cellInflightMax),
  });
  const probeLimits = { intervalMs: config.probeMs, timeoutMs: config.probeTimeoutMs };
  const probes = new Probes({ clock, random, endpoints, limits: probeLimits });
  endpoints.beforeClose(async () => names.close());
  endpoints.beforeClose(() => probes.close());
  const limitsContext = createLimits(options);
  return {
    endpoints,
    cells,
    limits: limitsContext,
    follow: (table: TableState): void => {
      names.follow(table.lists);
      endpoints.follow(table);
      cells.follow(table);
      probes.follow(table);
      limitsContext.tenants.follow(table.lists.policy);
      cellOf.clear();
      for (const { id, services } of table.lists.cells) {
        for (const { endpoints: urls } of Object.values(services)) {
          for (const url of urls) cellOf.set(url, id);
        }
      }
    },
  };
}

function createLimits({ config, clock, random, metrics, log }: ProtectionOptions): LimitsContext {
  const tenants = new TenantLimits(clock.monotonicMs, config.tenantInflightMax, config.workers);
  const overload = new Overload(
    clock,
    { inFlightMax: config.inflightMax, lateMs: config.shedLateMs },
    ({ kind, ...seen }) => log.event(`shedding.${kind}`, seen, kind === "began" ? "warn" : "info"),
  );
  return { clock, random, metrics, tenants, overload, deadlineMs: config.deadlineMs };
}
