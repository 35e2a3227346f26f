/**
 * The placements of one keyspace, and the one rule of precedence: a tenant's own placement stands
 * above the slot or range that contains it.
 */
import type { HashKey } from "./half-sip-hash.ts";
import type { CellId, Epoch, KeyspaceName, TenantId } from "./ids.ts";
import {
  type KeyKind,
  keyOfParts,
  type PlacementKey,
  parsePlacementKey,
  slotOf,
} from "./placement-key.ts";
import type { PlacementGroup, RoutedKeyspace, RouteState } from "./routing-table.ts";
import { createMixer, type Sum } from "./table-checksum.ts";
import { type SharedIndex, TenantIndex } from "./tenant-index.ts";

/** Shared between all placements of a group: never changed, only replaced. */
export type Route = {
  readonly cell: CellId;
  readonly epoch: Epoch;
  readonly state: RouteState;
};

/** `via` says which kind of key decided; `tenant` in a keyspace of slots or ranges is an override. */
export type FoundRoute = Route & { readonly key: PlacementKey; readonly via: KeyKind };

/** From value (tenant id, slot number, range start) to route. A `Map` fits where there are few. */
export type RouteIndex = {
  readonly get: (value: string) => Route | undefined;
  readonly set: (value: string, route: Route) => unknown;
  readonly delete: (value: string) => boolean;
  readonly entries: () => Iterable<readonly [string, Route]>;
  /** Every route that is there, at least once. */
  readonly values: () => Iterable<Route>;
  readonly size: number;
};

export type KeyspaceRoutes = {
  keyspace: RoutedKeyspace;
  readonly byKind: Readonly<Record<KeyKind, RouteIndex>> & { readonly tenant: TenantIndex };
  /** Range starts in byte order; undefined after a start came or went, sorted at the next lookup. */
  starts: readonly string[] | undefined;
};

export type KeyAt = {
  readonly keyspace: KeyspaceName;
  readonly kind: KeyKind;
  readonly value: string;
};

export function emptyRoutes(keyspace: RoutedKeyspace, hashKey: HashKey): KeyspaceRoutes {
  return {
    keyspace,
    byKind: { tenant: new TenantIndex(hashKey), slot: new Map(), range: new Map() },
    starts: undefined,
  };
}

export type SharedKeyspace = {
  readonly keyspace: RoutedKeyspace;
  readonly tenants: SharedIndex;
  readonly slots: ReadonlyArray<readonly [string, Route]>;
  readonly ranges: ReadonlyArray<readonly [string, Route]>;
};

export const shareRoutes = ({ keyspace, byKind }: KeyspaceRoutes): SharedKeyspace => ({
  keyspace,
  tenants: byKind.tenant.share(),
  slots: [...byKind.slot.entries()],
  ranges: [...byKind.range.entries()],
});

export const routesFromShared = (
  { keyspace, tenants, slots, ranges }: SharedKeyspace,
  hashKey: HashKey,
  owns: boolean,
): KeyspaceRoutes => ({
  keyspace,
  byKind: {
    tenant: TenantIndex.fromShared(hashKey, tenants, { owns }),
    slot: new Map(slots),
    range: new Map(ranges),
  },
  starts: undefined,
});

export function lookupIn(routes: KeyspaceRoutes, tenant: TenantId): FoundRoute | undefined {
  const own = routes.byKind.tenant.get(tenant);
  if (own !== undefined) return found(routes, "tenant", tenant, own);
  const { strategy, slotCount } = routes.keyspace;
  if (strategy === "slots") {
    const slot = String(slotOf(tenant, slotCount ?? 1));
    return found(routes, "slot", slot, routes.byKind.slot.get(slot));
  }
  if (strategy === "range") {
    const start = startBelow(sortedStarts(routes), tenant);
    return start === undefined
      ? undefined
      : found(routes, "range", start, routes.byKind.range.get(start));
  }
  return undefined;
}

