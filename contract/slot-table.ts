/**
 * Entries in typed arrays, invisible to the garbage collector, found by a tag of 32 bits: the open
 * addressing and the byte array below `tenant-index.ts` and `alias-slots.ts`. Their owner says which of
 * the entries with a tag it means, by their text and by fields of its own.
 *
 * What must always be true: an entry is met on the way from its tag's first slot to the next empty
 * one, whatever was added, removed or moved meanwhile; its bytes are its own.
 *
 * Layout: slot i is a tag and an offset (0: empty, else the entry's place in the arena). An entry is
 * one byte of length, the owner's fields, its text (ASCII of at most 128 characters). Linear probing;
 * a deletion moves later entries back, so there are no tombstones.
 */
const slotsMin = 16;
const arenaMin = 512;
/** Three of four slots may be taken; a new arena is filled no further than that, too. */
const loadMax = 0.75;

/** All of a table, as one block that other threads and files can have. */
export type SharedSlots = {
  readonly slots: number;
  readonly size: number;
  /** Of the arena, where the next entry goes. */
  readonly used: number;
  readonly garbage: number;
  /** Tags, offsets, arena. */
  readonly memory: SharedArrayBuffer;
};

export const sharedBytes = ({ slots, used }: Omit<SharedSlots, "memory">): number =>
  slots * 8 + used;

export class SlotTable {
  readonly #headBytes: number;
  #tags: Uint32Array = new Uint32Array(slotsMin);
  #offsets: Uint32Array = new Uint32Array(slotsMin);
  #arena: Uint8Array = new Uint8Array(arenaMin);
  /** The arrays are others', too: they are copied before anything is changed. */
  #isShared: boolean = false;
  /** Place 0 stays free: it means an empty slot. */
  #used = 1;
  #garbage = 0;
  #size = 0;

  /** The owner's fields have the same size in all entries. */
  constructor(fieldBytes: number) {
    this.#headBytes = 1 + fieldBytes;
  }

  /** Reads what was shared where it lies, until its first own change. */
  static fromShared(fieldBytes: number, shared: SharedSlots): SlotTable {
    const { slots, size, used, garbage, memory } = shared;
    const table = new SlotTable(fieldBytes);
    table.#tags = new Uint32Array(memory, 0, slots);
    table.#offsets = new Uint32Array(memory, slots * 4, slots);
    table.#arena = new Uint8Array(memory, slots * 8, used);
    table.#size = size;
    table.#used = used;
    table.#garbage = garbage;
    table.#isShared = true;
    return table;
  }

