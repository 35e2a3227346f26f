/** Pure: what `cellctl top` shows, as text: tables under each other, the busiest or the sickest first. */
import type { Paint } from "../render/paint.ts";
import { type Column, createTable } from "../render/table.ts";
import { count, duration } from "../render/units.ts";
import type { Silent } from "../router-admins.ts";
import type { CellFigures, Figures, RouterFigures, TenantFigures } from "./figures.ts";

export const sections = ["cells", "tenants", "routers"] as const;
export type Sections = readonly (typeof sections)[number][];
export const sortKeys = ["rps", "err", "p99", "name"] as const;

export type PageOptions = {
  readonly shown: Sections;
  readonly rows: number;
  readonly sort: (typeof sortKeys)[number];
  readonly wide: boolean;
  /** Ids alone, one a line. */
  readonly names: boolean;
  readonly paint: Paint;
  readonly nowMs: number;
};

const orders: Readonly<Record<PageOptions["sort"], (cell: CellFigures) => number>> = {
  rps: ({ requestsPerSecond }) => requestsPerSecond,
  err: ({ errorShare }) => errorShare,
  p99: ({ p99Ms }) => p99Ms ?? -1,
  name: () => 0,
};

export function drawTop(figures: Figures, silent: readonly Silent[], options: PageOptions): string {
  const order = orders[options.sort];
  const cells = [...figures.cells].sort((a, b) => order(b) - order(a)).slice(0, options.rows);
  const busiest = [...figures.tenants].sort((a, b) => b.requestsPerSecond - a.requestsPerSecond);
  const tenants = busiest.slice(0, options.rows);
  const tables = {
    cells: () => draw(cells, cellColumns, options),
    tenants: () => draw(tenants, tenantColumns, options),
    routers: () => draw(figures.routers, routerColumns, options),
  };
  const parts = options.shown.map((section) => tables[section]());
  const deaf = silent.map(({ router, why }) => `router ${router} does not answer: ${why}\n`);
  return [...parts, ...(options.names ? [] : deaf)].join(options.names ? "" : "\n");
}

function draw<T extends { readonly id: string }>(
  rows: readonly T[],
  columns: readonly Column<T>[],
  { names, wide, paint, nowMs }: PageOptions,
): string {
  if (names) return rows.map(({ id }) => `${id}\n`).join("");
  return createTable(columns, { wide, headers: true, nowMs, paint }).page(rows);
}

const percent = (share: number): string => (share * 100).toFixed(share < 0.1 ? 2 : 1);
const milliseconds = (ms: number | null): string =>
  ms === null ? "" : `${ms < 10 ? ms.toFixed(1) : Math.round(ms)}ms`;

const cellColumns: readonly Column<CellFigures>[] = [
  { head: "CELL", cell: ({ id }) => id },
  { head: "RPS", cell: ({ requestsPerSecond }) => count(requestsPerSecond), right: true },
  { head: "ERR%", cell: ({ errorShare }) => percent(errorShare), right: true },
  { head: "P50", cell: ({ p50Ms }) => milliseconds(p50Ms), right: true },
  { head: "P99", cell: ({ p99Ms }) => milliseconds(p99Ms), right: true },
  { head: "IN-FLIGHT", cell: ({ inFlight }) => String(inFlight), right: true },
  { head: "PENDING", cell: ({ pending }) => String(pending), right: true, wide: true },
  { head: "HELD", cell: ({ held }) => String(held), right: true },
  {
    head: "UP",
    cell: ({ endpointsUp, endpoints }) => (endpoints === null ? "" : `${endpointsUp}/${endpoints}`),
    right: true,
  },
];

const tenantColumns: readonly Column<TenantFigures>[] = [
  { head: "TENANT", cell: ({ id }) => id },
  { head: "RPS", cell: ({ requestsPerSecond }) => count(requestsPerSecond), right: true },
];

const routerColumns: readonly Column<RouterFigures>[] = [
  { head: "ROUTER", cell: ({ id }) => id },
  { head: "RPS", cell: ({ requestsPerSecond }) => count(requestsPerSecond), right: true },
  { head: "ERR%", cell: ({ errorShare }) => percent(errorShare), right: true },
  { head: "IN-FLIGHT", cell: ({ inFlight }) => String(inFlight), right: true },
  { head: "REVISION", cell: ({ revision }) => String(revision), right: true },
  { head: "TABLE-AGE", cell: ({ tableAgeSeconds }) => duration(tableAgeSeconds * 1000) },
  { head: "CONNECTED", cell: ({ connected }) => (connected ? "yes" : "no"), state: true },
];
