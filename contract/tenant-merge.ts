/**
 * Makes a new base image out of one and the changes since, some buckets at a time, so that a merge of
 * ten million tenants never keeps a request waiting. The old image and the changes stay as they are
 * meanwhile, and are read from.
 *
 * Both are read in the order of their hashes, front to end: no bucket is looked at twice, and the new
 * image is written in one sweep.
 */
import type { HashKey } from "./half-sip-hash.ts";
import { tagOf } from "./half-sip-hash.ts";
import type { SlotTable } from "./slot-table.ts";
import { type BaseImage, bitsFor, directoryBytes, type TenantBase } from "./tenant-base.ts";
import {
  entryBytes,
  entryId,
  entryNumber,
  headBytes,
  sameId,
  writeEntry,
  writeHead,
} from "./tenant-entry.ts";

/** What `SlotTable` holds of a tenant beside its id: four bytes of number, 0 for one that is gone. */
const changeFieldBytes = 4;
/** An image with more unused memory than one part of so many is copied into one that fits. */
const spareParts = 16;

export class TenantMerge {
  readonly #old: TenantBase;
  readonly #oldText: Buffer;
  readonly #changes: SlotTable;
  readonly #key: HashKey;
  readonly #bits: number;
  readonly #memory: SharedArrayBuffer;
  readonly #starts: Uint32Array;
  readonly #arena: Uint8Array;
  readonly #order: Generator<number>;
  /** Slot of the next change. */
  #nextChange: number | undefined;
  #nextBucket = 0;
  #bytes = 0;
  #count = 0;
  /** Changes of the bucket at hand, as entries, and where each begins. */
  #fresh = new Uint8Array(1024);
  #freshAt: number[] = [];
  #freshBytes = 0;
  /** Entries of the old bucket at hand, where it is split: places and buckets of the new image. */
  #split = { bucket: -1, at: [] as number[], to: [] as number[] };

