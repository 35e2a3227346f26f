/**
 * How far a session has written: `CELL.LSN`, as answers to writes carry it and reads bring it back, in
 * a header or a cookie. Pure.
 *
 * Always true: whatever is not certainly a position in this cell's log is no proof, and a read without
 * proof goes to the primary. Of several positions the furthest counts.
 */
import { positionCookie, positionHeader } from "../../contract/headers.ts";
import type { CellId } from "../../contract/ids.ts";
import { headerValues } from "../../contract/raw-headers.ts";

export type SessionPosition =
  /** It has written nothing that anybody knows of. */
  | { readonly kind: "none" }
  | { readonly kind: "at"; readonly lsn: bigint }
  /** Malformed, or of another cell: from before a move, whose rows a replica here may not have yet. */
  | { readonly kind: "unproved" };

/** No replica ever comes here: what goes out when the real position could not be read. */
export const lsnMax = "FFFFFFFF/FFFFFFFF";
const valuesMax = 20;

/** As PostgreSQL writes it: `16/B374D848`. */
export function parseLsn(raw: string): bigint | undefined {
  const [, high, low] = /^([0-9A-Fa-f]{1,8})\/([0-9A-Fa-f]{1,8})$/.exec(raw) ?? [];
  if (high === undefined || low === undefined) return undefined;
  return (BigInt(`0x${high}`) << 32n) | BigInt(`0x${low}`);
}

export function readPosition(rawHeaders: readonly string[], cell: CellId): SessionPosition {
  const values = [
    ...headerValues(rawHeaders, positionHeader),
    ...headerValues(rawHeaders, "cookie").flatMap(cookieValues),
  ];
  if (values.length === 0) return { kind: "none" };
  if (values.length > valuesMax) return { kind: "unproved" };
  let furthest = 0n;
  for (const value of values) {
    const dot = value.lastIndexOf(".");
    const lsn = value.slice(0, dot) === cell ? parseLsn(value.slice(dot + 1)) : undefined;
    if (lsn === undefined) return { kind: "unproved" };
    if (lsn > furthest) furthest = lsn;
  }
  return { kind: "at", lsn: furthest };
}

/** Headers of an answer after which reads must see what it wrote. */
export function positionHeaders(cell: CellId, lsn: string): string[] {
  const value = `${cell}.${lsn}`;
  return [
    ...[positionHeader, value],
    ...["set-cookie", `${positionCookie}=${value}; Path=/; HttpOnly; SameSite=Lax`],
  ];
}

function cookieValues(header: string): string[] {
  const prefix = `${positionCookie}=`;
  return header
    .split(";")
    .map((pair) => pair.trim())
    .filter((pair) => pair.startsWith(prefix))
    .map((pair) => pair.slice(prefix.length));
}
