/**
 * What routers are told of the control plane's rows. Pure, and a function of one row alone, so that
 * a snapshot and the sum of all deltas are the same table.
 */

import type { PlacementState } from "../../contract/control-api.ts";
import { type CellId, parseCellId, parseEpoch, parseKeyspaceName } from "../../contract/ids.ts";
import type { KeyKind } from "../../contract/placement-key.ts";
import {
  defaultService,
  type PlacementGroup,
  type RoutedCell,
  type RouteState,
  serviceSchema,
} from "../../contract/routing-table.ts";
import { must, unreachable } from "../../runtime/assert.ts";

export type PlacementRow = {
  readonly key: string;
  readonly keyspace: string;
  readonly kind: KeyKind;
  readonly value: string;
  readonly cell: string;
  readonly epoch: number;
  readonly state: PlacementState;
  readonly deleted: boolean;
  readonly revision: number;
};

/** Undefined: routers must not know the key. */
export function routeState(
  row: Pick<PlacementRow, "state" | "epoch" | "deleted">,
): RouteState | undefined {
  if (row.deleted) return undefined;
  switch (row.state) {
    case "active":
    case "hold":
    case "unavailable":
    case "suspended":
      return row.state;
    case "deleting":
      return undefined;
    case "pending":
      // A key on its way to a new owner exists, and its requests wait; one that never had an owner
      // is not there yet.
      return row.epoch === 1 ? undefined : "hold";
    default:
      return unreachable(row.state);
  }
}

/** Rows of one table in bulk: groups share all but the value. */
export function groupRows(
  rows: Iterable<PlacementRow>,
  valuesMax = 10_000,
): { readonly upserts: PlacementGroup[]; readonly deletes: string[] } {
  const open = new Map<string, PlacementGroup>();
  const upserts: PlacementGroup[] = [];
  const deletes: string[] = [];
  for (const row of rows) {
    const state = routeState(row);
    if (state === undefined) {
      deletes.push(row.key);
      continue;
    }
    const name = `${row.keyspace} ${row.kind} ${row.cell} ${row.epoch} ${state}`;
    let group = open.get(name);
    if (group === undefined) {
      group = newGroup(row, state);
      open.set(name, group);
      upserts.push(group);
    }
    group.values.push(row.value);
    if (group.values.length >= valuesMax) open.delete(name);
  }
  return { upserts, deletes };
}

/** Placements that the database has put together already. Undefined: routers must not know them. */
export function toGroup(
  row: Omit<PlacementRow, "key" | "value" | "revision">,
  values: string[],
): PlacementGroup | undefined {
  const state = routeState(row);
  const named = { ...row, key: `${row.keyspace}/${row.kind}/…`, value: "", revision: 0 };
  return state === undefined ? undefined : { ...newGroup(named, state), values };
}

function newGroup(row: PlacementRow, state: RouteState): PlacementGroup {
  return {
    keyspace: must(parseKeyspaceName(row.keyspace), `keyspace of ${row.key}`),
    kind: row.kind,
    cell: must(parseCellId(row.cell), `cell of ${row.key}`),
    epoch: must(parseEpoch(row.epoch), `epoch of ${row.key}`),
    state,
    values: [],
  };
}

export type CellRow = {
  readonly id: string;
  readonly region: string;
  readonly services: unknown;
};
export type AgentRow = { readonly cell: string; readonly endpoint: string };

/**
 * A cell with agents is reached through their gates; until an agent has reported, as registered.
 * Endpoints are sorted: the same agents are the same table, whoever called last.
 */
export function routedCells(
  cells: readonly CellRow[],
  agents: readonly AgentRow[],
): readonly RoutedCell[] {
  const gates = new Map<string, Set<string>>();
  for (const { cell, endpoint } of agents) {
    const known = gates.get(cell) ?? new Set();
    gates.set(cell, known.add(endpoint));
  }
  return cells.map(({ id, region, services }): RoutedCell => {
    const endpoints = [...(gates.get(id) ?? [])].sort(byText).slice(0, 64);
    const registered = readServices(services);
    return {
      id: must<CellId>(parseCellId(id), "cell id"),
      region,
      services:
        endpoints.length === 0 ? registered : { ...registered, [defaultService]: { endpoints } },
    };
  });
}

const byText = (a: string, b: string): number => Number(a > b) - Number(a < b);

/** A service that breaks the contract is left out: one bad registration must not stop the table. */
function readServices(raw: unknown): RoutedCell["services"] {
  if (typeof raw !== "object" || raw === null) return {};
  const services: RoutedCell["services"] = {};
  for (const [name, value] of Object.entries(raw)) {
    const parsed = serviceSchema.safeParse(value);
    if (parsed.success) services[name] = parsed.data;
  }
  return services;
}
