/**
 * What is judged here beside the store's coverage, because it is seen in the application's catalog
 * before anything of ours stands there. Pure.
 */
import { type Finding, finding } from "../../cell/store/finding.ts";
import { ownName } from "../../cell/store/own-name.ts";
import type { AppCatalog, AppTable } from "./app-catalog.ts";
import { columnOf } from "./app-catalog.ts";
import { column, columnList, sqlName } from "./table-name.ts";
import type { TenantTable } from "./tenant-tables.ts";

export function ownFindings(catalog: AppCatalog, tables: readonly TenantTable[]): Finding[] {
  return [...tables.flatMap((table) => naturalKeys(table, tables)), ...openViews(catalog, tables)];
}

/** Texts that are called so are made by chance, as a rule; names and codes are chosen by people. */
const looksGenerated = /(^|_)(id|uuid|guid|ulid|uid|token|hash|secret)$|[a-z](Id|Uuid|Guid)$/;

/** A primary key that two tenants could both come to choose: their rows could not stand in one cell. */
function naturalKeys(table: TenantTable, all: readonly TenantTable[]): Finding[] {
  const { facts, keyColumn } = table;
  const { primaryKey } = facts;
  if (primaryKey.length === 0 || primaryKey.includes(keyColumn)) return [];
  if (primaryKey.some((name) => isTelling(name, facts, all))) return [];
  const name = sqlName(facts);
  const columns = columnList([keyColumn, ...primaryKey]);
  const fresh = column(ownName(facts.table, "per_tenant"));
  const text =
    `the primary key (${primaryKey.join(", ")}) is chosen, not given: two cells can choose the same, ` +
    `and then a tenant with it cannot move to the other; with ${keyColumn} in it they can`;
  return [
    finding("UNIQUE_WITHOUT_KEY", facts.name, text, {
      mend:
        `create unique index concurrently ${fresh} on ${name} (${columns}); ` +
        "-- then, with the foreign keys that refer to it changed: " +
        `alter table ${name} drop constraint …_pkey, add primary key using index ${fresh};`,
    }),
  ];
}

function isTelling(name: string, facts: AppTable, all: readonly TenantTable[]): boolean {
  const found = columnOf(facts, name);
  if (found === undefined || found.type === "uuid" || found.leased || found.sequence !== null)
    return true;
  if (looksGenerated.test(name)) return true;
  return facts.foreignKeys.some(
    ({ columns, to }) =>
      columns.length === 1 && columns[0] === name && all.some((other) => other.facts.name === to),
  );
}

/** Coverage sees views over guarded tables; before there is a guard they are open all the same. */
function openViews(catalog: AppCatalog, tables: readonly TenantTable[]): Finding[] {
  const tenants = new Set(tables.map(({ facts }) => facts.name));
  return catalog.views
    .filter(({ reads }) => reads.some((name) => tenants.has(name)))
    .map(({ name, sql, materialized, reads }) => {
      const read = reads.filter((one) => tenants.has(one)).join(", ");
      return finding(
        "VIEW_UNFENCED",
        name,
        `reads ${read} as its owner, past the visibility policy`,
        {
          mend: materialized
            ? `revoke select on ${sql} from the application's role, and read the table itself`
            : `alter view ${sql} set (security_invoker = true);`,
        },
      );
    });
}
