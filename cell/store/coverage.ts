/**
 * Is every table of a tenant under the guard, and the guard out of the application's reach
 * (corrections A9, A20)? A forgotten table is silent loss, so what is not classed is a finding too.
 *
 * Pure: manifest and catalog in, findings out, each with the statement that mends it.
 */
import { escapeIdentifier, escapeLiteral } from "pg";
import type { StoreCatalog, TableFacts } from "./catalog.ts";
import { type Finding, finding, nameOf, sqlName } from "./finding.ts";
import type { Manifest, ManifestTable } from "./manifest.ts";
import { ownName } from "./own-name.ts";
import { childOf, fillStatement, schemaRisks } from "./schema-risks.ts";

export type { Finding, FindingCode } from "./finding.ts";

type TenantTable = Extract<ManifestTable, { readonly class: "tenant" }>;

const packTriggers = [
  "zz_cellfleet_guard",
  "zz_cellfleet_commit",
  "zz_cellfleet_truncate",
] as const;
const guardTrigger = packTriggers[0];

/** Nothing found means: every table is classed, every tenant table guarded, the role harmless. */
export function findGaps(manifest: Manifest, catalog: StoreCatalog, appRole: string): Finding[] {
  const classed = new Map(manifest.tables.map((table) => [nameOf(table), table]));
  const found = catalog.tables.flatMap((facts) => {
    // A partition is reached through its parent; on its own it needs what is not handed down.
    if (facts.partition) return [...partitionGaps(facts), ...ruleGaps(facts, undefined)];
    const entry = classed.get(nameOf(facts));
    return [
      ...tableGaps(facts, entry, manifest, { appRole, catalog }),
      ...schemaRisks(facts, entry, manifest, { appRole, catalog }),
      ...inheritanceGaps(facts, classed),
      ...ruleGaps(facts, entry),
    ];
  });
  const there = new Set(catalog.tables.map(nameOf));
  const missing = manifest.tables
    .filter((table) => !there.has(nameOf(table)))
    .map((table) =>
      finding("TABLE_MISSING", nameOf(table), "stands in the manifest, not in the database", {
        mend: `run the application's migrations, or remove ${nameOf(table)} from cellfleet.schema.yaml`,
      }),
    );
  return [...found, ...missing, ...viewGaps(catalog), ...roleGaps(catalog, appRole)];
}

function tableGaps(
  facts: TableFacts,
  entry: ManifestTable | undefined,
  manifest: Manifest,
  { appRole, catalog }: { readonly appRole: string; readonly catalog: StoreCatalog },
): Finding[] {
  const name = nameOf(facts);
  const { keyColumn } = manifest;
  const hasKey = facts.columns.some((column) => column.name === keyColumn);
  if (entry === undefined) {
    return [
      finding("TABLE_UNCLASSED", name, "is not classed in the manifest", {
        mend: `add to cellfleet.schema.yaml: "${name}: ${hasKey || childOf(facts, manifest, catalog) !== undefined ? "tenant" : "reference"}" (or tenant, reference, cell-local, ignore)`,
      }),
    ];
  }
  if (entry.class === "tenant") {
    const parent = childOf(facts, manifest, catalog);
    const fill = parent && fillStatement(facts, parent, entry.keyColumn);
    return tenantTableGaps(facts, entry, { appRole, fill });
  }
  if (entry.class !== "reference" || !hasKey) return [];
  return [
    finding("TABLE_MISCLASSED", name, `is classed reference but has the key column ${keyColumn}`, {
      mend: `in cellfleet.schema.yaml: "${name}: tenant", or cell-local if its rows never move`,
    }),
  ];
}

