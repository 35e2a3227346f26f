/** What a router is doing now, read when it is scraped: by cell, so that one sick cell shows as one. */
import { release } from "../../contract/release.ts";
import type { TableState } from "../../contract/table-state.ts";
import type { Labels, Metrics } from "../../runtime/metrics.ts";
import type { Endpoints } from "../cells/endpoints.ts";
import { shownCell } from "../place/decide.ts";
import type { Hold } from "../place/hold.ts";
import { globalTarget, noCell, type RouterMetrics, upstreamErrorReasons } from "./metrics.ts";
import type { Remembered } from "./remembered.ts";

export type Gauged = {
  readonly registry: Metrics;
  readonly hold: Pick<Hold, "heldByKey" | "heldBytes">;
  readonly endpoints: Pick<Endpoints, "load">;
  readonly remembered: Pick<Remembered, "kept">;
  readonly fanOuts: { readonly running: number };
  readonly table: () => TableState | undefined;
  /** Since the control plane last answered; undefined in static mode. */
  readonly ageMs: () => number | undefined;
  /** What the next process would find; in static mode what is served, in a worker 0. */
  readonly storedRevision: () => number;
};

type Row = readonly [Labels, number];
const name = (rest: string) => `cellfleet_router_${rest}`;

export function addGauges(parts: Gauged): void {
  tableGauges(parts);
  trafficGauges(parts);
  parts.registry.gaugeFrom(
    "cellfleet_build_info",
    "Always 1.",
    () => [[{ part: "router", release }, 1]],
    "first",
  );
}

/** Workers serve from one table, so that each says the same of it. */
function tableGauges({ registry, table, ageMs, storedRevision }: Gauged): void {
  const gauge = (rest: string, help: string, read: () => number) =>
    registry.gaugeFrom(name(rest), help, read, "max");
  gauge("table_revision", "Revision served.", () => table()?.revision ?? 0);
  gauge("table_stored_revision", "Revision that a restart would find on the disk.", storedRevision);
  gauge("table_placements", "Placements in the table.", () => table()?.size ?? 0);
  gauge("table_aliases", "Names of tenants in the table.", () => table()?.aliasCount ?? 0);
  gauge("table_epoch_max", "Highest epoch seen.", () => table()?.epochMax ?? 0);
  gauge(
    "table_age_seconds",
    "Since the control plane last said that nothing newer exists; 0 in static mode.",
    () => (ageMs() ?? 0) / 1000,
  );
}

function trafficGauges({ registry, hold, endpoints, fanOuts, remembered, table }: Gauged): void {
  registry.gaugeFrom(
    name("held_requests"),
    "Requests waiting for a placement, by the cell that owned it.",
    () => heldRows(hold.heldByKey(), table()),
  );
  registry.gaugeFrom(
    name("held_bytes"),
    "Memory that waiting requests may take.",
    () => hold.heldBytes,
  );
  registry.gaugeFrom(name("inflight_requests"), "Requests at cells, by endpoint.", () =>
    loadRows(endpoints.load(), table(), ({ inFlight }) => inFlight),
  );
  registry.gaugeFrom(name("pending_requests"), "Requests waiting for a seat, by endpoint.", () =>
    loadRows(endpoints.load(), table(), ({ pending }) => pending),
  );
  registry.gaugeFrom(name("fan_outs"), "Requests to all cells now.", () => fanOuts.running);
  registry.gaugeFrom(
    name("explainable_requests"),
    "Requests that cellctl explain request knows, by kind.",
    () => remembered.kept(),
  );
}

type Held = ReturnType<Hold["heldByKey"]>;

function heldRows(held: Held, table: TableState | undefined): Row[] {
  const counts = new Map((table?.lists.cells ?? []).map(({ id, host }) => [String(host ?? id), 0]));
  for (const [key, count] of held) {
    const owner = table?.get(key)?.cell;
    const cell = table && owner ? shownCell(table, owner) : noCell;
    counts.set(cell, (counts.get(cell) ?? 0) + count);
  }
  return [...counts].map(([cell, count]): Row => [{ cell }, count]);
}

type Load = ReturnType<Endpoints["load"]>;

function loadRows(
  load: Load,
  table: TableState | undefined,
  read: (one: Load[number]) => number,
): Row[] {
  const cells = cellsByEndpoint(table);
  return load.map(
    (one): Row => [{ cell: cells.get(one.url) ?? noCell, endpoint: one.url }, read(one)],
  );
}

/** An endpoint that leaves the table while requests are at it has no cell any more. */
function cellsByEndpoint(table: TableState | undefined): ReadonlyMap<string, string> {
  const cells = new Map<string, string>();
  for (const { endpoints } of Object.values(table?.lists.globalServices ?? {})) {
    for (const url of endpoints) cells.set(url, globalTarget);
  }
  for (const { id, host, services } of table?.lists.cells ?? []) {
    for (const { endpoints } of Object.values(services)) {
      for (const url of endpoints) cells.set(url, host ?? id);
    }
  }
  return cells;
}

/** Series of the cells of each table are there before their first event, so that its rate is seen. */
export function createCellSeries(metrics: RouterMetrics): (table: TableState) => void {
  const known = new Set<string>();
  return ({ lists }) => {
    for (const { id, host: cell = id } of lists.cells) {
      if (known.has(cell)) continue;
      known.add(cell);
      for (const reason of upstreamErrorReasons) metrics.upstreamErrors.with({ cell, reason });
      metrics.fenced.with({ cell });
      metrics.overflow.with({ cell });
      for (const code_class of ["2xx", "5xx"]) {
        metrics.requests.with({ cell, method: "GET", code_class });
      }
    }
  };
}