export type Owners = {
  /** Cells that own a placement, in any state. */
  readonly all: ReadonlySet<CellId>;
  /** Those of them with a placement that changes hands or may be served by nobody. */
  readonly unsettled: ReadonlySet<CellId>;
};

export function ownersOf(keyspaces: readonly KeyspaceRoutes[]): Owners {
  const all = new Set<CellId>();
  const unsettled = new Set<CellId>();
  for (const index of keyspaces.flatMap(({ byKind }) => Object.values(byKind))) {
    for (const { cell, state } of index.values()) {
      all.add(cell);
      if (state === "hold" || state === "unavailable") unsettled.add(cell);
    }
  }
  return { all, unsettled };
}

/** What placements with one route add to the table's checksum, by their values. */
export const mixerOf = (keyspace: KeyspaceName, kind: KeyKind, { cell, epoch, state }: Route) =>
  createMixer(`${cell} ${epoch} ${state} ${keyspace}/${kind}/`);

export const mixRoute = (at: KeyAt, route: Route): Sum =>
  mixerOf(at.keyspace, at.kind, route)(at.value);

export const keyText = ({ keyspace, kind, value }: KeyAt): PlacementKey =>
  keyOfParts(keyspace, kind, value);

export function splitKey(key: string): KeyAt | undefined {
  const parts = parsePlacementKey(key);
  if (parts === undefined) return undefined;
  const { keyspace, kind } = parts;
  if (parts.kind === "tenant") return { keyspace, kind, value: parts.tenant };
  return { keyspace, kind, value: parts.kind === "slot" ? String(parts.slot) : parts.from };
}

/** Ids are ASCII, so that comparing UTF-16 units is comparing bytes, as `COLLATE "C"` does. */
function sortedStarts(routes: KeyspaceRoutes): readonly string[] {
  routes.starts ??= [...routes.byKind.range.entries()]
    .map(([start]) => start)
    .sort((a, b) => Number(a > b) - Number(a < b));
  return routes.starts;
}

/** The greatest start that is not above `tenant`. */
function startBelow(starts: readonly string[], tenant: string): string | undefined {
  let low = 0;
  let high = starts.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((starts[middle] ?? "") <= tenant) low = middle + 1;
    else high = middle;
  }
  return starts[low - 1];
}

export function* groupsOf(
  keyspace: KeyspaceName,
  kind: KeyKind,
  index: RouteIndex,
  valuesMax: number,
): Generator<PlacementGroup> {
  const open = new Map<string, Route & { values: string[] }>();
  for (const [value, route] of index.entries()) {
    const name = `${route.cell} ${route.epoch} ${route.state}`;
    const group = open.get(name) ?? { ...route, values: [] };
    group.values.push(value);
    open.set(name, group);
    if (group.values.length < valuesMax) continue;
    open.delete(name);
    yield { keyspace, kind, ...group };
  }
  for (const group of open.values()) yield { keyspace, kind, ...group };
}

/**
 * A route that was looked up. Its key's text is put together when somebody reads it: at ten million tenants
 * that text was a tenth of the look-up's time, and not every look-up needs it.
 */
class LookedUp implements FoundRoute {
  readonly cell: CellId;
  readonly epoch: Epoch;
  readonly state: RouteState;
  readonly via: KeyKind;
  readonly #keyspace: KeyspaceName;
  readonly #value: string;

  /** Keyspace and value are checked ones. */
  constructor(route: Route, keyspace: KeyspaceName, via: KeyKind, value: string) {
    this.cell = route.cell;
    this.epoch = route.epoch;
    this.state = route.state;
    this.via = via;
    this.#keyspace = keyspace;
    this.#value = value;
  }

  get key(): PlacementKey {
    return keyOfParts(this.#keyspace, this.via, this.#value);
  }
}

const found = (
  routes: KeyspaceRoutes,
  via: KeyKind,
  value: string,
  route: Route | undefined,
): FoundRoute | undefined =>
  route === undefined ? undefined : new LookedUp(route, routes.keyspace.name, via, value);