function tenantTableGaps(
  facts: TableFacts,
  entry: TenantTable,
  { appRole, fill }: { readonly appRole: string; readonly fill: string | undefined },
): Finding[] {
  const name = nameOf(facts);
  const key = facts.columns.find((column) => column.name === entry.keyColumn);
  if (key === undefined) {
    return [
      finding("KEY_COLUMN_MISSING", name, `has no column ${entry.keyColumn}`, {
        mend:
          fill ??
          `alter table ${sqlName(facts)} add column ${escapeIdentifier(entry.keyColumn)} text;`,
      }),
    ];
  }
  const nullable = key.notNull
    ? []
    : [
        finding("KEY_COLUMN_NULLABLE", name, `${entry.keyColumn} may be null`, {
          mend: `alter table ${sqlName(facts)} alter column ${escapeIdentifier(entry.keyColumn)} set not null;`,
        }),
      ];
  return [
    ...nullable,
    ...identityGaps(facts, entry),
    ...guardGaps(facts, entry),
    ...privilegeGaps(facts, appRole),
  ];
}

/** Without the key column in the row's identity its changes cannot be replicated by tenant. */
function identityGaps(facts: TableFacts, entry: TenantTable): Finding[] {
  if (facts.identity.includes(entry.keyColumn)) return [];
  const index = escapeIdentifier(ownName(facts.table, "cellfleet_identity"));
  const columns = [entry.keyColumn, ...facts.primaryKey].map((column) => escapeIdentifier(column));
  const mend =
    facts.primaryKey.length === 0
      ? `alter table ${sqlName(facts)} replica identity full;`
      : `create unique index concurrently ${index} on ${sqlName(facts)} (${columns.join(", ")}); ` +
        `alter table ${sqlName(facts)} replica identity using index ${index};`;
  const text = `neither primary key nor replica identity contains ${entry.keyColumn}`;
  return [finding("KEY_NOT_IN_IDENTITY", nameOf(facts), text, { mend })];
}

function guardGaps(facts: TableFacts, entry: TenantTable): Finding[] {
  const name = nameOf(facts);
  const args = [facts.schema, facts.table, entry.keyColumn, entry.keyspace];
  const mend = `select cellfleet.protect_table(${args.map((arg) => escapeLiteral(arg)).join(", ")});`;
  const gaps: Finding[] = [];
  const absent = packTriggers.filter((trigger) => !Object.hasOwn(facts.triggers, trigger));
  if (absent.length > 0) {
    const text = `has no enabled trigger ${absent.join(", ")}`;
    gaps.push(finding("GUARD_MISSING", name, text, { mend }));
  }
  const installed = facts.triggers[guardTrigger];
  if (installed !== undefined && installed.join("/") !== `${entry.keyspace}/${entry.keyColumn}`) {
    const text = `is guarded by ${installed.join("/")}, the manifest says ${entry.keyspace}/${entry.keyColumn}`;
    gaps.push(finding("GUARD_DIFFERENT", name, text, { mend }));
  }
  for (const trigger of facts.afterGuard) {
    gaps.push(
      finding("GUARD_NOT_LAST", name, `trigger ${trigger} fires after the guard`, {
        mend: `alter trigger ${escapeIdentifier(trigger)} on ${sqlName(facts)} rename to ${escapeIdentifier(`y_${trigger}`.slice(0, 63))};`,
      }),
    );
  }
  if (!isVisibilityInstalled(facts)) {
    gaps.push(
      finding("VISIBILITY_MISSING", name, "shows rows of tenants that are not active here", {
        mend,
      }),
    );
  }
  if (facts.unleased.length > 0) {
    const text = `${facts.unleased.join(", ")} takes ids that may collide with other cells'`;
    gaps.push(finding("IDS_NOT_LEASED", name, text, { mend }));
  }
  return gaps;
}

/**
 * What is asked of a parent is answered with its children's rows too, by the parent's policies; what is
 * written into a child meets the child's triggers. So neither side's guard covers the other.
 */
function inheritanceGaps(
  facts: TableFacts,
  classed: ReadonlyMap<string, ManifestTable>,
): Finding[] {
  const isTenant = (name: string) => classed.get(name)?.class === "tenant";
  const name = nameOf(facts);
  return facts.inherits
    .filter((parent) => isTenant(nameOf(parent)) || isTenant(name))
    .map((parent) =>
      finding(
        "INHERITED_TABLE",
        name,
        `inherits from ${nameOf(parent)}: its rows show there, past the guard of either`,
        {
          mend: `alter table ${sqlName(facts)} no inherit ${sqlName(parent)};`,
        },
      ),
    );
}

