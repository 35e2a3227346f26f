/** Lists: a bounded page and an opaque cursor, the id of the last row in base64url. */
import { z } from "zod";
import { CellError } from "../../contract/errors.ts";

export const pageMax = 1000;
export const pageDefault = 200;

export const pageQuery = {
  limit: z.coerce.number().int().min(1).max(pageMax).default(pageDefault),
  cursor: z.string().max(400).optional(),
};

export const encodeCursor = (id: string): string => Buffer.from(id, "utf8").toString("base64url");

/** The id that the page begins after; `start` without a cursor. Throws VALIDATION_FAILED. */
export function decodeCursor(cursor: string | undefined, start: string): string {
  if (cursor === undefined) return start;
  const id = Buffer.from(cursor, "base64url").toString("utf8");
  // PostgreSQL takes no NUL in a text, and no id has a control character.
  if (id === "" || encodeCursor(id) !== cursor || /\p{Cc}/u.test(id)) throw notACursor();
  return id;
}

/** The same, for lists whose ids are numbers. */
export function decodeNumberCursor(cursor: string | undefined, start: number): number {
  const id = decodeCursor(cursor, String(start));
  if (!/^\d{1,16}$/.test(id)) throw notACursor();
  return Number(id);
}

const notACursor = () =>
  new CellError("VALIDATION_FAILED", "cursor: is not one that a list has answered");

/** `rows` holds up to one row more than the page, to know whether there is a next one. */
export function page<T>(
  rows: readonly T[],
  limit: number,
  idOf: (row: T) => string,
): { readonly items: readonly T[]; readonly next: string | null } {
  const items = rows.slice(0, limit);
  const last = items.at(-1);
  return {
    items,
    next: rows.length > limit && last !== undefined ? encodeCursor(idOf(last)) : null,
  };
}
