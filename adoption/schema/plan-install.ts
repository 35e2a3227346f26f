/**
 * From the catalog, the manifest and what was asked for: the steps that are left. Pure, and the only
 * place that decides whether a step is done, so that an installation that was cut off anywhere goes
 * on by planning anew.
 */
import { escapeLiteral } from "pg";
import type { Manifest } from "../../cell/store/manifest.ts";
import type { ProtectStep } from "../../cell/store/protect.ts";
import type { AppCatalog, AppTable } from "./app-catalog.ts";
import { columnOf } from "./app-catalog.ts";
import { findKeySources, type KeySource } from "./key-path.ts";
import { guardSteps, laterStep } from "./plan-guard.ts";
import { identitySteps } from "./plan-identity.ts";
import { keySteps } from "./plan-key.ts";
import { uniqueSteps } from "./plan-unique.ts";
import type { Advice, Plan, Step } from "./step.ts";

export type InstallStage = "observe" | "enforce";
export type InstallWish = {
  readonly cell: string;
  readonly stage: InstallStage;
  /** Unique constraints, `schema.table.name`, that may be replaced; or all that can be. */
  readonly replaceUnique: readonly string[] | "all";
  /** Of the SQL pack that this release brings. */
  readonly packDigest: string;
};

/** The pack's own list of what is left for a table; absent where it could not be asked yet. */
export type ProtectLists = ReadonlyMap<string, readonly ProtectStep[]>;

export type TenantTable = {
  readonly facts: AppTable;
  /** It and its partitions down to the leaves; of an ordinary table, itself alone. */
  readonly leaves: readonly AppTable[];
  readonly keyColumn: string;
  readonly keyspace: string;
  /** Absent where the column stands already, or where nothing leads to it. */
  readonly source: KeySource | undefined;
};

export function planInstall(
  catalog: AppCatalog,
  manifest: Manifest,
  wish: InstallWish,
  protect: ProtectLists,
): Plan {
  const tables = tenantTables(catalog, manifest);
  const ready = tables.filter(isReady);
  const unique = tables.map((table) => uniqueSteps(table, tables, wish.replaceUnique));
  const steps = [
    ...packSteps(catalog, wish),
    ...ready.flatMap((table) => keySteps(table)),
    ...ready.flatMap((table) => table.leaves.flatMap((leaf) => identitySteps(table, leaf))),
    ...unique.flatMap((one) => one.steps),
    ...ready.flatMap((table) => {
      const list = protect.get(table.facts.name);
      return list === undefined ? [laterStep(table)] : guardSteps(table.facts, list, "on");
    }),
  ];
  return { steps, advice: [...unkeyed(tables), ...unique.flatMap((one) => one.advice)] };
}

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
  const known = wanted
    .filter(({ entry, facts }) => columnOf(facts, entry.keyColumn) !== undefined)
    .map(({ entry, facts }) => [facts.name, entry.keyColumn] as const);
  const sources = findKeySources(
    wanted.map(({ facts }) => facts),
    new Map(known),
    manifest.keyColumn,
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
      source: sourceOf(
        facts,
        entry.keyColumn,
        sources.get(facts.name),
        wanted.map((one) => one.facts),
        new Map(known),
      ),
    }));
}

/**
 * A column that is there but was never filled has its source still: it is found as if the column
 * were missing, and counts only while our own trigger fills it.
 */
function sourceOf(
  facts: AppTable,
  keyColumn: string,
  found: KeySource | undefined,
  all: readonly AppTable[],
  known: ReadonlyMap<string, string>,
): KeySource | undefined {
  if (found !== undefined) return found;
  const column = columnOf(facts, keyColumn);
  if (column === undefined || column.notNull) return undefined;
  const others = new Map([...known].filter(([name]) => name !== facts.name));
  return findKeySources(all, others, keyColumn).get(facts.name);
}

function leavesOf(table: AppTable, all: readonly AppTable[]): AppTable[] {
  if (!table.partitioned) return [table];
  return all
    .filter(({ partitionOf }) => partitionOf === table.name)
    .flatMap((partition) => leavesOf(partition, all));
}

function unkeyed(tables: readonly TenantTable[]): Advice[] {
  return tables
    .filter((table) => !isReady(table))
    .map(({ facts, keyColumn }) => ({
      object: facts.name,
      text: `has no column ${keyColumn}, and no foreign key leads to a table that has one: add the column and fill it, or class the table otherwise`,
      sql: [],
    }));
}

function packSteps(catalog: AppCatalog, wish: InstallWish): Step[] {
  const { pack } = catalog;
  const isThere = pack.digest === wish.packDigest && pack.cell === wish.cell;
  const install: Step = {
    id: "install-pack cellfleet",
    kind: "install-pack",
    object: "cellfleet",
    way: "ours",
    lock: "none on your tables",
    why: "guard, lease and ids are functions and tables of a schema of their own",
    undo: "cellctl schema uninstall",
    sql: [`-- the SQL pack, for the cell ${escapeLiteral(wish.cell)}`],
  };
  return isThere ? [] : [install];
}