/** A rule writes elsewhere, or not at all, before any trigger sees a row. */
function ruleGaps(facts: TableFacts, entry: ManifestTable | undefined): Finding[] {
  if (entry?.class !== "tenant" && !Object.hasOwn(facts.triggers, guardTrigger)) return [];
  return facts.rules.map((rule) =>
    finding(
      "RULE_REWRITES",
      nameOf(facts),
      `rule ${rule} makes other statements of those on it, which the guard does not see; a trigger does the same in its sight`,
      { mend: `drop rule ${escapeIdentifier(rule)} on ${sqlName(facts)};` },
    ),
  );
}

const isVisibilityInstalled = ({ rowSecurity, policies }: TableFacts): boolean =>
  rowSecurity && policies.includes("cellfleet_visible");

/** Triggers on rows are handed down to partitions; policies and TRUNCATE triggers are not. */
function partitionGaps(facts: TableFacts): Finding[] {
  const [keyspace, keyColumn] = facts.triggers[guardTrigger] ?? [];
  if (keyspace === undefined || keyColumn === undefined) return [];
  if (isVisibilityInstalled(facts) && Object.hasOwn(facts.triggers, "zz_cellfleet_truncate"))
    return [];
  const args = [sqlName(facts), keyColumn, keyspace].map((arg) => escapeLiteral(arg));
  return [
    finding(
      "VISIBILITY_MISSING",
      nameOf(facts),
      "a partition that was added after its table was protected",
      {
        mend: `select cellfleet.install_policy(${args.join(", ")});`,
      },
    ),
  ];
}

function privilegeGaps(facts: TableFacts, appRole: string): Finding[] {
  const role = escapeIdentifier(appRole);
  const gaps: Finding[] = [];
  const add = (text: string, mend: string) =>
    gaps.push(finding("ROLE_TOO_STRONG", appRole, text, { mend }));
  if (facts.appOwns) {
    add(
      `owns ${nameOf(facts)} and could switch its guard off`,
      `alter table ${sqlName(facts)} owner to <a role that the application is not a member of>;`,
    );
    return gaps;
  }
  if (facts.appMayTrigger) {
    add(
      `may create triggers on ${nameOf(facts)}`,
      `revoke trigger on ${sqlName(facts)} from ${role};`,
    );
  }
  for (const sequence of facts.appSequences) {
    add(
      `may use ${sequence} past its leased ranges`,
      `revoke all on sequence ${sequence} from ${role};`,
    );
  }
  return gaps;
}

function viewGaps({ views }: StoreCatalog): Finding[] {
  return views.map(({ view, materialized, table }) =>
    finding("VIEW_UNFENCED", view, `reads ${table} as its owner, past the visibility policy`, {
      mend: materialized
        ? `revoke select on ${view} from the application's role, and read the table itself`
        : `alter view ${view} set (security_invoker = true);`,
    }),
  );
}

function roleGaps({ role }: StoreCatalog, appRole: string): Finding[] {
  const name = escapeIdentifier(appRole);
  const add = (wrong: boolean, text: string, mend: string): Finding[] =>
    wrong ? [finding("ROLE_TOO_STRONG", appRole, text, { mend })] : [];
  return [
    ...add(role.superuser, "is a superuser", `alter role ${name} nosuperuser;`),
    ...add(role.bypassesRowSecurity, "bypasses row security", `alter role ${name} nobypassrls;`),
    ...add(
      role.maySwitchTriggersOff && !role.superuser,
      "may set session_replication_role and so switch triggers off",
      `revoke set on parameter session_replication_role from ${name};`,
    ),
    ...role.becomes.flatMap((other) =>
      add(true, `may become ${other}`, `revoke ${escapeIdentifier(other)} from ${name};`),
    ),
  ];
}
