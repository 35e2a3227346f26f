/**
 * Entries of (hash, scope, tenant id), found by their hash, for a million and more: open addressing
 * over typed arrays as in `tenant-index.ts`, about 50 bytes per entry, invisible to the garbage
 * collector. Several entries may have the same hash; each entry is there once.
 *
 * What must always be true: all 128 bits of a hash are compared. Its first 32 say where to look; they
 * are as good as random, because nobody without the fleet's salt can choose them.
 *
 * Layout: slot i is `tags[i]` (the first 32 bits) and `offsets[i]` (0: empty, else the place in the
 * arena); an entry of the arena is one byte of length, two of scope, 16 of hash, the id. Linear
 * probing; a deletion moves later entries back, so there are no tombstones.
 */
export type AliasEntry = { readonly scope: number; readonly hash: string; readonly tenant: string };

const slotsMin = 16;
const arenaMin = 1024;
const hashBytes = 16;
const headBytes = 3;
const fixedBytes = headBytes + hashBytes;
/** Three of four slots may be taken. */
const loadMax = 0.75;

export class AliasSlots {
  #tags = new Uint32Array(slotsMin);
  #offsets = new Uint32Array(slotsMin);
  #arena = new Uint8Array(arenaMin);
  /** Place 0 stays free: it means an empty slot. */
  #used = 1;
  #garbage = 0;
  #size = 0;
  /** Of the last call: the hash as bytes. */
  readonly #hash = new Uint8Array(hashBytes);
  /** Of the last search: entries with the same tag that were passed. */
  #alike = 0;

  get size(): number {
    return this.#size;
  }

  get bytes(): number {
    return this.#tags.byteLength + this.#offsets.byteLength + this.#arena.byteLength;
  }

