/**
 * Names of what we make beside an application's tables: indexes, functions. PostgreSQL cuts names at 63
 * bytes, silently; ours say whose they are, and two tables never get the same one, however long their
 * own names are.
 */
import { createHash } from "node:crypto";

const longest = 63;

export function ownName(table: string, suffix: string): string {
  const whole = `${table}_${suffix}`;
  if (Buffer.byteLength(whole) <= longest) return whole;
  const end = `_${createHash("sha256").update(table).digest("hex").slice(0, 8)}_${suffix}`;
  return cut(table, longest - Buffer.byteLength(end)) + end;
}

/** As earlier releases named them: for what they left behind. */
export const formerName = (table: string, suffix: string): string =>
  `${cut(table, longest - suffix.length - 1)}_${suffix}`;

function cut(name: string, bytes: number): string {
  let stem = name;
  while (Buffer.byteLength(stem) > bytes) stem = stem.slice(0, -1);
  return stem;
}
