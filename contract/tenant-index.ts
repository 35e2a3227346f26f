/**
 * From tenant id to route, for ten million tenants: a base image that never changes and that any number
 * of threads share (`tenant-base.ts`), and above it the changes since (`slot-table.ts`). When there are
 * many changes, both are merged into a new image, a little with each further change.
 *
 * What must always be true: it answers as a `Map` would, before, while and after a merge. What the
 * changes say stands above the image; a tenant that is gone leaves a change behind that says so.
 */
import { type HashKey, tagOf } from "./half-sip-hash.ts";
import type { Route, RouteIndex } from "./keyspace-routes.ts";
import { RouteNumbers, type SharedRoutes } from "./route-numbers.ts";
import { SlotTable } from "./slot-table.ts";
import { type BaseImage, emptyImage, TenantBase } from "./tenant-base.ts";
import { readNumber, TenantMerge, writeNumber } from "./tenant-merge.ts";

/** What `postMessage` can carry, and what a file holds. */
export type SharedIndex = {
  readonly image: BaseImage;
  readonly routes: SharedRoutes;
  readonly size: number;
  /** Number 0: the tenant is gone. */
  readonly changes: ReadonlyArray<readonly [string, number]>;
};

export type IndexLimits = {
  /** Fewer changes are never merged. */
  readonly changesMin: number;
  /** More are always merged. */
  readonly changesMax: number;
  /** Instead of those, while it is being filled; or as many as the image has, if that is less. */
  readonly fillMax: number;
};

/** Small enough that a new thread takes them over in a moment, and the collector does not mind. */
const limitsDefault: IndexLimits = {
  changesMin: 4096,
  changesMax: 131_072,
  fillMax: 1_048_576,
};
/** Of the image, between the first two. */
const changesShare = 0.05;

const numberBytes = 4;
const gone = 0;
/** Not among these changes: whoever stands below decides. */
const unsaid = -1;

export class TenantIndex implements RouteIndex {
  readonly #key: HashKey;
  readonly #limits: IndexLimits;
  #routes = new RouteNumbers();
  #base = new TenantBase(emptyImage());
  #changes = new SlotTable(numberBytes);
  /** Above the image and below `#changes`, while a new image is made of both. */
  #merging: { readonly changes: SlotTable; readonly merge: TenantMerge } | undefined;
  #bucketsPerChange = 0;
  #size = 0;
  #generation = 0;
  /** `follow`: the image is another's, who makes the new ones. */
  #mode: "fill" | "serve" | "follow" = "fill";

  constructor(key: HashKey, limits: IndexLimits = limitsDefault) {
    this.#key = key;
    this.#limits = limits;
  }

  /** With the image itself, not a copy. It makes no image of its own unless it `owns` this one. */
  static fromShared(
    key: HashKey,
    shared: SharedIndex,
    { owns, limits }: { readonly owns: boolean; readonly limits?: IndexLimits },
  ): TenantIndex {
    const index = new TenantIndex(key, limits);
    index.#base = new TenantBase(shared.image);
    index.#routes = RouteNumbers.fromShared(shared.routes);
    index.#size = shared.size;
    index.#mode = owns ? "serve" : "follow";
    for (const [id, number] of shared.changes) index.#put(id, tagOf(key, id), number);
    return index;
  }

  get size(): number {
    return this.#size;
  }

  /** Of the arrays; what the ids and their places cost. */
  get bytes(): number {
    const merging = this.#merging?.changes.bytes ?? 0;
    return this.#base.image.memory.byteLength + this.#changes.bytes + merging;
  }

  /** Grows with each new image. */
  get generation(): number {
    return this.#generation;
  }

  get(id: string): Route | undefined {
    return this.#routes.at(this.#numberOf(id, tagOf(this.#key, id)));
  }