  constructor(old: TenantBase, changes: SlotTable, key: HashKey) {
    const { bits, count, usedBytes } = old.image;
    const most = count + changes.size;
    const isFitting = most <= 8 * 2 ** bits && most * 2 >= 2 ** bits;
    this.#old = old;
    this.#oldText = Buffer.from(old.arena.buffer, old.arena.byteOffset, old.arena.byteLength);
    this.#changes = changes;
    this.#key = key;
    this.#bits = isFitting ? bits : bitsFor(most);
    const directory = directoryBytes(this.#bits);
    const room = usedBytes - directoryBytes(bits) + changes.usedBytes;
    this.#memory = new SharedArrayBuffer(directory + room);
    this.#starts = new Uint32Array(this.#memory, 0, 2 ** this.#bits + 1);
    this.#arena = new Uint8Array(this.#memory, directory);
    this.#order = changes.inOrder();
    this.#nextChange = this.#order.next().value;
  }

  /** Of the new image; as many as `step` has to be asked for in all. */
  get buckets(): number {
    return 2 ** this.#bits;
  }

  /** Makes so many buckets more; true when all are made. */
  step(buckets: number): boolean {
    const end = Math.min(this.#nextBucket + buckets, this.buckets);
    for (; this.#nextBucket < end; this.#nextBucket += 1) {
      this.#starts[this.#nextBucket] = this.#bytes;
      this.#takeChanges(this.#nextBucket);
      this.#copyOld(this.#nextBucket);
      this.#copyFresh();
    }
    return this.#nextBucket === this.buckets;
  }

  /** When all buckets are made. */
  end(): BaseImage {
    this.#starts[this.buckets] = this.#bytes;
    const usedBytes = directoryBytes(this.#bits) + this.#bytes;
    const isLoose = this.#memory.byteLength - usedBytes > usedBytes / spareParts;
    const memory = isLoose ? this.#memory.slice(0, usedBytes) : this.#memory;
    return { bits: this.#bits, count: this.#count, usedBytes, memory };
  }

  #bucketOf(tag: number): number {
    return this.#bits === 0 ? 0 : tag >>> (32 - this.#bits);
  }

  #takeChanges(bucket: number): void {
    const changes = this.#changes;
    this.#freshBytes = 0;
    this.#freshAt.length = 0;
    for (; this.#nextChange !== undefined; this.#nextChange = this.#order.next().value) {
      const slot = this.#nextChange;
      const tag = changes.tagAt(slot);
      if (this.#bucketOf(tag) !== bucket) return;
      const { arena } = changes;
      const offset = changes.offsetAt(slot);
      const length = arena[offset] ?? 0;
      const room = this.#freshBytes + headBytes + length;
      if (room > this.#fresh.length) this.#growFresh(room);
      const at = this.#freshBytes;
      const start = offset + 1 + changeFieldBytes;
      this.#freshBytes += writeEntry(this.#fresh, at, arena, start, length);
      writeHead(this.#fresh, at, tag, readNumber(arena, offset));
      this.#freshAt.push(at);
    }
  }

  #growFresh(room: number): void {
    const larger = new Uint8Array(room * 2);
    larger.set(this.#fresh);
    this.#fresh = larger;
  }

  #copyOld(bucket: number): void {
    const { bits } = this.#old.image;
    const { starts } = this.#old;
    if (bits >= this.#bits) {
      // As many as there were, or several old ones become one.
      const per = 2 ** (bits - this.#bits);
      this.#copyRange(starts[bucket * per] ?? 0, starts[(bucket + 1) * per] ?? 0);
      return;
    }
    this.#splitOld(Math.floor(bucket / 2 ** (this.#bits - bits)));
    for (const [nth, at] of this.#split.at.entries()) {
      if (this.#split.to[nth] === bucket) this.#copyEntry(at);
    }
  }

  /** Only where buckets become more must the hash of an old id be known again. */
  #splitOld(bucket: number): void {
    if (this.#split.bucket === bucket) return;
    const { starts, arena } = this.#old;
    this.#split = { bucket, at: [], to: [] };
    const end = starts[bucket + 1] ?? 0;
    for (let at = starts[bucket] ?? 0; at < end; at += entryBytes(arena, at)) {
      this.#split.at.push(at);
      this.#split.to.push(this.#bucketOf(tagOf(this.#key, entryId(this.#oldText, at))));
    }
  }

  #copyRange(from: number, end: number): void {
    const { arena } = this.#old;
    for (let at = from; at < end; at += entryBytes(arena, at)) this.#copyEntry(at);
  }

  /** Unless it was changed since. */
  #copyEntry(at: number): void {
    const { arena } = this.#old;
    for (const fresh of this.#freshAt) if (sameId(arena, at, this.#fresh, fresh)) return;
    this.#copy(arena, at);
  }

  #copyFresh(): void {
    for (const at of this.#freshAt) {
      if (entryNumber(this.#fresh, at) !== 0) this.#copy(this.#fresh, at);
    }
  }

  #copy(from: Uint8Array, at: number): void {
    const bytes = entryBytes(from, at);
    const to = this.#bytes;
    for (let nth = 0; nth < bytes; nth += 1) this.#arena[to + nth] = from[at + nth] ?? 0;
    this.#bytes += bytes;
    this.#count += 1;
  }
}

/** The field of a change stands behind its byte of length. */
export function readNumber(arena: Uint8Array, offset: number): number {
  return (
    (arena[offset + 1] ?? 0) |
    ((arena[offset + 2] ?? 0) << 8) |
    ((arena[offset + 3] ?? 0) << 16) |
    ((arena[offset + 4] ?? 0) << 24)
  );
}

export function writeNumber(arena: Uint8Array, offset: number, number: number): void {
  arena[offset + 1] = number;
  arena[offset + 2] = number >>> 8;
  arena[offset + 3] = number >>> 16;
  arena[offset + 4] = number >>> 24;
}
