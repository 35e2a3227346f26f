/**
 * Pure: which feature flags are on for a request, by its tenant, its cell and the cell's rings. The
 * policy is turned into small maps once per table, so that a request costs two lookups, and nothing
 * where there are no flags.
 */
import {
  type CellId,
  defaultKeyspace,
  type KeyspaceName,
  type TenantId,
} from "../../contract/ids.ts";
import type { TrafficPolicy } from "../../contract/traffic-policy.ts";

/** Whom flags are asked for. */
export type Flagged = {
  readonly keyspace: KeyspaceName;
  readonly tenant: TenantId;
};

type FlagIndex = {
  /** On for everybody. */
  readonly all: ReadonlySet<string>;
  readonly byCell: ReadonlyMap<string, ReadonlySet<string>>;
  /** By `KEYSPACE/TENANT`. */
  readonly byTenant: ReadonlyMap<string, ReadonlySet<string>>;
};

const indexes = new WeakMap<TrafficPolicy, FlagIndex>();

/** Names of the flags that are on, `a,b`, sorted; empty: none. */
export function flagsOf(
  policy: TrafficPolicy | undefined,
  cell: CellId | undefined,
  who: Flagged | undefined,
): string {
  if (policy?.flags === undefined) return "";
  const known = indexes.get(policy);
  const index = known ?? buildIndex(policy);
  if (known === undefined) indexes.set(policy, index);
  const names = new Set(index.all);
  for (const name of (cell && index.byCell.get(cell)) ?? []) names.add(name);
  for (const name of (who && index.byTenant.get(`${who.keyspace}/${who.tenant}`)) ?? []) {
    names.add(name);
  }
  return [...names].sort((a, b) => (a < b ? -1 : 1)).join(",");
}

function buildIndex({ flags = {}, rings = {} }: TrafficPolicy): FlagIndex {
  const all = new Set<string>();
  const byCell = new Map<string, Set<string>>();
  const byTenant = new Map<string, Set<string>>();
  for (const [name, flag] of Object.entries(flags)) {
    if (flag.everywhere === true) all.add(name);
    const ofRings = (flag.rings ?? []).flatMap((ring) => rings[ring] ?? []);
    for (const cell of [...(flag.cells ?? []), ...ofRings]) note(byCell, cell, name);
    for (const tenant of flag.tenants ?? []) note(byTenant, qualified(tenant), name);
  }
  return { all, byCell, byTenant };
}

function note(index: Map<string, Set<string>>, key: string, name: string): void {
  const names = index.get(key) ?? new Set<string>();
  index.set(key, names.add(name));
}

/** A tenant without a keyspace is one of the default keyspace; no tenant id holds a slash. */
const qualified = (tenant: string): string =>
  tenant.includes("/") ? tenant : `${defaultKeyspace}/${tenant}`;
