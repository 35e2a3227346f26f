/**
 * Steps that give a table its key column, filled and not null, while the application writes. Pure.
 *
 * The column comes with a trigger that fills it for what the application inserts, because the
 * application knows nothing of it; then the rows that were there before are filled in batches; then
 * the promise is made with a check that is validated beside all queries.
 */
import { escapeLiteral } from "pg";
import { ownName } from "../../cell/store/own-name.ts";
import { columnOf } from "./app-catalog.ts";
import type { KeySource } from "./key-path.ts";
import type { Step } from "./step.ts";
import { column, sqlName } from "./table-name.ts";
import { fillTrigger, isFilledByUs, type TenantTable } from "./tenant-tables.ts";

export const notNullCheck = "cellfleet_key_not_null";
export const fillFunction = (table: string): string => ownName(table, "cellfleet_fill_key");

const brief = "ACCESS EXCLUSIVE, for a moment";

export function keySteps(table: TenantTable): Step[] {
  const { facts, keyColumn, source } = table;
  const own = columnOf(facts, keyColumn);
  if (own?.notNull === true) return checkLeftover(table);
  const fills = isFilledByUs(facts);
  if (own !== undefined && !fills) return [];
  const isGuarded = facts.triggers.some(({ name }) => name === "zz_cellfleet_guard");
  return [
    ...(source !== undefined && (own === undefined || !fills) ? [addColumn(table, source)] : []),
    // Rows that may lead nowhere leave no trace of having been looked at; the guard comes after it.
    ...(source === undefined || (source.mayBeNull && isGuarded) ? [] : [backfill(table, source)]),
    // Where rows may stand without a parent, somebody has to say whose they are.
    ...(source?.mayBeNull === true ? [] : notNull(table)),
  ];
}

function addColumn(table: TenantTable, source: KeySource): Step {
  const { facts, keyColumn } = table;
  const name = sqlName(facts);
  const fill = `${column(facts.schema)}.${column(fillFunction(facts.table))}`;
  return {
    id: `add-key-column ${facts.name}`,
    kind: "add-key-column",
    object: facts.name,
    way: "locked",
    hold: name,
    lock: brief,
    why: `its rows are told apart by ${keyColumn}, which it lacks; a trigger fills it from ${source.parent} for what is inserted from now on`,
    undo: `cellctl schema uninstall --drop-added, or: alter table ${name} drop column ${column(keyColumn)}`,
    sql: [
      fillFunctionSql(table, source),
      `revoke all on function ${fill}() from public;`,
      giveAway(`alter function ${fill}() owner to ${column(facts.owner)}`),
      `alter table ${name} add column if not exists ${column(keyColumn)} ${source.type};`,
      `comment on column ${name}.${column(keyColumn)} is ${escapeLiteral(addedComment)};`,
      `create or replace trigger ${fillTrigger} before insert or update on ${name} for each row when (new.${column(keyColumn)} is null) execute function ${fill}(${escapeLiteral(keyColumn)});`,
    ],
  };
}

/** How `uninstall --drop-added` knows its own. */
export const addedComment = "added by cellctl schema install: the key of the row's tenant";

/** What a superuser made must not run with a superuser's rights. */
const giveAway = (statement: string): string =>
  `do ${escapeLiteral(`begin if (select rolsuper from pg_roles where rolname = current_user) then execute ${escapeLiteral(statement)}; end if; end`)};`;

/** SECURITY DEFINER of the table's owner: who may insert a child need not be allowed to read the parent. */
function fillFunctionSql({ facts, keyColumn }: TenantTable, source: KeySource): string {
  const { foreignKey } = source;
  const matches = foreignKey.columns.map((own, index) => {
    return `p.${column(foreignKey.toColumns[index] ?? "")} = new.${column(own)}`;
  });
  const body = `
begin
  select p.${column(source.parentColumn)} into new.${column(keyColumn)} from ${dotted(source.parent)} p where ${matches.join(" and ")};
  return new;
end `;
  return (
    `create or replace function ${column(facts.schema)}.${column(fillFunction(facts.table))}() returns trigger ` +
    `language plpgsql security definer set search_path = pg_catalog, pg_temp as ${escapeLiteral(body)};`
  );
}

