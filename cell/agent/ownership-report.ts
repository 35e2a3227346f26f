/**
 * The report of all keys that a restored control plane asks for (corrections A5): one snapshot of the
 * memory, sent in pages in key order, one page per call.
 */
import type { AgentSyncRequest } from "../../contract/cell-protocol.ts";
import { epochSchema } from "../../contract/ids.ts";
import { placementKeySchema } from "../../contract/placement-key.ts";
import type { OwnedEntry } from "./ownership-cache.ts";

export type ReportPage = NonNullable<AgentSyncRequest["ownership"]>;

const pageMax = 10_000;

export class OwnershipReport {
  readonly #pageMax: number;
  #entries: readonly OwnedEntry[] | undefined;
  #sent = 0;
  #pending = 0;

  constructor(limit = pageMax) {
    this.#pageMax = limit;
  }

  /** A page waits to be sent. */
  get open(): boolean {
    return this.#entries !== undefined;
  }

  /** Asked for; a report that is under way goes on. */
  begin(read: () => readonly OwnedEntry[]): void {
    if (this.#entries !== undefined) return;
    this.#entries = read();
    this.#sent = 0;
  }
  /** Not asked for any more. */
  end(): void {
    this.#entries = undefined;
  }

  /** The same page until `sent`. An empty cell sends one empty, last page. */
  page(): ReportPage | undefined {
    if (this.#entries === undefined) return undefined;
    const entries = this.#entries.slice(this.#sent, this.#sent + this.#pageMax);
    this.#pending = entries.length;
    return {
      entries: entries.map(({ key, state, epoch }) => ({
        key: placementKeySchema.parse(key),
        state,
        epoch: epochSchema.parse(epoch),
      })),
      last: this.#sent + entries.length >= this.#entries.length,
    };
  }

  /** The page arrived. After the last one the report is over, and begins anew if asked for again. */
  sent(): void {
    if (this.#entries === undefined) return;
    this.#sent += this.#pending;
    if (this.#sent >= this.#entries.length) this.#entries = undefined;
  }
}
