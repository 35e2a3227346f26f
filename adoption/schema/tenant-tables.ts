/**
 * The tables of a manifest's tenants as the catalog has them, each with how it knows its tenant, in the
 * order in which keys can be handed down. Pure.
 */
import type { Manifest } from "../../cell/store/manifest.ts";
import { type AppCatalog, type AppTable, columnOf } from "./app-catalog.ts";
import { findKeySources, type KeySource } from "./key-path.ts";

/** Sorts before `zz_cellfleet_guard`: the guard must see the key. */
export const fillTrigger = "yy_cellfleet_fill_key";

export type TenantTable = {
  readonly facts: AppTable;
  /** It and its partitions down to the leaves; of an ordinary table, itself alone. */
  readonly leaves: readonly AppTable[];
  readonly keyColumn: string;
  readonly keyspace: string;
  /** Absent where the column stands already, or where nothing leads to it. */
  readonly source: KeySource | undefined;
};

export const isReady = ({ facts, keyColumn, source }: TenantTable): boolean =>
  columnOf(facts, keyColumn) !== undefined || source !== undefined;

/** Parents before the children that are filled from them. */
export function tenantTables(catalog: AppCatalog, manifest: Manifest): TenantTable[] {
  const byName = new Map(catalog.tables.map((table) => [table.name, table]));
  const wanted = manifest.tables.flatMap((entry) => {
    const facts = byName.get(`${entry.schema}.${entry.table}`);
    return entry.class === "tenant" && facts !== undefined && facts.partitionOf === null
      ? [{ entry, facts }]
      : [];
  });
  // Columns that we added count as missing here, filled or not: the order must not change on the way.
  const known = wanted
    .filter(
      ({ entry, facts }) => columnOf(facts, entry.keyColumn) !== undefined && !isFilledByUs(facts),
    )
    .map(({ entry, facts }) => [facts.name, entry.keyColumn] as const);
  const sources = findKeySources(
    wanted.map(({ facts }) => facts),
    new Map(known),
    (name) =>
      wanted.find(({ facts }) => facts.name === name)?.entry.keyColumn ?? manifest.keyColumn,
  );
  const order = [...known.map(([name]) => name), ...sources.keys()];
  const rank = (name: string): number => {
    const at = order.indexOf(name);
    return at === -1 ? order.length : at;
  };
  return wanted
    .toSorted((a, b) => rank(a.facts.name) - rank(b.facts.name))
    .map(({ entry, facts }) => ({
      facts,
      leaves: leavesOf(facts, catalog.tables),
      keyColumn: entry.keyColumn,
      keyspace: entry.keyspace,
      source: columnOf(facts, entry.keyColumn)?.notNull ? undefined : sources.get(facts.name),
    }));
}

/**
 * Columns of the application's own are never filled, nor made NOT NULL: it may leave them null for a
 * reason, and its inserts would fail.
 */
export const isFilledByUs = ({ triggers }: AppTable): boolean =>
  triggers.some(({ name }) => name === fillTrigger);

/** By the time the identity is made. */
export const isKeyCertain = ({ facts, keyColumn, source }: TenantTable): boolean =>
  columnOf(facts, keyColumn)?.notNull === true || source?.mayBeNull === false;

function leavesOf(table: AppTable, all: readonly AppTable[]): AppTable[] {
  if (!table.partitioned) return [table];
  return all
    .filter(({ partitionOf }) => partitionOf === table.name)
    .flatMap((partition) => leavesOf(partition, all));
}
