/**
 * One tenant as bytes in a base image: a byte that says how its id is written, a byte of its hash, three
 * bytes of route number, the id. An id is written as its characters; a UUID in its usual spelling as its
 * 16 bytes, because half of all tenants anywhere are UUIDs and 36 characters would be twice the memory.
 *
 * What must always be true: one id has one spelling in bytes and two ids never share one, so that
 * comparing bytes is comparing ids.
 */
export const headBytes = 5;
/** Three bytes; 0 says that there is no route. */
export const routeNumberMax = 0xff_ff_ff;

/** In place of a length: the id is a UUID of lower-case letters. */
const packed = 255;
const uuidBytes = 16;
const uuidLength = 36;

const dash = 45;
const isDash = new Uint8Array(uuidLength);
for (const at of [8, 13, 18, 23]) isDash[at] = 1;
const digits = Uint8Array.from("0123456789abcdef", (digit) => digit.charCodeAt(0));
const digitValues = new Int8Array(256).fill(-1);
for (const [value, code] of digits.entries()) digitValues[code] = value;

/** Of the whole entry. */
export const entryBytes = (arena: Uint8Array, at: number): number => {
  const length = arena[at] ?? 0;
  return headBytes + (length === packed ? uuidBytes : length);
};

export const entryNumber = (arena: Uint8Array, at: number): number =>
  (arena[at + 2] ?? 0) | ((arena[at + 3] ?? 0) << 8) | ((arena[at + 4] ?? 0) << 16);

/** Exact: every character of the id is compared. */
export function entryIs(arena: Uint8Array, at: number, id: string): boolean {
  const length = arena[at];
  const start = at + headBytes;
  if (length === packed) return id.length === uuidLength && uuidIs(arena, start, id);
  if (length !== id.length) return false;
  // From the end: ids of one source begin alike.
  for (let left = length - 1; left >= 0; left -= 1) {
    if (arena[start + left] !== id.charCodeAt(left)) return false;
  }
  return true;
}

function uuidIs(arena: Uint8Array, start: number, id: string): boolean {
  let from = start;
  for (let at = 0; at < uuidLength; at += 1) {
    if (isDash[at] === 1) {
      if (id.charCodeAt(at) !== dash) return false;
      continue;
    }
    const byte = arena[from] ?? 0;
    if (id.charCodeAt(at) !== digits[byte >>> 4]) return false;
    at += 1;
    if (id.charCodeAt(at) !== digits[byte & 15]) return false;
    from += 1;
  }
  return true;
}

/** Two entries of one id, whatever their routes. */
export function sameId(a: Uint8Array, atA: number, b: Uint8Array, atB: number): boolean {
  if (a[atA] !== b[atB]) return false;
  const bytes = entryBytes(a, atA);
  for (let at = headBytes; at < bytes; at += 1) {
    if (a[atA + at] !== b[atB + at]) return false;
  }
  return true;
}

/** Writes an entry whose id stands as `length` characters in `from`; its size. There must be room. */
export function writeEntry(
  into: Uint8Array,
  at: number,
  from: Uint8Array,
  start: number,
  length: number,
): number {
  if (length === uuidLength && packUuid(into, at + headBytes, from, start)) {
    into[at] = packed;
    return headBytes + uuidBytes;
  }
  into[at] = length;
  for (let nth = 0; nth < length; nth += 1) into[at + headBytes + nth] = from[start + nth] ?? 0;
  return headBytes + length;
}

export function writeHead(into: Uint8Array, at: number, tag: number, number: number): void {
  into[at + 1] = tag;
  into[at + 2] = number;
  into[at + 3] = number >>> 8;
  into[at + 4] = number >>> 16;
}

/** False: it is no UUID in its usual spelling, and is written as its characters. */
function packUuid(into: Uint8Array, to: number, from: Uint8Array, start: number): boolean {
  let next = to;
  for (let at = 0; at < uuidLength; at += 1) {
    const code = from[start + at] ?? 0;
    if (isDash[at] === 1) {
      if (code !== dash) return false;
      continue;
    }
    at += 1;
    const high = digitValues[code] ?? -1;
    const low = digitValues[from[start + at] ?? 0] ?? -1;
    if (high < 0 || low < 0) return false;
    into[next] = (high << 4) | low;
    next += 1;
  }
  return true;
}

/** `arena` as a buffer, for its fast ways to text. */
export function entryId(arena: Buffer, at: number): string {
  const start = at + headBytes;
  const length = arena[at] ?? 0;
  if (length !== packed) return arena.toString("latin1", start, start + length);
  const hex = arena.toString("hex", start, start + uuidBytes);
  const part = (from: number, to: number) => hex.slice(from, to);
  return `${part(0, 8)}-${part(8, 12)}-${part(12, 16)}-${part(16, 20)}-${part(20, 32)}`;
}
