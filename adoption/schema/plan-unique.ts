/**
 * Unique constraints that say nothing of the tenant. Two cells cannot see each other's rows, so what
 * was unique over all tenants is unique per tenant only, once there are two. Pure.
 *
 * Nothing here is done unless it is asked for by name: whether an address may stand in two tenants
 * is the application's business, and its ON CONFLICT clauses name the old columns.
 */
import { ownName } from "../../cell/store/own-name.ts";
import type { AppIndex, AppTable } from "./app-catalog.ts";
import { columnOf } from "./app-catalog.ts";
import { dropInvalid } from "./plan-identity.ts";
import type { Advice, Step } from "./step.ts";
import { column, columnList, sqlName } from "./table-name.ts";
import type { TenantTable } from "./tenant-tables.ts";

export type UniquePlan = { readonly steps: readonly Step[]; readonly advice: readonly Advice[] };

export function uniqueSteps(
  table: TenantTable,
  all: readonly TenantTable[],
  replace: readonly string[] | "all",
): UniquePlan {
  const { facts, keyColumn } = table;
  const global = facts.indexes.filter((index) => isGlobal(index, table, all));
  const parts = global.map((index): UniquePlan => {
    const name = `${facts.name}.${index.name}`;
    const isWanted = replace === "all" || replace.includes(name);
    const obstacle = obstacleOf(index, facts);
    const steps = replaceSteps(index, facts, keyColumn);
    if (isWanted && obstacle === undefined) return { steps, advice: [] };
    const columns = index.columns.map((one) => one ?? "an expression").join(", ");
    const then =
      obstacle ??
      `--replace-unique ${name} does this; queries with ON CONFLICT (${columns}) must name ${keyColumn} too`;
    const text = `${index.name} makes (${columns}) unique over all tenants, which no two cells can keep; claim such names (cellctl claim), or make them unique per tenant: ${then}`;
    return {
      steps: [],
      advice: [
        { object: name, text, sql: obstacle === undefined ? steps.flatMap(({ sql }) => sql) : [] },
      ],
    };
  });
  return {
    steps: parts.flatMap(({ steps }) => steps),
    advice: parts.flatMap(({ advice }) => advice),
  };
}

function isGlobal(index: AppIndex, table: TenantTable, all: readonly TenantTable[]): boolean {
  const { facts, keyColumn } = table;
  if (!index.unique || index.primary || !index.valid || index.name.endsWith("_cellfleet_unique")) {
    return false;
  }
  if (index.columns.includes(keyColumn)) return false;
  return !index.columns.some((name) => name !== null && tellsTenant(name, facts, all));
}

/** An id that no other cell gives, or a row of one tenant that is pointed to. */
function tellsTenant(name: string, facts: AppTable, all: readonly TenantTable[]): boolean {
  const found = columnOf(facts, name);
  if (found?.type === "uuid" || (found?.sequence ?? null) !== null || found?.leased === true) {
    return true;
  }
  return facts.foreignKeys.some(
    ({ columns, to }) => columns.includes(name) && all.some((other) => other.facts.name === to),
  );
}

function obstacleOf(index: AppIndex, facts: AppTable): string | undefined {
  if (index.referenced)
    return "foreign keys lean on it, so it must stay until they name the tenant too";
  if (facts.partitioned) return "the table is partitioned: change it partition by partition";
  if (index.partial || index.columns.includes(null)) {
    return `it has a condition or an expression: build its twin by hand (${index.definition})`;
  }
  return undefined;
}

function replaceSteps(index: AppIndex, facts: AppTable, keyColumn: string): Step[] {
  const name = sqlName(facts);
  const fresh = ownName(index.name, "cellfleet_unique");
  const there = facts.indexes.find((one) => one.name === fresh);
  const columns = [keyColumn, ...index.columns.flatMap((one) => (one === null ? [] : [one]))];
  const build: Step = {
    id: `unique-index ${facts.name}.${index.name}`,
    kind: "unique-index",
    object: facts.name,
    way: "concurrent",
    lock: "SHARE UPDATE EXCLUSIVE: reads and writes go on",
    why: "unique within each tenant",
    undo: `drop index concurrently ${column(facts.schema)}.${column(fresh)}`,
    sql: [`create unique index concurrently ${column(fresh)} on ${name} (${columnList(columns)});`],
  };
  const swap: Step = {
    id: `unique-swap ${facts.name}.${index.name}`,
    kind: "unique-swap",
    object: facts.name,
    way: "locked",
    hold: name,
    lock: "ACCESS EXCLUSIVE, for a moment",
    why: "the old rule goes in the moment in which the new one holds",
    undo: `create it again: ${index.definition}`,
    sql:
      index.constraint === null
        ? [`drop index ${column(facts.schema)}.${column(index.name)};`]
        : [
            `alter table ${name} drop constraint ${column(index.constraint)};`,
            `alter table ${name} add constraint ${column(fresh)} unique using index ${column(fresh)};`,
          ],
  };
  return [
    ...(there?.valid === false ? [dropInvalid(facts, fresh)] : []),
    ...(there?.valid === true ? [] : [build]),
    swap,
  ];
}