  /** All entries of a hash, in no order. */
  find(hash: string): { readonly scope: number; readonly tenant: string }[] {
    const found: { readonly scope: number; readonly tenant: string }[] = [];
    const tag = this.#read(hash);
    const mask = this.#tags.length - 1;
    for (let slot = tag & mask; ; slot = (slot + 1) & mask) {
      const offset = this.#offsets[slot] ?? 0;
      if (offset === 0) return found;
      if (this.#tags[slot] !== tag || !this.#hasHash(offset)) continue;
      found.push({ scope: this.#scopeAt(offset), tenant: this.#tenantAt(offset) });
    }
  }

  has(entry: AliasEntry): boolean {
    return this.#offsets[this.#slotOf(entry, this.#read(entry.hash))] !== 0;
  }

  /** How many entries now begin their search at the same place; 0: it was there before. */
  add(entry: AliasEntry): number {
    const tag = this.#read(entry.hash);
    const slot = this.#slotOf(entry, tag);
    if (this.#offsets[slot] !== 0) return 0;
    const alike = this.#alike + 1;
    this.#tags[slot] = tag;
    this.#offsets[slot] = this.#append(entry);
    this.#size += 1;
    if (this.#size > this.#tags.length * loadMax) this.#grow();
    return alike;
  }

  /** False if it was not there. */
  remove(entry: AliasEntry): boolean {
    const slot = this.#slotOf(entry, this.#read(entry.hash));
    if (this.#offsets[slot] === 0) return false;
    this.#garbage += fixedBytes + entry.tenant.length;
    this.#size -= 1;
    this.#close(slot);
    return true;
  }

  /** In no order. What is changed meanwhile may or may not be seen. */
  *entries(): Generator<AliasEntry> {
    for (let slot = 0; slot < this.#offsets.length; slot += 1) {
      const offset = this.#offsets[slot] ?? 0;
      if (offset === 0) continue;
      const hash = writeHash(this.#arena, offset + headBytes);
      yield { scope: this.#scopeAt(offset), hash, tenant: this.#tenantAt(offset) };
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
    const mask = this.#tags.length - 1;
    this.#alike = 0;
    for (let slot = tag & mask; ; slot = (slot + 1) & mask) {
      const offset = this.#offsets[slot] ?? 0;
      if (offset === 0) return slot;
      if (this.#tags[slot] !== tag) continue;
      const isSame = this.#scopeAt(offset) === scope && this.#hasHash(offset);
      if (isSame && this.#hasTenant(offset, tenant)) return slot;
      this.#alike += 1;
    }
  }

  #hasHash(offset: number): boolean {
    for (let at = 0; at < hashBytes; at += 1) {
      if (this.#arena[offset + headBytes + at] !== this.#hash[at]) return false;
    }
    return true;
  }

  /** Ids are ASCII of at most 128 characters. */
  #hasTenant(offset: number, tenant: string): boolean {
    if (this.#arena[offset] !== tenant.length) return false;
    for (let at = 0; at < tenant.length; at += 1) {
      if (this.#arena[offset + fixedBytes + at] !== tenant.charCodeAt(at)) return false;
    }
    return true;
  }

  #scopeAt(offset: number): number {
    return (this.#arena[offset + 1] ?? 0) | ((this.#arena[offset + 2] ?? 0) << 8);
  }

  #tenantAt(offset: number): string {
    const start = offset + fixedBytes;
    return String.fromCharCode(...this.#arena.subarray(start, start + (this.#arena[offset] ?? 0)));
  }

  #append({ scope, tenant }: AliasEntry): number {
    const bytes = fixedBytes + tenant.length;
    if (this.#used + bytes > this.#arena.length) this.#makeRoom(bytes);
    const offset = this.#used;
    this.#arena[offset] = tenant.length;
    this.#arena[offset + 1] = scope;
    this.#arena[offset + 2] = scope >>> 8;
    this.#arena.set(this.#hash, offset + headBytes);
    for (let at = 0; at < tenant.length; at += 1) {
      this.#arena[offset + fixedBytes + at] = tenant.charCodeAt(at);
    }
    this.#used += bytes;
    return offset;
  }

  /** A new arena without what was deleted; twice as large if that does not help enough. */
  #makeRoom(bytes: number): void {
    const live = this.#used - this.#garbage + bytes;
    let length = this.#arena.length;
    while (live > length * loadMax) length *= 2;
    const before = this.#arena;
    const after = new Uint8Array(length);
    let used = 1;
    for (let slot = 0; slot < this.#offsets.length; slot += 1) {
      const offset = this.#offsets[slot] ?? 0;
      if (offset === 0) continue;
      const entry = before.subarray(offset, offset + fixedBytes + (before[offset] ?? 0));
      after.set(entry, used);
      this.#offsets[slot] = used;
      used += entry.length;
    }
    this.#arena = after;
    this.#used = used;
    this.#garbage = 0;
  }

  #grow(): void {
    const tags = this.#tags;
    const offsets = this.#offsets;
    this.#tags = new Uint32Array(tags.length * 2);
    this.#offsets = new Uint32Array(tags.length * 2);
    const mask = this.#tags.length - 1;
    for (let from = 0; from < tags.length; from += 1) {
      const offset = offsets[from] ?? 0;
      if (offset === 0) continue;
      const tag = tags[from] ?? 0;
      let slot = tag & mask;
      while (this.#offsets[slot] !== 0) slot = (slot + 1) & mask;
      this.#tags[slot] = tag;
      this.#offsets[slot] = offset;
    }
  }

  /** Empties a slot; what was pushed behind it by a collision comes back, or it would not be found. */
  #close(slot: number): void {
    const mask = this.#tags.length - 1;
    let hole = slot;
    for (let next = (hole + 1) & mask; this.#offsets[next] !== 0; next = (next + 1) & mask) {
      const home = (this.#tags[next] ?? 0) & mask;
      // It may move into the hole only if its home does not lie behind the hole.
      if (((next - home) & mask) < ((next - hole) & mask)) continue;
      this.#tags[hole] = this.#tags[next] ?? 0;
      this.#offsets[hole] = this.#offsets[next] ?? 0;
      hole = next;
    }
    this.#offsets[hole] = 0;
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
