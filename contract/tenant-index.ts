/**
 * From tenant id to route, for a million tenants and more: open addressing over typed arrays, about 25
 * bytes per tenant beside the id's own, invisible to the garbage collector. A `Map` of as many entries
 * takes three times the memory, stops the process for a full collection, and is slower to fill.
 *
 * What must always be true: an answer is exact. The hash only finds where to look; the id's bytes are
 * compared, so a collision can never give one tenant another's route. The hash is keyed (HalfSipHash),
 * so that nobody who chooses ids can make them collide; the key comes from whoever builds the table.
 *
 * Layout: slot i is `tags[i]` (the hash) and `offsets[i]` (0: empty, else 1 + place in the arena); an
 * entry of the arena is one byte of length, four of route number, the id. Linear probing; a deletion
 * moves later entries back, so there are no tombstones.
 */
import type { Route, RouteIndex } from "./keyspace-routes.ts";

/** Two 32-bit words. */
export type HashKey = readonly [number, number];

const slotsMin = 16;
const arenaMin = 512;
const headBytes = 5;
/** Three of four slots may be taken. */
const loadMax = 0.75;

export class TenantIndex implements RouteIndex {
  readonly #key: HashKey;
  #tags = new Uint32Array(slotsMin);
  #offsets = new Uint32Array(slotsMin);
  #arena = new Uint8Array(arenaMin);
  #used = 0;
  #garbage = 0;
  #size = 0;
  readonly #routes = new RouteNumbers();

  constructor(key: HashKey) {
    this.#key = key;
  }

  get size(): number {
    return this.#size;
  }

  /** Of the arrays; what the ids and their places cost. */
  get bytes(): number {
    return this.#tags.byteLength + this.#offsets.byteLength + this.#arena.byteLength;
  }

  get(id: string): Route | undefined {
    const slot = this.#find(id, tagOf(this.#key, id));
    const offset = this.#offsets[slot] ?? 0;
    return offset === 0 ? undefined : this.#routes.at(readNumber(this.#arena, offset));
  }

