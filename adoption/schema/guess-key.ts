/**
 * Which column says whose row it is? Guessed from names, from how many tables have it, and from what
 * it points to. Pure. A guess is shown with its reasons and may be overruled (`--key-column`).
 */
import type { AppCatalog, AppTable } from "./app-catalog.ts";

/** What the guard can read a key from. */
export const keyTypes = ["text", "character varying", "uuid", "bigint", "integer"] as const;
export const isKeyType = (type: string): boolean => (keyTypes as readonly string[]).includes(type);

export type KeyGuess = {
  readonly column: string;
  /** Tables that have it, with a type that can be guarded. */
  readonly tables: number;
  /** The table whose rows are the tenants, and its column that the key points to. */
  readonly root: { readonly table: string; readonly column: string } | undefined;
  readonly why: string;
};

/** Words for the customer of a shared application, the surest first. */
const words = [
  ["tenant", 100],
  ["organization", 60],
  ["organisation", 60],
  ["org", 60],
  ["account", 50],
  ["workspace", 50],
  ["company", 45],
  ["customer", 40],
  ["client", 30],
  ["shop", 30],
  ["team", 30],
  ["site", 20],
  ["project", 15],
  ["user", 8],
  ["owner", 5],
] as const;

const suffixes = ["", "id", "uuid", "key", "slug", "guid"];

/** How much a name alone speaks for it; 0: not at all. */
export function weightOf(name: string): number {
  const plain = name.replaceAll(/[^A-Za-z0-9]/g, "").toLowerCase();
  for (const [word, weight] of words) {
    if (suffixes.some((suffix) => plain === word + suffix)) return weight;
  }
  return 0;
}

const isOwnTable = (table: AppTable): boolean => table.partitionOf === null;

/** Best first; empty: nothing looks like a key. */
export function guessKeys(catalog: AppCatalog): KeyGuess[] {
  const tables = catalog.tables.filter(isOwnTable);
  const names = new Set(
    tables.flatMap(({ columns }) => columns.map(({ name }) => name)).filter((n) => weightOf(n) > 0),
  );
  return [...names]
    .map((name) => guessOf(name, tables))
    .filter(({ tables: count }) => count > 0)
    .map((guess) => ({ guess, score: weightOf(guess.column) * (1 + guess.tables) }))
    .toSorted((a, b) => b.score - a.score || a.guess.column.localeCompare(b.guess.column))
    .map(({ guess }) => guess);
}

export function guessOf(name: string, tables: readonly AppTable[]): KeyGuess {
  const having = tables.filter(({ columns }) =>
    columns.some((column) => column.name === name && isKeyType(column.type)),
  );
  const root = rootOf(name, tables);
  const points = root === undefined ? "" : `; it points to ${root.table}(${root.column})`;
  return {
    column: name,
    tables: having.length,
    root,
    why: `${name} is a column of ${having.length} of ${tables.length} tables${points}`,
  };
}

/** The table that most foreign keys of this one column lead to. */
function rootOf(name: string, tables: readonly AppTable[]): KeyGuess["root"] {
  const votes = new Map<string, { table: string; column: string; count: number }>();
  for (const table of tables) {
    for (const { columns, to, toColumns } of table.foreignKeys) {
      const [column] = toColumns;
      if (columns.length !== 1 || columns[0] !== name || column === undefined) continue;
      const vote = votes.get(`${to}.${column}`) ?? { table: to, column, count: 0 };
      votes.set(`${to}.${column}`, { ...vote, count: vote.count + 1 });
    }
  }
  const [best] = [...votes.values()].toSorted((a, b) => b.count - a.count);
  return best === undefined ? undefined : { table: best.table, column: best.column };
}
