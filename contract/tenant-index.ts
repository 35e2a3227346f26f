/**
 * From tenant id to route, for a million tenants and more: open addressing over typed arrays, about 25
 * bytes per tenant beside the id's own, invisible to the garbage collector. A `Map` of as many entries
 * takes three times the memory, stops the process for a full collection, and is slower to fill.
 *
 * What must always be true: an answer is exact. The hash only finds where to look; the id's bytes are
 * compared, so a collision can never give one tenant another's route. The hash is keyed (HalfSipHash),
 * so that nobody who chooses ids can make them collide; the key comes from whoever builds the table.
 *
 * Layout: a `slot-table.ts` whose tag is the hash, whose text is the id, with four bytes of route number
 * between them.
 */
import type { Route, RouteIndex } from "./keyspace-routes.ts";
import { SlotTable } from "./slot-table.ts";

/** Two 32-bit words. */
export type HashKey = readonly [number, number];

const numberBytes = 4;

export class TenantIndex implements RouteIndex {
  readonly #key: HashKey;
  readonly #table = new SlotTable(numberBytes);
  readonly #routes = new RouteNumbers();

  constructor(key: HashKey) {
    this.#key = key;
  }

  get size(): number {
    return this.#table.size;
  }

  /** Of the arrays; what the ids and their places cost. */
  get bytes(): number {
    return this.#table.bytes;
  }

  get(id: string): Route | undefined {
    const slot = this.#find(id, tagOf(this.#key, id));
    const offset = this.#table.offsetAt(slot);
    return offset === 0 ? undefined : this.#routes.at(readNumber(this.#table.arena, offset));
  }

  set(id: string, route: Route): void {
    const tag = tagOf(this.#key, id);
    const slot = this.#find(id, tag);
    const offset = this.#table.offsetAt(slot);
    const number = this.#routes.take(route);
    if (offset !== 0) this.#routes.drop(readNumber(this.#table.arena, offset));
    const place = offset === 0 ? this.#table.add(slot, tag, id) : offset;
    writeNumber(this.#table.arena, place, number);
  }

  delete(id: string): boolean {
    const slot = this.#find(id, tagOf(this.#key, id));
    const offset = this.#table.offsetAt(slot);
    if (offset === 0) return false;
    this.#routes.drop(readNumber(this.#table.arena, offset));
    this.#table.remove(slot);
    return true;
  }

  /** In no order. What is changed meanwhile may or may not be seen. */
  *entries(): Generator<readonly [string, Route]> {
    const table = this.#table;
    for (let slot = 0; slot < table.slots; slot += 1) {
      const offset = table.offsetAt(slot);
      if (offset === 0) continue;
      const route = this.#routes.at(readNumber(table.arena, offset));
      if (route !== undefined) yield [table.textAt(offset), route];
    }
  }

  /** Every route that some id has, once: few, however many ids there are. */
  values(): Iterable<Route> {
    return this.#routes.all();
  }

  /** The slot of the id, or the empty one where it would go. */
  #find(id: string, tag: number): number {
    const table = this.#table;
    let slot = table.first(tag);
    for (;;) {
      const offset = table.offsetAt(slot);
      if (offset === 0 || table.hasText(offset, id)) return slot;
      slot = table.next(tag, slot);
    }
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

/** The entry's field stands behind its byte of length. */
function readNumber(arena: Uint8Array, offset: number): number {
  return (
    ((arena[offset + 1] ?? 0) |
      ((arena[offset + 2] ?? 0) << 8) |
      ((arena[offset + 3] ?? 0) << 16) |
      ((arena[offset + 4] ?? 0) << 24)) >>>
    0
  );
}

function writeNumber(arena: Uint8Array, offset: number, number: number): void {
  arena[offset + 1] = number;
  arena[offset + 2] = number >>> 8;
  arena[offset + 3] = number >>> 16;
  arena[offset + 4] = number >>> 24;
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