  set(id: string, route: Route): void {
    const tag = tagOf(this.#key, id);
    const slot = this.#find(id, tag);
    const offset = this.#offsets[slot] ?? 0;
    const number = this.#routes.take(route);
    if (offset !== 0) {
      this.#routes.drop(readNumber(this.#arena, offset));
      writeNumber(this.#arena, offset, number);
      return;
    }
    this.#tags[slot] = tag;
    this.#offsets[slot] = this.#append(id, number);
    this.#size += 1;
    if (this.#size > this.#tags.length * loadMax) this.#grow();
  }

  delete(id: string): boolean {
    const slot = this.#find(id, tagOf(this.#key, id));
    const offset = this.#offsets[slot] ?? 0;
    if (offset === 0) return false;
    this.#routes.drop(readNumber(this.#arena, offset));
    this.#garbage += headBytes + id.length;
    this.#size -= 1;
    this.#close(slot);
    return true;
  }

  /** In no order. What is changed meanwhile may or may not be seen. */
  *entries(): Generator<readonly [string, Route]> {
    const offsets = this.#offsets;
    const arena = this.#arena;
    for (const offset of offsets) {
      if (offset === 0 || offset + headBytes > arena.length) continue;
      const route = this.#routes.at(readNumber(arena, offset));
      if (route !== undefined) yield [readId(arena, offset), route];
    }
  }

  /** Every route that some id has, once: few, however many ids there are. */
  values(): Iterable<Route> {
    return this.#routes.all();
  }

  /** The slot of the id, or the empty one where it would go. */
  #find(id: string, tag: number): number {
    const mask = this.#tags.length - 1;
    let slot = tag & mask;
    for (;;) {
      const offset = this.#offsets[slot] ?? 0;
      if (offset === 0 || (this.#tags[slot] === tag && isSame(this.#arena, offset, id)))
        return slot;
      slot = (slot + 1) & mask;
    }
  }

  #append(id: string, number: number): number {
    const bytes = headBytes + id.length;
    if (this.#used + bytes + 1 > this.#arena.length) this.#makeRoom(bytes);
    const offset = this.#used + 1;
    this.#arena[offset - 1] = id.length;
    writeNumber(this.#arena, offset, number);
    for (let at = 0; at < id.length; at += 1) {
      this.#arena[offset + headBytes - 1 + at] = id.charCodeAt(at);
    }
    this.#used += bytes;
    return offset;
  }

  /** A new arena without what was deleted; twice as large if that does not help enough. */
  #makeRoom(bytes: number): void {
    const live = this.#used - this.#garbage + bytes + 1;
    let length = this.#arena.length;
    while (live > length * loadMax) length *= 2;
    const before = this.#arena;
    const after = new Uint8Array(length);
    let used = 0;
    for (let slot = 0; slot < this.#offsets.length; slot += 1) {
      const offset = this.#offsets[slot] ?? 0;
      if (offset === 0) continue;
      const entry = before.subarray(offset - 1, offset - 1 + headBytes + (before[offset - 1] ?? 0));
      after.set(entry, used);
      this.#offsets[slot] = used + 1;
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

/** Routes are few and shared: each gets a number while any tenant has it. */
class RouteNumbers {
  readonly #routes: Array<Route | undefined> = [];
  readonly #counts: number[] = [];
  readonly #free: number[] = [];
  readonly #numbers = new Map<string, number>();
  /** Of the last call: a group sets the same route ten thousand times. */
  #lastRoute: Route | undefined;
  #lastNumber = 0;

  at(number: number): Route | undefined {
    return this.#routes[number];
  }

  all(): Route[] {
    return this.#routes.filter((route) => route !== undefined);
  }

  take(route: Route): number {
    const number = route === this.#lastRoute ? this.#lastNumber : this.#numberOf(route);
    this.#lastRoute = route;
    this.#lastNumber = number;
    this.#counts[number] = (this.#counts[number] ?? 0) + 1;
    return number;
  }

  drop(number: number): void {
    const count = (this.#counts[number] ?? 0) - 1;
    this.#counts[number] = count;
    const route = this.#routes[number];
    if (count > 0 || route === undefined) return;
    this.#numbers.delete(nameOf(route));
    this.#routes[number] = undefined;
    this.#free.push(number);
    this.#lastRoute = undefined;
  }

  #numberOf(route: Route): number {
    const name = nameOf(route);
    const known = this.#numbers.get(name);
    if (known !== undefined) return known;
    const number = this.#free.pop() ?? this.#routes.length;
    this.#routes[number] = route;
    this.#counts[number] = 0;
    this.#numbers.set(name, number);
    return number;
  }
}

const nameOf = ({ cell, epoch, state }: Route): string => `${cell} ${epoch} ${state}`;

function readNumber(arena: Uint8Array, offset: number): number {
  return (
    ((arena[offset] ?? 0) |
      ((arena[offset + 1] ?? 0) << 8) |
      ((arena[offset + 2] ?? 0) << 16) |
      ((arena[offset + 3] ?? 0) << 24)) >>>
    0
  );
}

function writeNumber(arena: Uint8Array, offset: number, number: number): void {
  arena[offset] = number;
  arena[offset + 1] = number >>> 8;
  arena[offset + 2] = number >>> 16;
  arena[offset + 3] = number >>> 24;
}

function readId(arena: Uint8Array, offset: number): string {
  const start = offset + headBytes - 1;
  return String.fromCharCode(...arena.subarray(start, start + (arena[offset - 1] ?? 0)));
}

/** Ids are ASCII of at most 128 characters; anything else equals nothing that is stored. */
function isSame(arena: Uint8Array, offset: number, id: string): boolean {
  if (arena[offset - 1] !== id.length) return false;
  const start = offset + headBytes - 1;
  for (let at = 0; at < id.length; at += 1) {
    if (arena[start + at] !== id.charCodeAt(at)) return false;
  }
  return true;
}

/** HalfSipHash-1-3 over the characters as bytes (J.-P. Aumasson, D. J. Bernstein). */
export function tagOf([k0, k1]: HashKey, text: string): number {
  let v0 = k0;
  let v1 = k1;
  let v2 = 0x6c796765 ^ k0;
  let v3 = 0x74656462 ^ k1;
  const round = (word: number, rounds: number) => {
    v3 ^= word;
    for (let left = rounds; left > 0; left -= 1) {
      v0 = (v0 + v1) | 0;
      v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0;
      v0 = (v0 << 16) | (v0 >>> 16);
      v2 = (v2 + v3) | 0;
      v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2;
      v0 = (v0 + v3) | 0;
      v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0;
      v2 = (v2 + v1) | 0;
      v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2;
      v2 = (v2 << 16) | (v2 >>> 16);
    }
    v0 ^= word;
  };
  let at = 0;
  for (; at + 4 <= text.length; at += 4) {
    round(
      text.charCodeAt(at) |
        (text.charCodeAt(at + 1) << 8) |
        (text.charCodeAt(at + 2) << 16) |
        (text.charCodeAt(at + 3) << 24),
      1,
    );
  }
  let last = text.length << 24;
  for (let shift = 0; at < text.length; at += 1, shift += 8) last |= text.charCodeAt(at) << shift;
  round(last, 1);
  v2 ^= 0xff;
  round(0, 3);
  return (v1 ^ v3) >>> 0;
}
