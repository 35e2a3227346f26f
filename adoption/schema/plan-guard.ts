/**
 * Steps that put a table under the guard, each of its own, so that each holds the table for a moment
 * only; and the steps that take them off again. Pure.
 */
import { escapeLiteral } from "pg";
import type { AppCatalog, AppTable } from "./app-catalog.ts";
import type { TenantTable } from "./plan-install.ts";
import type { Step } from "./step.ts";
import { column, sqlName } from "./table-name.ts";

const brief = "ACCESS EXCLUSIVE, for a moment";
const guardTriggers = ["zz_cellfleet_guard", "zz_cellfleet_commit"];
const truncateTrigger = "zz_cellfleet_truncate";
const policy = "cellfleet_visible";

const call = (name: string, ...args: readonly string[]): string =>
  `select cellfleet.${name}(${args.map((arg) => escapeLiteral(arg)).join(", ")});`;

export function guardSteps(table: TenantTable, catalog: AppCatalog): Step[] {
  const { facts, keyColumn, keyspace } = table;
  const name = sqlName(facts);
  const family = familyOf(facts, catalog.tables);
  return [
    ...idSteps(facts),
    ...(isGuarded(table)
      ? []
      : [
          {
            id: `guard ${facts.name}`,
            kind: "guard",
            object: facts.name,
            way: "locked",
            hold: name,
            lock: brief,
            why: "PostgreSQL itself then checks each row that is written against ownership and lease",
            undo: "cellctl schema uninstall",
            sql: [call("install_guard", name, keyColumn, keyspace)],
          } as const,
        ]),
    ...family.filter((one) => !isVeiled(one)).map((one) => veil(one, keyColumn, keyspace)),
    ...(isRegistered(table, catalog) ? [] : [register(table)]),
  ];
}

/** A partition is protected through its parent, but policies and TRUNCATE triggers are not handed down. */
function familyOf(table: AppTable, all: readonly AppTable[]): AppTable[] {
  const children = all.filter(({ partitionOf }) => partitionOf === table.name);
  return [table, ...children.flatMap((child) => familyOf(child, all))];
}

function isGuarded({ facts, keyColumn, keyspace }: TenantTable): boolean {
  const found = new Map(facts.triggers.map(({ name, args }) => [name, args]));
  const [first] = guardTriggers;
  return (
    guardTriggers.every((name) => found.has(name)) &&
    found.get(first ?? "")?.join("/") === `${keyspace}/${keyColumn}`
  );
}

const isVeiled = ({ rowSecurity, policies, triggers }: AppTable): boolean =>
  rowSecurity && policies.includes(policy) && triggers.some(({ name }) => name === truncateTrigger);

function isRegistered({ facts, keyColumn, keyspace }: TenantTable, catalog: AppCatalog): boolean {
  return catalog.pack.guarded.some(
    (one) => one.name === facts.name && one.keyColumn === keyColumn && one.keyspace === keyspace,
  );
}

function idSteps(facts: AppTable): Step[] {
  const unleased = facts.columns.filter(({ sequence, leased }) => sequence !== null && !leased);
  if (unleased.length === 0) return [];
  const names = unleased.map((one) => one.name).join(", ");
  return [
    {
      id: `lease-ids ${facts.name}`,
      kind: "lease-ids",
      object: facts.name,
      way: "locked",
      // No hold: the highest id is read first, which may take a while without an index on it.
      lock: brief,
      why: `${names} takes ids from a sequence that other cells have too; from now on from ranges of this cell's own`,
      undo: "cellctl schema uninstall: the sequence goes on from where it stands",
      sql: [call("lease_ids", sqlName(facts))],
    },
  ];
}

function veil(facts: AppTable, keyColumn: string, keyspace: string): Step {
  const name = sqlName(facts);
  return {
    id: `visibility ${facts.name}`,
    kind: "visibility",
    object: facts.name,
    way: "locked",
    hold: name,
    lock: brief,
    why: "rows of tenants that are not active in this cell are hidden from the application; TRUNCATE is refused",
    undo: "cellctl schema uninstall",
    sql: [call("install_policy", name, keyColumn, keyspace)],
  };
}

function register({ facts, keyColumn, keyspace }: TenantTable): Step {
  return {
    id: `register ${facts.name}`,
    kind: "register",
    object: facts.name,
    way: "ours",
    lock: "none on your tables",
    why: "moves, counts and purges walk over the tables that stand in this list",
    undo: "cellctl schema uninstall",
    sql: [call("register_table", facts.schema, facts.table, keyColumn, keyspace)],
  };
}

/** All that stands on a table of ours, off again. Each in a transaction of its own. */
export function unguardSteps(facts: AppTable): Step[] {
  const name = sqlName(facts);
  const ours = facts.triggers.filter(({ name: trigger }) =>
    [...guardTriggers, truncateTrigger].includes(trigger),
  );
  const policies = facts.policies.filter((one) => one === policy || one === "cellfleet_open");
  const isOnlyOurs = facts.policies.length === policies.length;
  const sql = [
    ...ours.map((one) => `drop trigger if exists ${column(one.name)} on ${name};`),
    ...policies.map((one) => `drop policy if exists ${column(one)} on ${name};`),
    // Row security that was on before has policies of the application's own, or hid everything.
    ...(policies.length > 0 && isOnlyOurs
      ? [`alter table ${name} disable row level security;`]
      : []),
  ];
  const leased = facts.columns.filter((one) => one.leased);
  const base = { object: facts.name, way: "locked", hold: name, lock: brief } as const;
  return [
    ...(sql.length === 0
      ? []
      : [
          {
            ...base,
            id: `unguard ${facts.name}`,
            kind: "unguard",
            why: "guard, commit check, TRUNCATE check and visibility come off together",
            undo: "cellctl schema install",
            sql,
          } as const,
        ]),
    ...(leased.length === 0
      ? []
      : [
          {
            ...base,
            id: `unlease-ids ${facts.name}`,
            kind: "unlease-ids",
            why: "ids come from the plain sequence again, which stands where the leased range in use had come to",
            undo: "cellctl schema install",
            sql: leased.map(
              (one) =>
                `alter table ${name} alter column ${column(one.name)} set default nextval(${escapeLiteral(one.sequence ?? "")}::regclass);`,
            ),
          } as const,
        ]),
  ];
}
