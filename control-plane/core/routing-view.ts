/**
 * What routers are told of the control plane's rows. Pure, and a function of one row alone, so that
 * a snapshot and the sum of all deltas are the same table.
 */

import type { PlacementState } from "../../contract/control-api.ts";
import {
  type CellId,
  parseCellId,
  parseEpoch,
  parseKeyspaceName,
  parseTenantId,
} from "../../contract/ids.ts";
import type { KeyKind } from "../../contract/placement-key.ts";
import {
  type AliasGroup,
  type CellStage,
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

/** A name of a tenant, as a hash; of the log of what routers were told. */
export type NameRow = {
  readonly namespace: string;
  readonly hash: string;
  readonly keyspace: string;
  readonly tenant: string;
  /** Committed; all else is a tombstone to routers. */
  readonly live: boolean;
  readonly revision: number;
};

/** What changed at one revision: a placement or a name. */
export type ChangeRow = PlacementRow | NameRow;

export const isName = (row: ChangeRow): row is NameRow => "hash" in row;

/** The same for all changes of one thing, so that the last one stands for all. */
export const identityOf = (row: ChangeRow): string =>
  isName(row) ? `${row.namespace}:${row.hash} ${row.keyspace}/${row.tenant}` : row.key;

export function groupNames(
  rows: Iterable<NameRow>,
  namesMax = 10_000,
): { readonly aliasUpserts: AliasGroup[]; readonly aliasDeletes: AliasGroup[] } {
  const upserts = createGrouping(namesMax);
  const deletes = createGrouping(namesMax);
  for (const row of rows) (row.live ? upserts : deletes).add(row);
  return { aliasUpserts: upserts.groups, aliasDeletes: deletes.groups };
}

function createGrouping(namesMax: number) {
  const groups: AliasGroup[] = [];
  const open = new Map<string, AliasGroup>();
  return {
    groups,
    add: (row: NameRow): void => {
      const scope = `${row.namespace} ${row.keyspace}`;
      let group = open.get(scope);
      if (group === undefined) {
        group = toNames(row, []);
        open.set(scope, group);
        groups.push(group);
      }
      const tenant = must(parseTenantId(row.tenant), `tenant of a name of ${row.namespace}`);
      group.names.push([row.hash, tenant]);
      if (group.names.length >= namesMax) open.delete(scope);
    },
  };
}

/** Names that the database has put together already. */
export function toNames(
  row: Pick<NameRow, "namespace" | "keyspace">,
  pairs: ReadonlyArray<readonly [string, string]>,
): AliasGroup {
  return {
    alias: row.namespace,
    keyspace: must(parseKeyspaceName(row.keyspace), `keyspace of names of ${row.namespace}`),
    names: pairs.map(([hash, tenant]) => [
      hash,
      must(parseTenantId(tenant), `tenant of a name of ${row.namespace}`),
    ]),
  };
}

/** All that routers are told of some rows. */
export function groupChanges(rows: readonly ChangeRow[]) {
  const names = rows.filter(isName);
  const placements = rows.filter((row): row is PlacementRow => !isName(row));
  return {
    ...groupRows(placements),
    // Absent where there are none, as in deltas from before there were names.
    ...(names.length === 0 ? {} : groupNames(names)),
  };
}

export type CellRow = {
  readonly id: string;
  readonly region: string;
  readonly services: unknown;
  readonly stage: CellStage;
  /** Of an annex. */
  readonly host: string | null;
  readonly halted: boolean;
  readonly handover: boolean;
};
export type AgentRow = {
  readonly cell: string;
  readonly endpoint: string;
  readonly services: readonly string[];
};

/** By cell, then by service. */
type Gates = ReadonlyMap<string, ReadonlyMap<string, ReadonlySet<string>>>;

/**
 * A cell with agents is reached through their gates and in no other way: a service that no agent stands
 * in front of would be a way around the fence, so it is left out. Until an agent has reported, and in
 * stage pass-through, as registered. Endpoints are sorted: the same agents are the same table, whoever
 * called last.
 */
export function routedCells(
  cells: readonly CellRow[],
  agents: readonly AgentRow[],
): readonly RoutedCell[] {
  const gates = gatesOf(agents);
  return cells.map(({ id, region, services, stage, host, halted, handover }): RoutedCell => {
    const fronted = stage === "pass-through" ? undefined : gates.get(id);
    return {
      id: must<CellId>(parseCellId(id), "cell id"),
      region,
      services: fronted === undefined ? readServices(services) : gateServices(fronted),
      ...(stage === "enforce" ? {} : { stage }),
      ...(host === null ? {} : { host: must<CellId>(parseCellId(host), "cell id") }),
      ...(halted ? { halted } : {}),
      ...(handover ? { handover } : {}),
    };
  });
}

function gatesOf(agents: readonly AgentRow[]): Gates {
  const gates = new Map<string, Map<string, Set<string>>>();
  for (const { cell, endpoint, services } of agents) {
    const byService = gates.get(cell) ?? new Map<string, Set<string>>();
    gates.set(cell, byService);
    for (const service of services) {
      const endpoints = byService.get(service) ?? new Set<string>();
      byService.set(service, endpoints.add(endpoint));
    }
  }
  return gates;
}

function gateServices(byService: ReadonlyMap<string, ReadonlySet<string>>): RoutedCell["services"] {
  const services = [...byService].map(([name, endpoints]): [string, { endpoints: string[] }] => [
    name,
    { endpoints: [...endpoints].sort(byText).slice(0, 64) },
  ]);
  return Object.fromEntries(services.sort(([a], [b]) => byText(a, b)));
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