  /** A copy, as it is now. */
  share(): SharedSlots {
    const numbers = {
      slots: this.slots,
      size: this.#size,
      used: this.#used,
      garbage: this.#garbage,
    };
    const memory = new SharedArrayBuffer(sharedBytes(numbers));
    new Uint32Array(memory, 0, this.slots).set(this.#tags);
    new Uint32Array(memory, this.slots * 4, this.slots).set(this.#offsets);
    new Uint8Array(memory, this.slots * 8).set(this.#arena.subarray(0, this.#used));
    return { ...numbers, memory };
  }

  get size(): number {
    return this.#size;
  }

  get bytes(): number {
    return this.#tags.byteLength + this.#offsets.byteLength + this.#arena.byteLength;
  }

  /** What the entries take, without what is unused. */
  get usedBytes(): number {
    return this.#used - this.#garbage;
  }

  /** How many slots there are, taken or not; whoever wants all entries looks at each. */
  get slots(): number {
    return this.#offsets.length;
  }

  /** For the fields of an entry, which begin at its offset + 1; another array after an `add`. */
  get arena(): Uint8Array {
    return this.#arena;
  }

  /** The first slot that has the tag, or the empty one where it would go. */
  first(tag: number): number {
    return this.#seek(tag, this.#home(tag));
  }

  /** As `first`, behind a slot that was not the one. */
  next(tag: number, slot: number): number {
    return this.#seek(tag, (slot + 1) & (this.#tags.length - 1));
  }

  /** 0: the slot is empty. */
  offsetAt(slot: number): number {
    return this.#offsets[slot] ?? 0;
  }

  /** The slots that are taken, by their tags; nothing may be changed meanwhile. */
  *inOrder(): Generator<number> {
    let run: number[] = [];
    for (let slot = 0; slot < this.slots; slot += 1) {
      if (this.#offsets[slot] !== 0) {
        if (!this.#isWrapped(slot)) run.push(slot);
      } else if (run.length > 0) {
        for (const one of this.#sorted(run)) yield one;
        run = [];
      }
    }
    // What found no place at the end stands at the beginning.
    for (let slot = 0; this.#offsets[slot] !== 0; slot += 1) {
      if (this.#isWrapped(slot)) run.push(slot);
    }
    for (const one of this.#sorted(run)) yield one;
  }

  /** Neighbours alone can be out of order: an entry stands at its home or in a run of taken slots from there. */
  #sorted(run: number[]): number[] {
    return run.length < 2 ? run : run.sort((a, b) => this.tagAt(a) - this.tagAt(b));
  }

  #isWrapped(slot: number): boolean {
    return this.#home(this.tagAt(slot)) > slot;
  }

  /** Of a slot that is taken. */
  tagAt(slot: number): number {
    return this.#tags[slot] ?? 0;
  }

  textAt(offset: number): string {
    const start = offset + this.#headBytes;
    return String.fromCharCode(...this.#arena.subarray(start, start + (this.#arena[offset] ?? 0)));
  }

  /** A text that is not ASCII equals nothing that is stored. */
  hasText(offset: number, text: string): boolean {
    const arena = this.#arena;
    if (arena[offset] !== text.length) return false;
    const start = offset + this.#headBytes;
    for (let at = 0; at < text.length; at += 1) {
      if (arena[start + at] !== text.charCodeAt(at)) return false;
    }
    return true;
  }

  /** Into an empty slot that a search for the tag found; the offset, where the fields are still to be written. */
  add(slot: number, tag: number, text: string): number {
    this.#own();
    const offset = this.#append(text);
    this.#tags[slot] = tag;
    this.#offsets[slot] = offset;
    this.#size += 1;
    if (this.#size > this.#tags.length * loadMax) this.#grow();
    return offset;
  }

  /** Of a slot that is taken. */
  remove(slot: number): void {
    this.#own();
    this.#garbage += this.#entryBytes(this.offsetAt(slot));
    this.#size -= 1;
    this.#close(slot);
  }

  #own(): void {
    if (!this.#isShared) return;
    this.#tags = new Uint32Array(this.#tags);
    this.#offsets = new Uint32Array(this.#offsets);
    this.#arena = new Uint8Array(this.#arena);
    this.#isShared = false;
  }

  #seek(tag: number, from: number): number {
    const mask = this.#tags.length - 1;
    let slot = from;
    while (this.#offsets[slot] !== 0 && this.#tags[slot] !== tag) slot = (slot + 1) & mask;
    return slot;
  }

  /** By its first bits, so that slots from front to end are nearly in the order of their tags. */
  #home(tag: number): number {
    return tag >>> (Math.clz32(this.#tags.length) + 1);
  }

  #entryBytes(offset: number): number {
    return this.#headBytes + (this.#arena[offset] ?? 0);
  }

  #append(text: string): number {
    const bytes = this.#headBytes + text.length;
    if (this.#used + bytes > this.#arena.length) this.#makeRoom(bytes);
    const offset = this.#used;
    this.#arena[offset] = text.length;
    const start = offset + this.#headBytes;
    for (let at = 0; at < text.length; at += 1) this.#arena[start + at] = text.charCodeAt(at);
    this.#used += bytes;
    return offset;
  }

  /** A new arena without what was deleted; twice as large if that does not help enough. */
  #makeRoom(bytes: number): void {
    const live = this.#used - this.#garbage + bytes;
    // What was shared had no room to spare.
    let length = 2 ** Math.ceil(Math.log2(Math.max(this.#arena.length, arenaMin)));
    while (live > length * loadMax) length *= 2;
    const after = new Uint8Array(length);
    let used = 1;
    for (let slot = 0; slot < this.#offsets.length; slot += 1) {
      const offset = this.offsetAt(slot);
      if (offset === 0) continue;
      const entry = this.#arena.subarray(offset, offset + this.#entryBytes(offset));
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
      let slot = this.#home(tag);
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
      const home = this.#home(this.#tags[next] ?? 0);
      // It may move into the hole only if its home does not lie behind the hole.
      if (((next - home) & mask) < ((next - hole) & mask)) continue;
      this.#tags[hole] = this.#tags[next] ?? 0;
      this.#offsets[hole] = this.#offsets[next] ?? 0;
      hole = next;
    }
    this.#offsets[hole] = 0;
  }
}
