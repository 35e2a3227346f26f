/**
 * Which placements were spoken of lately. A gate that refuses a request contradicts the table that the
 * request was sent by; it may be sent again when the table has said something of the placement since,
 * even if it is the same as before: a switch that was taken back leaves the owner as it was.
 *
 * What must always be true: news is never missed. Of what is forgotten it says that there was some.
 */
import { keyOfParts, type PlacementKey } from "../../contract/placement-key.ts";
import type { DeltaBody } from "../../contract/routing-table.ts";

/** Far above what is moved at a time. */
const keysMax = 4096;

export class News {
  readonly #lastBy = new Map<string, number>();
  /** Of every placement something may have been said up to this revision. */
  #floor = 0;

  /** A whole table says something of everything. */
  note(revision: number, delta: DeltaBody | undefined): void {
    if (delta === undefined || delta.keyspaces !== undefined) {
      this.#forget(revision);
      return;
    }
    for (const { keyspace, kind, values } of delta.upserts) {
      for (const value of values) this.#lastBy.set(keyOfParts(keyspace, kind, value), revision);
    }
    for (const key of delta.deletes) this.#lastBy.set(key, revision);
    if (this.#lastBy.size > keysMax) this.#forget(revision);
  }

  /** Was anything said of it after this revision? */
  isAfter(key: PlacementKey, revision: number): boolean {
    return (this.#lastBy.get(key) ?? this.#floor) > revision;
  }

  #forget(revision: number): void {
    this.#lastBy.clear();
    this.#floor = revision;
  }
}
