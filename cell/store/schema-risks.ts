/**
 * What a reviewer would find in the application's own tables before they are spread over cells:
 * uniqueness that no two cells can keep, rows that a tenant's move would leave behind, rights that
 * reach over tenants. Pure; each finding with the statement that mends it.
 */
import { escapeIdentifier } from "pg";
import type { StoreCatalog, TableFacts } from "./catalog.ts";
import { type Finding, finding, nameOf, sqlName } from "./finding.ts";
import type { Manifest, ManifestTable } from "./manifest.ts";
import { ownName } from "./own-name.ts";

type Context = { readonly appRole: string; readonly catalog: StoreCatalog };
type TenantTable = Extract<ManifestTable, { readonly class: "tenant" }>;

export function schemaRisks(
  facts: TableFacts,
  entry: ManifestTable | undefined,
  manifest: Manifest,
  { appRole, catalog }: Context,
): Finding[] {
  if (entry?.class === "ignore") return [];
  if (entry?.class !== "tenant") return childGaps(facts, manifest, catalog);
  const hasKey = facts.columns.some((column) => column.name === entry.keyColumn);
  return [
    ...(hasKey ? uniqueGaps(facts, entry, manifest, catalog) : []),
    ...(hasKey ? primaryKeyGaps(facts, entry) : []),
    ...largeObjectGaps(facts),
    ...truncateGaps(facts, appRole),
    ...sharedSequenceGaps(facts, catalog),
    ...policyGaps(facts, appRole),
  ];
}

/** A foreign key to a table of tenants, and how that one's key column is called and typed. */
export type Parent = {
  readonly facts: TableFacts;
  readonly keyColumn: string;
  readonly type: string;
  readonly columns: readonly string[];
  readonly parentColumns: readonly string[];
};

export function childOf(
  facts: TableFacts,
  manifest: Manifest,
  catalog: StoreCatalog,
): Parent | undefined {
  for (const reference of facts.foreignKeys) {
    const name = nameOf(reference);
    const entry = manifest.tables.find((table) => nameOf(table) === name);
    const parent = catalog.tables.find((table) => nameOf(table) === name);
    if (entry?.class !== "tenant" || parent === undefined || name === nameOf(facts)) continue;
    const key = parent.columns.find((column) => column.name === entry.keyColumn);
    if (key === undefined) continue;
    const { columns, parentColumns } = reference;
    return { facts: parent, keyColumn: key.name, type: key.type, columns, parentColumns };
  }
  return undefined;
}

const batchRows = 10_000;

/** Tables that inherit from this one have rows of their own at the same places. */
const onlyOf = ({ partitioned }: TableFacts): string => (partitioned ? "" : "only ");

function inBatch(facts: TableFacts, alias: string, condition: string, rows: number): string {
  const table = `${onlyOf(facts)}${sqlName(facts)}`;
  // A place stands once in each partition.
  return facts.partitioned
    ? `(${alias}.tableoid, ${alias}.ctid) in (select tableoid, ctid from ${table} where ${condition} limit ${rows})`
    : `${alias}.ctid = any (array(select ctid from ${table} where ${condition} limit ${rows}))`;
}

/** Adds the key column and fills it from the parent, a batch at a time. */
export function fillStatement(child: TableFacts, parent: Parent, keyColumn: string): string {
  const table = sqlName(child);
  const key = escapeIdentifier(keyColumn);
  const joined = parent.columns
    .map((column, index) => {
      const there = parent.parentColumns[index] ?? column;
      return `p.${escapeIdentifier(there)} = c.${escapeIdentifier(column)}`;
    })
    .join(" and ");
  return (
    `alter table ${table} add column ${key} ${parent.type}; ` +
    `update ${onlyOf(child)}${table} c set ${key} = p.${escapeIdentifier(parent.keyColumn)} from ${sqlName(parent.facts)} p ` +
    `where ${joined} and c.${key} is null and ${inBatch(child, "c", `${key} is null`, batchRows)} ` +
    `/* repeat until it updates 0 rows */; ` +
    `alter table ${table} alter column ${key} set not null;`
  );
}

/** Classed as nobody's, although its rows belong to rows of a tenant. */
function childGaps(facts: TableFacts, manifest: Manifest, catalog: StoreCatalog): Finding[] {
  const parent = childOf(facts, manifest, catalog);
  if (parent === undefined || facts.columns.some(({ name }) => name === manifest.keyColumn))
    return [];
  const text = `refers to ${nameOf(parent.facts)}, a table of tenants, and has no key column: a move would leave its rows behind`;
  return [
    finding("CHILD_WITHOUT_KEY", nameOf(facts), text, {
      mend: fillStatement(facts, parent, manifest.keyColumn),
    }),
  ];
}

/** An id that no other cell gives makes whatever contains it unique over all cells. */
function isTellingColumn(name: string | null, facts: TableFacts): boolean {
  if (name === null) return false;
  const type = facts.columns.find((column) => column.name === name)?.type;
  return type === "uuid" || Object.hasOwn(facts.sequences, name) || facts.unleased.includes(name);
}

/** So does a reference to one row of a tenant. */
function pointsToTenant(
  name: string | null,
  facts: TableFacts,
  manifest: Manifest,
  catalog: StoreCatalog,
): boolean {
  const reference = facts.foreignKeys.find(
    ({ columns }) => columns.length === 1 && columns[0] === name,
  );
  if (reference === undefined) return false;
  return childOf({ ...facts, foreignKeys: [reference] }, manifest, catalog) !== undefined;
}

