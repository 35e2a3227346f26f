/**
 * Entries of (hash, scope, tenant id), found by their hash, for a million and more: open addressing
 * over typed arrays, about 50 bytes per entry, invisible to the garbage collector. Several entries may have the same hash; each entry is there once.
 *
 * What must always be true: all 128 bits of a hash are compared. Its first 32 say where to look; they
 * are as good as random, because nobody without the fleet's salt can choose them.
 *
 * Layout: a `slot-table.ts` whose tag is the first 32 bits, whose text is the id, with two bytes of
 * scope and 16 of hash between them.
 */
import { type SharedSlots, SlotTable } from "./slot-table.ts";

export type AliasEntry = { readonly scope: number; readonly hash: string; readonly tenant: string };

const scopeBytes = 2;
const hashBytes = 16;
/** Where an entry's fields stand, behind its byte of length. */
const scopeAt = 1;
const hashAt = scopeAt + scopeBytes;

export class AliasSlots {
  readonly #table: SlotTable;
  /** Of the last call: the hash as bytes. */
  readonly #hash = new Uint8Array(hashBytes);
  /** Of the last search: entries with the same tag that were passed. */
  #alike = 0;

  constructor(table: SlotTable = new SlotTable(scopeBytes + hashBytes)) {
    this.#table = table;
  }

  static fromShared(shared: SharedSlots): AliasSlots {
    return new AliasSlots(SlotTable.fromShared(scopeBytes + hashBytes, shared));
  }

  share(): SharedSlots {
    return this.#table.share();
  }

  get size(): number {
    return this.#table.size;
  }

  get bytes(): number {
    return this.#table.bytes;
  }

  /** All entries of a hash, in no order. */
  find(hash: string): { readonly scope: number; readonly tenant: string }[] {
    const found: { readonly scope: number; readonly tenant: string }[] = [];
    const table = this.#table;
    const tag = this.#read(hash);
    for (let slot = table.first(tag); ; slot = table.next(tag, slot)) {
      const offset = table.offsetAt(slot);
      if (offset === 0) return found;
      if (!this.#hasHash(offset)) continue;
      found.push({ scope: this.#scopeAt(offset), tenant: table.textAt(offset) });
    }
  }

  has(entry: AliasEntry): boolean {
    return this.#table.offsetAt(this.#slotOf(entry, this.#read(entry.hash))) !== 0;
  }

  /** How many entries now begin their search at the same place; 0: it was there before. */
  add(entry: AliasEntry): number {
    const tag = this.#read(entry.hash);
    const slot = this.#slotOf(entry, tag);
    if (this.#table.offsetAt(slot) !== 0) return 0;
    const offset = this.#table.add(slot, tag, entry.tenant);
    const { arena } = this.#table;
    arena[offset + scopeAt] = entry.scope;
    arena[offset + scopeAt + 1] = entry.scope >>> 8;
    arena.set(this.#hash, offset + hashAt);
    return this.#alike + 1;
  }

  /** False if it was not there. */
  remove(entry: AliasEntry): boolean {
    const slot = this.#slotOf(entry, this.#read(entry.hash));
    if (this.#table.offsetAt(slot) === 0) return false;
    this.#table.remove(slot);
    return true;
  }

  /** In no order. What is changed meanwhile may or may not be seen. */
  *entries(): Generator<AliasEntry> {
    const table = this.#table;
    for (let slot = 0; slot < table.slots; slot += 1) {
      const offset = table.offsetAt(slot);
      if (offset === 0) continue;
      const hash = writeHash(table.arena, offset + hashAt);
      yield { scope: this.#scopeAt(offset), hash, tenant: table.textAt(offset) };
    }
  }

  /** Keeps the hash as bytes; its tag. */
  #read(hash: string): number {
    readHash(hash, this.#hash);
    const [a = 0, b = 0, c = 0, d = 0] = this.#hash;
    return (a | (b << 8) | (c << 16) | (d << 24)) >>> 0;
  }

  /** The slot of the entry, or the empty one where it would go. */
  #slotOf({ scope, tenant }: AliasEntry, tag: number): number {
    const table = this.#table;
    this.#alike = 0;
    for (let slot = table.first(tag); ; slot = table.next(tag, slot)) {
      const offset = table.offsetAt(slot);
      if (offset === 0) return slot;
      const isSame = this.#scopeAt(offset) === scope && this.#hasHash(offset);
      if (isSame && table.hasText(offset, tenant)) return slot;
      this.#alike += 1;
    }
  }

  #hasHash(offset: number): boolean {
    const { arena } = this.#table;
    for (let at = 0; at < hashBytes; at += 1) {
      if (arena[offset + hashAt + at] !== this.#hash[at]) return false;
    }
    return true;
  }

  #scopeAt(offset: number): number {
    const { arena } = this.#table;
    return (arena[offset + scopeAt] ?? 0) | ((arena[offset + scopeAt + 1] ?? 0) << 8);
  }
}

const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const values = new Uint8Array(128);
for (let at = 0; at < letters.length; at += 1) values[letters.charCodeAt(at)] = at;

/** Base64url without padding: four letters are three bytes, the last two are one. */
function readHash(hash: string, into: Uint8Array): void {
  const value = (at: number) => values[hash.charCodeAt(at)] ?? 0;
  for (let at = 0, to = 0; to < hashBytes; at += 4, to += 3) {
    const bits = (value(at) << 18) | (value(at + 1) << 12) | (value(at + 2) << 6) | value(at + 3);
    into[to] = bits >>> 16;
    if (to + 2 >= hashBytes) return;
    into[to + 1] = bits >>> 8;
    into[to + 2] = bits;
  }
}

function writeHash(arena: Uint8Array, start: number): string {
  let text = "";
  for (let at = 0; at < hashBytes; at += 3) {
    const isLast = at + 2 >= hashBytes;
    const bits =
      ((arena[start + at] ?? 0) << 16) |
      (isLast ? 0 : ((arena[start + at + 1] ?? 0) << 8) | (arena[start + at + 2] ?? 0));
    text += letters.charAt(bits >>> 18) + letters.charAt((bits >>> 12) & 63);
    if (!isLast) text += letters.charAt((bits >>> 6) & 63) + letters.charAt(bits & 63);
  }
  return text;
}
