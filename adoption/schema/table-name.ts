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

/** PostgreSQL cuts names at 63 bytes, silently; ours stay whole and say whose they are. */
export function ownName(table: string, suffix: string): string {
  const room = 63 - suffix.length - 1;
  let stem = table;
  while (Buffer.byteLength(stem) > room) stem = stem.slice(0, -1);
  return `${stem}_${suffix}`;
}