function uniqueGaps(
  facts: TableFacts,
  entry: TenantTable,
  manifest: Manifest,
  catalog: StoreCatalog,
): Finding[] {
  const table = sqlName(facts);
  return facts.uniques
    .filter(
      ({ columns }) =>
        !columns.includes(entry.keyColumn) &&
        !columns.some(
          (column) =>
            isTellingColumn(column, facts) || pointsToTenant(column, facts, manifest, catalog),
        ),
    )
    .map(({ name, definition, columns, constraint, referred }) => {
      const fresh = escapeIdentifier(ownName(name, "per_tenant"));
      const create = definition
        .replace(
          /^CREATE UNIQUE INDEX .*? ON .*? USING (\w+) \(/,
          `create unique index concurrently ${fresh} on ${table} using $1 (${escapeIdentifier(entry.keyColumn).replaceAll("$", "$$$$")}, `,
        )
        .concat("; ");
      const drop = constraint
        ? `alter table ${table} drop constraint ${escapeIdentifier(name)};`
        : `drop index concurrently ${escapeIdentifier(facts.schema)}.${escapeIdentifier(name)};`;
      const what = columns.map((column) => column ?? "an expression").join(", ");
      const also = referred ? "; foreign keys refer to it, and have to name the key too" : "";
      return finding(
        "UNIQUE_WITHOUT_KEY",
        nameOf(facts),
        `${name} makes (${what}) unique over all tenants, which no two cells can keep: unique per tenant is what the statement makes, over all cells is what claims are for${also}`,
        { mend: create + drop },
      );
    });
}

function primaryKeyGaps(facts: TableFacts, entry: TenantTable): Finding[] {
  if (facts.primaryKey.length > 0) return [];
  const table = sqlName(facts);
  const key = escapeIdentifier(entry.keyColumn);
  const ready = facts.uniques.find(
    ({ columns, allNotNull, partial, constraint }) =>
      allNotNull && !partial && !constraint && columns.includes(entry.keyColumn),
  );
  const mend =
    ready === undefined
      ? `alter table ${table} add column cellfleet_id uuid not null default gen_random_uuid(), add primary key (${key}, cellfleet_id);`
      : `alter table ${table} add primary key using index ${escapeIdentifier(ready.name)};`;
  return [
    finding(
      "PRIMARY_KEY_MISSING",
      nameOf(facts),
      "has no primary key: changes of its rows are replicated by comparing whole rows",
      { mend },
    ),
  ];
}

/** The column holds a number; what it stands for lies in a table that belongs to no tenant. */
function largeObjectGaps(facts: TableFacts): Finding[] {
  const table = sqlName(facts);
  return facts.columns
    .filter(({ type }) => type === "oid" || type === "lo" || type.endsWith(".lo"))
    .map(({ name }) => {
      const from = escapeIdentifier(name);
      const to = escapeIdentifier(`${name.slice(0, 50)}_bytes`);
      return finding(
        "LARGE_OBJECT",
        nameOf(facts),
        `${name} points to large objects, which are neither replicated nor moved with a tenant`,
        {
          mend:
            `alter table ${table} add column ${to} bytea; ` +
            `update ${onlyOf(facts)}${table} c set ${to} = lo_get(${from}) where ${to} is null ` +
            `and ${inBatch(facts, "c", `${from} is not null and ${to} is null`, 100)} /* repeat until it updates 0 rows */; ` +
            `alter table ${table} drop column ${from};`,
        },
      );
    });
}

function truncateGaps(facts: TableFacts, appRole: string): Finding[] {
  // An owner has every right; that is a finding of its own.
  if (!facts.appMayTruncate || facts.appOwns) return [];
  return [
    finding(
      "TRUNCATE_GRANTED",
      nameOf(facts),
      `${appRole} may TRUNCATE it, which is refused (CF005): it would remove rows of every tenant`,
      { mend: `revoke truncate on ${sqlName(facts)} from ${escapeIdentifier(appRole)};` },
    ),
  ];
}

/** Its ids are leased for one table's use; the other's would run past the ranges. */
function sharedSequenceGaps(facts: TableFacts, catalog: StoreCatalog): Finding[] {
  const name = nameOf(facts);
  return Object.entries(facts.sequences).flatMap(([column, sequence]) => {
    const users = catalog.tables.filter(
      (table) => !table.partition && Object.values(table.sequences).includes(sequence),
    );
    // The first keeps it.
    const [first] = users.map(nameOf).toSorted();
    if (users.length < 2 || first === name) return [];
    const fresh = `${escapeIdentifier(facts.schema)}.${escapeIdentifier(ownName(`${facts.table}_${column}`, "own_seq"))}`;
    const [table, id] = [sqlName(facts), escapeIdentifier(column)];
    return [
      finding(
        "SEQUENCE_SHARED",
        name,
        `${column} takes its ids from ${sequence}, as ${first} does`,
        {
          mend:
            `create sequence ${fresh} owned by ${table}.${id}; ` +
            `select setval('${fresh.replaceAll("'", "''")}', (select coalesce(max(${id}), 0) + 1 from ${table}), false); ` +
            `alter table ${table} alter column ${id} set default nextval('${fresh.replaceAll("'", "''")}');`,
        },
      ),
    ];
  });
}

function policyGaps(facts: TableFacts, appRole: string): Finding[] {
  return facts.hidingPolicies.map((policy) =>
    finding(
      "POLICY_HIDES",
      nameOf(facts),
      `policy ${policy} is restrictive for every role: rows that it hides from the pack's owner are neither counted nor purged`,
      {
        mend: `alter policy ${escapeIdentifier(policy)} on ${sqlName(facts)} to ${escapeIdentifier(appRole)};`,
      },
    ),
  );
}