  set(id: string, route: Route): void {
    const tag = tagOf(this.#key, id);
    const before = this.#numberOf(id, tag);
    this.#put(id, tag, this.#routes.take(route));
    if (before === gone) this.#size += 1;
    else this.#routes.drop(before);
    this.#advance();
  }

  delete(id: string): boolean {
    const tag = tagOf(this.#key, id);
    const before = this.#numberOf(id, tag);
    if (before === gone) return false;
    if (this.#numberBelow(id, tag) === gone) this.#changes.remove(slotOf(this.#changes, id, tag));
    else this.#put(id, tag, gone);
    this.#routes.drop(before);
    this.#size -= 1;
    this.#advance();
    return true;
  }

  /** In no order. Whoever changes it meanwhile begins anew. */
  *entries(): Generator<readonly [string, Route]> {
    const layers = this.#merging === undefined ? [] : [this.#merging.changes];
    const above: SlotTable[] = [];
    for (const layer of [this.#changes, ...layers]) {
      for (const [id, number] of changesOf(layer)) {
        if (number !== gone && !isSaidBy(above, this.#key, id)) yield* this.#entry(id, number);
      }
      above.push(layer);
    }
    const isUnchanged = above.every((layer) => layer.size === 0);
    for (const [id, number] of this.#base.entries()) {
      if (isUnchanged || !isSaidBy(above, this.#key, id)) yield* this.#entry(id, number);
    }
  }

  /** Every route that some id has, once: few, however many ids there are. */
  values(): Iterable<Route> {
    return this.#routes.all();
  }

  share(): SharedIndex {
    const changes = new Map<string, number>();
    for (const layer of [this.#merging?.changes, this.#changes]) {
      for (const [id, number] of layer === undefined ? [] : changesOf(layer))
        changes.set(id, number);
    }
    return {
      image: this.#base.image,
      routes: this.#routes.share(),
      size: this.#size,
      changes: [...changes],
    };
  }

  /**
   * The table is filled: all of a large one goes into an image, so many buckets at a time, and changes
   * are merged from now on. True when it is done.
   */
  settle(buckets: number): boolean {
    if (this.#mode === "follow") return true;
    if (this.#merging === undefined) {
      if (this.#changes.size < this.#limits.changesMin) this.#mode = "serve";
      else this.#begin();
    }
    if (this.#merging !== undefined) this.#advance(buckets);
    return this.#mode === "serve";
  }

  *#entry(id: string, number: number): Generator<readonly [string, Route]> {
    const route = this.#routes.at(number);
    if (route !== undefined) yield [id, route];
  }

  #numberOf(id: string, tag: number): number {
    if (this.#changes.size > 0) {
      const number = numberIn(this.#changes, id, tag);
      if (number !== unsaid) return number;
    }
    return this.#numberBelow(id, tag);
  }

  #numberBelow(id: string, tag: number): number {
    if (this.#merging !== undefined) {
      const number = numberIn(this.#merging.changes, id, tag);
      if (number !== unsaid) return number;
    }
    return this.#base.find(id, tag);
  }

  #put(id: string, tag: number, number: number): void {
    const changes = this.#changes;
    const slot = slotOf(changes, id, tag);
    const offset = changes.offsetAt(slot);
    const place = offset === 0 ? changes.add(slot, tag, id) : offset;
    writeNumber(changes.arena, place, number);
  }

  /** So much of a merge with each change that it ends before half as many more have come as began it. */
  #advance(buckets: number = this.#bucketsPerChange): void {
    if (this.#merging === undefined) {
      if (this.#changes.size > this.#changesBound()) this.#begin();
    } else if (this.#merging.merge.step(buckets)) {
      this.#base = new TenantBase(this.#merging.merge.end());
      this.#merging = undefined;
      this.#generation += 1;
    }
  }

  #changesBound(): number {
    if (this.#mode === "follow") return Number.POSITIVE_INFINITY;
    const { changesMin, changesMax, fillMax } = this.#limits;
    const { count } = this.#base.image;
    const isFilled = this.#mode === "serve";
    const most = isFilled ? Math.min(changesMax, count * changesShare) : Math.min(fillMax, count);
    return Math.max(changesMin, most);
  }

  #begin(): void {
    const changes = this.#changes;
    this.#changes = new SlotTable(numberBytes);
    const merge = new TenantMerge(this.#base, changes, this.#key);
    this.#merging = { changes, merge };
    this.#bucketsPerChange = Math.ceil((merge.buckets * 2) / changes.size);
  }
}

/** The slot of the id, or the empty one where it would go. */
function slotOf(changes: SlotTable, id: string, tag: number): number {
  let slot = changes.first(tag);
  for (;;) {
    const offset = changes.offsetAt(slot);
    if (offset === 0 || changes.hasText(offset, id)) return slot;
    slot = changes.next(tag, slot);
  }
}

function numberIn(changes: SlotTable, id: string, tag: number): number {
  const offset = changes.offsetAt(slotOf(changes, id, tag));
  return offset === 0 ? unsaid : readNumber(changes.arena, offset);
}

const isSaidBy = (layers: readonly SlotTable[], key: HashKey, id: string): boolean => {
  const tag = tagOf(key, id);
  return layers.some((layer) => numberIn(layer, id, tag) !== unsaid);
};

function* changesOf(layer: SlotTable): Generator<readonly [string, number]> {
  for (let slot = 0; slot < layer.slots; slot += 1) {
    const offset = layer.offsetAt(slot);
    if (offset !== 0) yield [layer.textAt(offset), readNumber(layer.arena, offset)];
  }
}
