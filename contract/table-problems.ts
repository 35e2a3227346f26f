/**
 * What makes a table or a change of one unacceptable, found before anything is touched.
 */
import { parseTenantId } from "./ids.ts";
import { type KeyAt, keyText, type Route, splitKey } from "./keyspace-routes.ts";
import { parsePlacementKey } from "./placement-key.ts";
import type { DeltaBody, PlacementGroup, RoutedKeyspace } from "./routing-table.ts";
import type { TableLists } from "./table-checksum.ts";

/** Undefined route: a tombstone. */
export type Edit = KeyAt & { readonly route: Route | undefined };

export function listsProblem({ keyspaces, cells, aliasing }: TableLists): string | undefined {
  const names = new Set<string>();
  for (const { name, strategy, slotCount } of keyspaces) {
    if (names.has(name)) return `keyspace ${name} is listed twice`;
    names.add(name);
    const powerOfTwo = slotCount !== undefined && (slotCount & (slotCount - 1)) === 0;
    if (strategy === "slots" && !powerOfTwo) {
      return `keyspace ${name} needs a slotCount that is a power of two`;
    }
  }
  const ids = new Set<string>();
  for (const { id } of cells) {
    if (ids.has(id)) return `cell ${id} is listed twice`;
    ids.add(id);
  }
  const spaces = new Set<string>();
  for (const { name } of aliasing?.namespaces ?? []) {
    if (spaces.has(name)) return `namespace ${name} is listed twice`;
    spaces.add(name);
  }
  return undefined;
}

/**
 * A placement may name a cell that is not listed: it is then known and not served, a typed error for
 * that tenant alone, where refusing the whole table would stop changes for everybody.
 */
export function groupProblem(group: PlacementGroup, keyspace: RoutedKeyspace | undefined) {
  if (keyspace === undefined) return `keyspace ${group.keyspace} is not in the table`;
  const { kind } = group;
  if (kind === "slot" && keyspace.strategy !== "slots") {
    return `keyspace ${keyspace.name} has no slots`;
  }
  if (kind === "range" && keyspace.strategy !== "range") {
    return `keyspace ${keyspace.name} has no ranges`;
  }
  for (const value of group.values) {
    // The bulk of every table, so without the detour over a key's text.
    if (kind === "tenant" && parseTenantId(value) !== undefined) continue;
    const at = { keyspace: group.keyspace, kind, value };
    if (parsePlacementKey(keyText(at)) === undefined)
      return `${keyText(at)} is not a placement key`;
    if (kind === "slot" && Number(value) >= (keyspace.slotCount ?? 1)) {
      return `${keyText(at)} is outside of ${keyspace.slotCount} slots`;
    }
  }
  return undefined;
}

/** What each key of a change becomes, or what is wrong with it. */
export function wantedEdits(
  change: Pick<DeltaBody, "deletes" | "upserts">,
  lists: TableLists,
): readonly Edit[] | string {
  const edits: Edit[] = [];
  for (const key of change.deletes) {
    const at = splitKey(key);
    if (at === undefined) return `${key} is not a placement key`;
    edits.push({ ...at, route: undefined });
  }
  for (const group of change.upserts) {
    const keyspace = lists.keyspaces.find((one) => one.name === group.keyspace);
    const problem = groupProblem(group, keyspace);
    if (problem !== undefined) return problem;
    const { cell, epoch, state, kind } = group;
    const route: Route = { cell, epoch, state };
    for (const value of group.values) {
      edits.push({ keyspace: group.keyspace, kind, value, route });
    }
  }
  return edits;
}
