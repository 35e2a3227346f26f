/** What the limits did, as counters, and what stands behind them now, as gauges: by cell and endpoint, never by tenant. */
import { type Priority, priorities } from "../../contract/service-route.ts";
import type { TableState } from "../../contract/table-state.ts";
import type { Counter, Labels, Metrics } from "../../runtime/metrics.ts";
import type { BreakerState } from "../cells/breaker.ts";
import type { CellGuards } from "../cells/cell-guards.ts";
import type { Endpoints, EndpointView } from "../cells/endpoints.ts";
import type { Overload } from "../limits/overload.ts";
import { type TenantLimits, tenantLimitReasons } from "../limits/tenant-limits.ts";

export type LimitMetrics = {
  readonly ejections: Counter;
  readonly retryBudgetExhausted: Counter;
  readonly tenantLimited: Counter;
  readonly shed: Counter;
  readonly deadlineExceeded: Counter;
  readonly dnsFailures: Counter;
};

const name = (rest: string) => `cellfleet_router_${rest}`;

export const createLimitMetrics = (metrics: Metrics): LimitMetrics => ({
  ejections: metrics.counter(
    name("ejections_total"),
    "Endpoints passed over because of what their requests ran into, by cell and reason.",
  ),
  retryBudgetExhausted: metrics.counter(
    name("retry_budget_exhausted_total"),
    "Second attempts that were not made because the cell's budget for them was spent.",
  ),
  tenantLimited: metrics.counter(
    name("tenant_limited_total"),
    "Requests refused because their tenant has its share, by reason.",
    tenantLimitReasons.map((reason) => ({ reason })),
  ),
  shed: metrics.counter(
    name("shed_total"),
    "Requests refused because the router had too much to do, by priority.",
    priorities.map((priority: Priority) => ({ priority })),
  ),
  dnsFailures: metrics.counter(
    name("dns_failures_total"),
    "Questions for the addresses of an endpoint's name without an answer; the last answer stands.",
    [{}],
  ),
  deadlineExceeded: metrics.counter(
    name("deadline_exceeded_total"),
    "Requests whose deadline was over before an answer came.",
    [{}],
  ),
});

export type LimitGauged = {
  readonly registry: Metrics;
  readonly endpoints: Pick<Endpoints, "load">;
  readonly cells: Pick<CellGuards, "load">;
  readonly overload: Pick<Overload, "inFlight" | "level" | "lateMs">;
  readonly tenants: Pick<TenantLimits, "size">;
  readonly table: () => TableState | undefined;
};

type Row = readonly [Labels, number];
const breakerValue: Readonly<Record<BreakerState, number>> = { closed: 0, "half-open": 1, open: 2 };

export function addLimitGauges({
  registry,
  endpoints,
  cells,
  overload,
  tenants,
  table,
}: LimitGauged) {
  const byEndpoint = (read: (view: EndpointView) => number) => () =>
    endpointRows(table(), endpoints.load(), read);
  registry.gaugeFrom(
    name("endpoint_up"),
    "1 while requests are sent to the endpoint as to any other; 0 while it is passed over.",
    byEndpoint(({ standing }) => (standing === "usable" || standing === "suspect" ? 1 : 0)),
    "max",
  );
  registry.gaugeFrom(
    name("breaker_state"),
    "Of an endpoint: 0 closed, 1 half-open, 2 open.",
    byEndpoint(({ breaker }) => breakerValue[breaker]),
    "max",
  );
  registry.gaugeFrom(name("cell_inflight_requests"), "Requests of a cell under way here.", () =>
    cells.load().map(({ cell, inFlight }): Row => [{ cell }, inFlight]),
  );
  registry.gaugeFrom(
    name("cell_pending_requests"),
    "Requests that wait because their cell has as many under way as it may.",
    () => cells.load().map(({ cell, pending }): Row => [{ cell }, pending]),
  );
  registry.gaugeFrom(
    name("requests_under_way"),
    "Requests of all cells under way here.",
    () => overload.inFlight,
  );
  registry.gaugeFrom(
    name("shed_level"),
    "0: nobody is refused; 1: low; 2: also normal; 3: also high priority.",
    () => overload.level,
    "max",
  );
  registry.gaugeFrom(
    name("event_loop_late_seconds"),
    "How late the event loop was a moment ago; 0 without requests, or where nobody looks.",
    () => overload.lateMs / 1000,
    "max",
  );
  registry.gaugeFrom(
    name("tenants_remembered"),
    "Tenants whose share of the limits is in memory.",
    () => tenants.size,
  );
}

/** Every endpoint of the table has a row, also one that nobody has used yet: it counts as well. */
function endpointRows(
  table: TableState | undefined,
  load: readonly EndpointView[],
  read: (view: EndpointView) => number,
): Row[] {
  const views = new Map(load.map((view) => [view.url, view]));
  return (table?.lists.cells ?? []).flatMap(({ id: cell, services }) =>
    [...new Set(Object.values(services).flatMap(({ endpoints }) => endpoints))].map(
      (endpoint): Row => [{ cell, endpoint }, read(views.get(endpoint) ?? unused(endpoint))],
    ),
  );
}

const unused = (url: string): EndpointView => ({
  ...{ url, inFlight: 0, pending: 0 },
  ...{ standing: "usable", breaker: "closed" },
});
