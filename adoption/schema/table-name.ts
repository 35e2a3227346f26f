/** Names of tables and columns as SQL text. Every name from a catalog or a file passes here. */
import { escapeIdentifier } from "pg";

export const sqlName = ({
  schema,
  table,
}: {
  readonly schema: string;
  readonly table: string;
}): string => `${escapeIdentifier(schema)}.${escapeIdentifier(table)}`;

export const column = (name: string): string => escapeIdentifier(name);
export const columnList = (names: readonly string[]): string =>
  names.map((name) => escapeIdentifier(name)).join(", ");
