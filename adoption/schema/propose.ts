/**
 * A manifest for a schema that has none: each table is classed with the reason why, and what cannot
 * be judged from a catalog is left open, because a wrong guess here would be silent loss. Pure.
 */
import type { TableClass } from "../../cell/store/manifest.ts";
import type { AppCatalog, AppTable } from "./app-catalog.ts";
import { columnOf } from "./app-catalog.ts";
import { guessKeys, guessOf, isKeyType, type KeyGuess } from "./guess-key.ts";
import { findKeySources, type KeySource } from "./key-path.ts";

export type ProposedTable = {
  readonly name: string;
  /** `undecided`: a person has to say; the table stands in the file as a comment. */
  readonly class: TableClass | "undecided";
  /** Where it is not the manifest's. */
  readonly keyColumn?: string;
  readonly why: string;
  /** True: `schema check` will find something here. */
  readonly finding: boolean;
};

export type Proposal = {
  readonly keyColumn: string;
  readonly keyWhy: string;
  readonly otherKeys: readonly KeyGuess[];
  readonly tables: readonly ProposedTable[];
};

const migrationTables =
  /^(_?schema_?migrations?(_history)?|ar_internal_metadata|_?knex_migrations(_lock)?|flyway_schema_history|databasechangelog(lock)?|django_migrations|alembic_version|_prisma_migrations|__?drizzle_migrations|typeorm_metadata|sequelize_?meta|_?migrations?(_lock|_history|_log)?|goose_db_version|gorp_migrations|atlas_schema_revisions|__efmigrationshistory|pgmigrations|phinxlog|doctrine_migration_versions|schema_(version|info)|current)$/i;
const machineTables =
  /(^|_)(jobs?|job_queues?|queues?|locks?|leases?|cron|crontabs?|schedules?|workers?|cache|sessions?|heartbeats?|elections?)($|_)/i;
const people = /^(users?|members?|people|persons?|accounts?|customers?|employees?|contacts?)$/i;
const lookupRowsMax = 10_000;
/** With less in the tenants' tables, few rows elsewhere say nothing. */
const rowsToJudgeBy = 1000;

/** Undefined when nothing looks like the key of a tenant, and none was named. */
export function proposeManifest(catalog: AppCatalog, wanted?: string): Proposal | undefined {
  const tables = catalog.tables.filter(({ partitionOf }) => partitionOf === null);
  const guesses = guessKeys(catalog);
  const key = wanted === undefined ? guesses[0] : guessOf(wanted, tables);
  if (key === undefined) return undefined;
  const known = knownKeys(tables, key);
  const sources = findKeySources(tables, known, () => key.column);
  const tenants = new Set([...known.keys(), ...sources.keys()]);
  const rows = tables
    .filter(({ name }) => tenants.has(name))
    .reduce((sum, table) => sum + Math.max(0, table.rows), 0);
  const context = { key, known, tenants, mayJudgeByRows: rows >= rowsToJudgeBy };
  return {
    keyColumn: key.column,
    keyWhy: wanted === undefined ? key.why : `named on the command line; ${key.why}`,
    otherKeys: guesses.filter(({ column }) => column !== key.column).slice(0, 3),
    tables: tables.map((table) => proposeTable(table, sources.get(table.name), context)),
  };
}

/** Tables that know their tenant: by the key column, or by being the tenants themselves. */
function knownKeys(tables: readonly AppTable[], key: KeyGuess): ReadonlyMap<string, string> {
  const having = tables
    .filter((table) => !migrationTables.test(table.table))
    .filter((table) => isKeyType(columnOf(table, key.column)?.type ?? ""))
    .map((table) => [table.name, key.column] as const);
  const { root } = key;
  if (root === undefined) return new Map(having);
  // What points to the tenants' table by itself is their key, whatever it is called.
  const pointing = tables.flatMap((table) => {
    const column = table.foreignKeys.find(
      ({ to, toColumns, columns }) =>
        to === root.table && toColumns.join() === root.column && columns.length === 1,
    )?.columns[0];
    return column === undefined || table.name === root.table ? [] : [[table.name, column] as const];
  });
  return new Map([...pointing, ...having, [root.table, root.column] as const]);
}

