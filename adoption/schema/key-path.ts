/**
 * How a table without the key column comes to its tenant: through the foreign keys, to the nearest
 * table that knows it. Pure.
 */
import type { AppForeignKey, AppTable } from "./app-catalog.ts";
import { columnOf } from "./app-catalog.ts";
import { isKeyType } from "./guess-key.ts";

/** One step: this table's rows get their key from the parent's column. */
export type KeySource = {
  readonly parent: string;
  readonly parentColumn: string;
  readonly foreignKey: AppForeignKey;
  /** Of the key, hence of the column to be added. */
  readonly type: string;
  /** A row whose foreign key is null finds no tenant, nor does one whose parent may have none. */
  readonly mayBeNull: boolean;
};

/**
 * By name of table, in the order in which they can be filled: a parent stands before its children.
 * `keyColumns`: what knows its tenant already, name of table → its column; `addedColumn`: what the
 * column of another will be called.
 */
export function findKeySources(
  tables: readonly AppTable[],
  keyColumns: ReadonlyMap<string, string>,
  addedColumn: (table: string) => string,
): ReadonlyMap<string, KeySource> {
  const sources = new Map<string, KeySource>();
  const byName = new Map(tables.map((table) => [table.name, table]));
  // Each round reaches one foreign key further, so that the shortest way is the one that is taken.
  for (;;) {
    const round = tables
      .filter(({ name, partitionOf }) => partitionOf === null && !keyColumns.has(name))
      .filter(({ name }) => !sources.has(name))
      .flatMap((table) => {
        const source = bestSource(table, byName, keyColumns, sources, addedColumn);
        return source === undefined ? [] : [[table.name, source] as const];
      });
    if (round.length === 0) return sources;
    for (const [name, source] of round) sources.set(name, source);
  }
}

function bestSource(
  table: AppTable,
  byName: ReadonlyMap<string, AppTable>,
  keyColumns: ReadonlyMap<string, string>,
  sources: ReadonlyMap<string, KeySource>,
  addedColumn: (table: string) => string,
): KeySource | undefined {
  const candidates = table.foreignKeys.flatMap((foreignKey): KeySource[] => {
    if (foreignKey.to === table.name) return [];
    const parent = byName.get(foreignKey.to);
    const own = keyColumns.get(foreignKey.to);
    const reached = sources.get(foreignKey.to);
    if (parent === undefined || (own === undefined && reached === undefined)) return [];
    const type = own === undefined ? reached?.type : columnOf(parent, own)?.type;
    if (type === undefined || !isKeyType(type)) return [];
    const parentColumn = own ?? addedColumn(foreignKey.to);
    const mayBeNull =
      foreignKey.columns.some((name) => columnOf(table, name)?.notNull !== true) ||
      reached?.mayBeNull === true ||
      // A parent without a tenant has children without one.
      (own !== undefined && columnOf(parent, own)?.notNull !== true);
    return [{ parent: foreignKey.to, parentColumn, foreignKey, type, mayBeNull }];
  });
  return candidates.find(({ mayBeNull }) => !mayBeNull) ?? candidates[0];
}