/** Names of the catalog are `schema.table`; a schema with a dot in its name cannot stand in a manifest. */
function dotted(name: string): string {
  const at = name.indexOf(".");
  return sqlName({ schema: name.slice(0, at), table: name.slice(at + 1) });
}

function backfill({ facts, keyColumn, keyspace }: TenantTable, source: KeySource): Step {
  const at = source.parent.indexOf(".");
  const parent = { schema: source.parent.slice(0, at), table: source.parent.slice(at + 1) };
  const on = source.foreignKey.columns.map(
    (own, index) => [own, source.foreignKey.toColumns[index] ?? ""] as const,
  );
  return {
    id: `backfill ${facts.name}`,
    kind: "backfill",
    object: facts.name,
    way: "batches",
    lock: "ROW EXCLUSIVE; each batch holds its rows for some milliseconds and skips rows that are in use",
    why: `rows that were there before get ${keyColumn} from ${source.parent}; your own UPDATE triggers fire for them`,
    undo: "nothing to take back: the column was empty",
    sql: [],
    backfill: {
      schema: facts.schema,
      table: facts.table,
      keyColumn,
      keyspace,
      parent: { ...parent, column: source.parentColumn },
      on,
      rowsEstimate: Math.max(0, facts.rows),
      mayBeNull: source.mayBeNull,
    },
  };
}

/** SET NOT NULL alone reads the whole table under its lock; with a validated check it reads nothing. */
function notNull(table: TenantTable): Step[] {
  const { facts, keyColumn } = table;
  const name = sqlName(facts);
  const key = column(keyColumn);
  const check = facts.checks.find((one) => one.name === notNullCheck);
  const base = {
    object: facts.name,
    undo: `alter table ${name} alter column ${key} drop not null`,
  };
  const add: Step = {
    ...base,
    id: `key-not-null-check ${facts.name}`,
    kind: "key-not-null-check",
    way: "locked",
    hold: name,
    lock: brief,
    why: `from now on no row without ${keyColumn}; older rows are not looked at yet`,
    sql: [
      `alter table ${name} add constraint ${notNullCheck} check (${key} is not null) not valid;`,
    ],
  };
  const validate: Step = {
    ...base,
    id: `key-not-null-validate ${facts.name}`,
    kind: "key-not-null-validate",
    way: "concurrent",
    lock: "SHARE UPDATE EXCLUSIVE: reads and writes go on",
    why: "the rows that were there before are looked at",
    sql: [`alter table ${name} validate constraint ${notNullCheck};`],
  };
  const set: Step = {
    ...base,
    id: `key-not-null ${facts.name}`,
    kind: "key-not-null",
    way: "locked",
    hold: name,
    lock: `${brief}; the validated check spares reading the table`,
    why: "a row without a key belongs to nobody, and replication needs it not null",
    sql: [
      `alter table ${name} alter column ${key} set not null;`,
      `alter table ${name} drop constraint ${notNullCheck};`,
    ],
  };
  return [
    ...(check === undefined ? [add] : []),
    ...(check?.validated === true ? [] : [validate]),
    set,
  ];
}

/** The column is not null, and the check that led there was not taken away: a crash between the two. */
function checkLeftover({ facts }: TenantTable): Step[] {
  if (!facts.checks.some(({ name }) => name === notNullCheck)) return [];
  const name = sqlName(facts);
  return [
    {
      id: `key-not-null ${facts.name}`,
      kind: "key-not-null",
      object: facts.name,
      way: "locked",
      hold: name,
      lock: brief,
      why: "the check has done its work",
      undo: "nothing to take back",
      sql: [`alter table ${name} drop constraint ${notNullCheck};`],
    },
  ];
}
