/**
 * Tenants and the numbers of their routes in one block of memory that never changes, so that any number
 * of threads read one copy without a lock, and a file can be read into it in one go.
 *
 * What must always be true: an answer is exact. The hash says where to look; the id itself is compared.
 *
 * Layout: a directory of 2^bits + 1 places, then the entries (`tenant-entry.ts`), ordered by the first
 * bits of their hash: the entries of bucket b lie from place b up to place b + 1. There are no empty
 * slots to pay for, a lookup touches the directory and one or two lines of entries, and two images are
 * merged by reading both from front to end.
 */
import { entryBytes, entryId, entryIs, entryNumber } from "./tenant-entry.ts";

export type BaseImage = {
  readonly bits: number;
  readonly count: number;
  /** Directory and entries; what lies behind is unused. */
  readonly usedBytes: number;
  readonly memory: SharedArrayBuffer;
};

/** Of 2^24 buckets are so many full of three that nobody has as many tenants. */
const bitsMax = 24;
/** On average; a bucket of six short ids is about as long as one or two lines of the processor's cache. */
const perBucketMax = 6;

export function bitsFor(count: number): number {
  let bits = 0;
  while (bits < bitsMax && count > perBucketMax * 2 ** bits) bits += 1;
  return bits;
}

export const directoryBytes = (bits: number): number => (2 ** bits + 1) * 4;

export function emptyImage(): BaseImage {
  const usedBytes = directoryBytes(0);
  return { bits: 0, count: 0, usedBytes, memory: new SharedArrayBuffer(usedBytes) };
}

export class TenantBase {
  readonly image: BaseImage;
  /** Of each bucket's first entry, counted from the first of all. */
  readonly starts: Uint32Array;
  readonly arena: Uint8Array;
  readonly #shift: number;

  constructor(image: BaseImage) {
    const directory = directoryBytes(image.bits);
    this.image = image;
    this.starts = new Uint32Array(image.memory, 0, 2 ** image.bits + 1);
    this.arena = new Uint8Array(image.memory, directory, image.usedBytes - directory);
    this.#shift = image.bits;
  }

  /** The number of the id's route; 0: it is not here. */
  find(id: string, tag: number): number {
    // A shift by 32 would be none.
    const bucket = this.#shift === 0 ? 0 : tag >>> (32 - this.#shift);
    const { arena } = this;
    const end = this.starts[bucket + 1] ?? 0;
    const check = tag & 255;
    for (let at = this.starts[bucket] ?? 0; at < end; at += entryBytes(arena, at)) {
      if (arena[at + 1] === check && entryIs(arena, at, id)) return entryNumber(arena, at);
    }
    return 0;
  }

  /** All ids with their numbers, in no order. */
  *entries(): Generator<readonly [string, number]> {
    const { arena } = this;
    const text = Buffer.from(arena.buffer, arena.byteOffset, arena.byteLength);
    for (let at = 0; at < arena.length; at += entryBytes(arena, at)) {
      yield [entryId(text, at), entryNumber(arena, at)];
    }
  }
}
