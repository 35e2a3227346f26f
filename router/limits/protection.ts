/**
 * Puts together what keeps one endpoint, cell or tenant from hurting the others: endpoints with their
 * breakers, bulkheads of cells.
 */
import type { TableState } from "../../contract/table-state.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { EndpointTlsSource } from "../../runtime/http/endpoint.ts";
import type { Random } from "../../runtime/random.ts";
import { CellGuards } from "../cells/cell-guards.ts";
import { Endpoints } from "../cells/endpoints.ts";
import type { RouterConfig } from "../config.ts";
import type { RouterMetrics } from "../observe/metrics.ts";

export type ProtectionOptions = {
  readonly config: RouterConfig;
  readonly clock: Clock;
  readonly random: Random;
  readonly metrics: RouterMetrics;
  /** For endpoints that are `https:`. */
  readonly tls: EndpointTlsSource;
};

/** Of all seats of an endpoint or a cell, an eighth is out of reach for greedy tenants. */
const reserveOf = (seats: number): number => Math.floor(seats / 8);

export function createProtection({ config, clock, random, tls }: ProtectionOptions) {
  const { connectionsMax, pendingMax, queueMs, connectMs } = config;
  const limits = {
    ...{ connectionsMax, pendingMax, queueMs, connectMs },
    reserve: reserveOf(connectionsMax),
  };
  const endpoints = new Endpoints({ clock, random, limits, tls });
  const { cellInflightMax, cellPendingMax } = config;
  const cells = new CellGuards(clock, {
    inFlightMax: cellInflightMax,
    pendingMax: cellPendingMax,
    queueMs,
    reserve: reserveOf(cellInflightMax),
  });
  return {
    endpoints,
    cells,
    follow: (table: TableState): void => {
      endpoints.follow(table);
      cells.follow(table);
    },
  };
}
