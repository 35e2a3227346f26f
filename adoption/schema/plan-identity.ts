/**
 * Steps that put the key into what identifies a row to replication, without which its changes cannot
 * be told apart by tenant. Pure. Partitions are done one by one: an index of a partitioned table
 * cannot be built concurrently, and replica identity is not handed down.
 */
import { formerName, ownName } from "../../cell/store/own-name.ts";
import type { AppIndex, AppTable } from "./app-catalog.ts";
import { columnOf } from "./app-catalog.ts";
import type { Step } from "./step.ts";
import { column, columnList, sqlName } from "./table-name.ts";
import { isKeyCertain, type TenantTable } from "./tenant-tables.ts";

const suffix = "cellfleet_identity";
const identityIndex = (table: string): string => ownName(table, suffix);
/** Ours, also of an earlier release. */
export const isIdentityIndex = (table: AppTable, { name }: AppIndex): boolean =>
  name === identityIndex(table.table) || name === formerName(table.table, suffix);

export function identitySteps(table: TenantTable, leaf: AppTable): Step[] {
  const { keyColumn } = table;
  if (identityColumns(leaf).includes(keyColumn)) return [];
  const name = sqlName(leaf);
  if (leaf.primaryKey.length === 0) return [fullIdentity(leaf)];
  // An index with a column that may be null cannot identify rows.
  if (!isKeyCertain(table)) return [];
  const ours = leaf.indexes.find((index) => isIdentityIndex(leaf, index));
  const fit = leaf.indexes.find((index) => isFit(index, leaf, keyColumn));
  const chosen = fit?.name ?? identityIndex(leaf.table);
  const columns = [keyColumn, ...leaf.primaryKey.filter((one) => one !== keyColumn)];
  const build: Step = {
    id: `identity-index ${leaf.name}`,
    kind: "identity-index",
    object: leaf.name,
    way: "concurrent",
    lock: "SHARE UPDATE EXCLUSIVE: reads and writes go on",
    why: `${keyColumn} is neither in the primary key nor in the replica identity`,
    undo: `drop index concurrently ${column(leaf.schema)}.${column(chosen)}`,
    sql: [
      `create unique index concurrently ${column(chosen)} on ${name} (${columnList(columns)});`,
    ],
  };
  const use: Step = {
    id: `replica-identity ${leaf.name}`,
    kind: "replica-identity",
    object: leaf.name,
    way: "locked",
    hold: name,
    lock: "ACCESS EXCLUSIVE, for a moment",
    why: "updates and deletes then carry the tenant's key in the write-ahead log",
    undo: `alter table ${name} replica identity default`,
    sql: [`alter table ${name} replica identity using index ${column(chosen)};`],
  };
  return [
    ...(ours !== undefined && fit === undefined ? [dropInvalid(leaf, ours.name)] : []),
    ...(fit === undefined ? [build] : []),
    use,
  ];
}

function identityColumns(table: AppTable): readonly (string | null)[] {
  switch (table.replicaIdentity) {
    case "f":
      return table.columns.map(({ name }) => name);
    case "i":
      return table.indexes.find(({ isIdentity }) => isIdentity)?.columns ?? [];
    case "d":
      return table.primaryKey;
    case "n":
      return [];
  }
}

/** What PostgreSQL takes as an identity; the columns of ours are not null by the time it is built. */
function isFit(index: AppIndex, table: AppTable, keyColumn: string): boolean {
  return (
    index.unique &&
    index.valid &&
    index.immediate &&
    !index.partial &&
    index.columns.includes(keyColumn) &&
    index.columns.every(
      (name) => name !== null && (name === keyColumn || columnOf(table, name)?.notNull === true),
    )
  );
}

export function dropInvalid(table: AppTable, index: string): Step {
  return {
    id: `drop-invalid-index ${table.schema}.${index}`,
    kind: "drop-invalid-index",
    object: table.name,
    way: "concurrent",
    lock: "SHARE UPDATE EXCLUSIVE: reads and writes go on",
    why: "an index whose building was cut off is kept up to date and used by nobody",
    undo: "nothing to take back",
    sql: [`drop index concurrently if exists ${column(table.schema)}.${column(index)};`],
  };
}

function fullIdentity(leaf: AppTable): Step {
  const name = sqlName(leaf);
  return {
    id: `replica-identity ${leaf.name}`,
    kind: "replica-identity",
    object: leaf.name,
    way: "locked",
    hold: name,
    lock: "ACCESS EXCLUSIVE, for a moment",
    why: "without a primary key the whole row is its identity; a primary key would cost less",
    undo: `alter table ${name} replica identity default`,
    sql: [`alter table ${name} replica identity full;`],
  };
}