type Context = {
  readonly key: KeyGuess;
  /** Columns that are there, by table. */
  readonly known: ReadonlyMap<string, string>;
  readonly tenants: ReadonlySet<string>;
  /** An empty database does not tell which table is small for good. */
  readonly mayJudgeByRows: boolean;
};

function proposeTable(
  table: AppTable,
  source: KeySource | undefined,
  context: Context,
): ProposedTable {
  const { name } = table;
  const { key, known } = context;
  if (migrationTables.test(table.table)) {
    return { name, class: "ignore", why: "a migration tool's own table", finding: false };
  }
  const own = columnOf(table, key.column);
  if (key.root?.table === name) {
    const why = `its rows are the tenants: ${key.column} of other tables points to it`;
    return { name, class: "tenant", keyColumn: key.root.column, why, finding: false };
  }
  if (own !== undefined) return proposeKeyed(table, own.type, own.notNull, key.column);
  const pointing = columnOf(table, known.get(name) ?? "");
  if (pointing !== undefined) {
    const doubt = pointing.notNull ? "" : "; it may be null";
    const why = `${pointing.name} points to ${key.root?.table ?? ""}, as ${key.column} does elsewhere${doubt}`;
    return { name, class: "tenant", keyColumn: pointing.name, why, finding: !pointing.notNull };
  }
  if (source !== undefined) return proposeChild(table, source, key.column);
  return proposeKeyless(table, context);
}

function proposeKeyed(
  { name }: AppTable,
  type: string,
  notNull: boolean,
  keyColumn: string,
): ProposedTable {
  if (!isKeyType(type)) {
    const why = `has ${keyColumn}, but of type ${type}, which cannot be guarded`;
    return { name, class: "tenant", why, finding: true };
  }
  const why = notNull ? `has ${keyColumn}` : `has ${keyColumn}, which may be null`;
  return { name, class: "tenant", why, finding: !notNull };
}

function proposeChild({ name }: AppTable, source: KeySource, keyColumn: string): ProposedTable {
  const way = `${source.foreignKey.columns.join(", ")} leads to ${source.parent}`;
  const doubt = source.mayBeNull ? "; where that may be null, the row has no tenant" : "";
  const why = `has no ${keyColumn}, but ${way}, so that it can be filled${doubt}`;
  return { name, class: "tenant", why, finding: true };
}

function proposeKeyless(
  table: AppTable,
  { tenants, mayJudgeByRows }: Pick<Context, "tenants" | "mayJudgeByRows">,
): ProposedTable {
  const { name } = table;
  if (people.test(table.table)) {
    const why = "looks like people: do they belong to one tenant each, or to several?";
    return { name, class: "undecided", why, finding: true };
  }
  const toTenants = table.foreignKeys.some(({ to }) => tenants.has(to) && to !== name);
  if (machineTables.test(table.table)) {
    const why =
      "looks like a queue, a lock or a cache; is it about no tenant at all? Say cell-local";
    return { name, class: "undecided", why, finding: true };
  }
  const isSmall = table.rows >= 0 && table.rows <= lookupRowsMax;
  const isQuiet = table.writes <= Math.max(100, table.rows * 2);
  if (!toTenants && isSmall && isQuiet && table.rows > 0 && mayJudgeByRows) {
    const why = `no key, ${Math.round(table.rows)} rows, seldom written: a lookup table`;
    return { name, class: "reference", why, finding: false };
  }
  const why =
    table.rows <= 0 || !mayJudgeByRows
      ? "no key and too few rows to judge by: reference, cell-local, or a tenant's table without its key?"
      : "no key, but it grows or is written often: whose rows are these?";
  return { name, class: "undecided", why, finding: true };
}
