/**
 * The report of all keys that a restored control plane asks for (corrections A5): pages in key order,
 * one per call, read from the database when they are sent. The memory is not used: sorting a million
 * keys in this process would hold up every request at the gate.
 */
import type { AgentSyncRequest } from "../../contract/cell-protocol.ts";
import { epochSchema } from "../../contract/ids.ts";
import { placementKeySchema } from "../../contract/placement-key.ts";
import type { OwnedKey } from "../store/ownership.ts";

export type ReportPage = NonNullable<AgentSyncRequest["ownership"]>;
type ReadPage = (afterKey: string, limit: number) => Promise<readonly OwnedKey[]>;

const pageMax = 10_000;

export class OwnershipReport {
  readonly #read: ReadPage;
  readonly #pageMax: number;
  /** The last key that has arrived; undefined while nothing is asked for. */
  #after: string | undefined;
  #page: ReportPage | undefined;

  constructor(read: ReadPage, limit = pageMax) {
    this.#read = read;
    this.#pageMax = limit;
  }

  /** A page waits to be sent. */
  get open(): boolean {
    return this.#after !== undefined;
  }

  /** Asked for; a report that is under way goes on. */
  begin(): void {
    this.#after ??= "";
  }
  /** Not asked for any more. */
  end(): void {
    this.#after = undefined;
    this.#page = undefined;
  }

  /** The same page until `sent`. An empty cell sends one empty, last page. */
  async page(): Promise<ReportPage | undefined> {
    if (this.#after === undefined) return undefined;
    if (this.#page !== undefined) return this.#page;
    const rows = await this.#read(this.#after, this.#pageMax);
    this.#page = {
      entries: rows.map(({ key, state, epoch }) => ({
        key: placementKeySchema.parse(key),
        state,
        epoch: epochSchema.parse(epoch),
      })),
      last: rows.length < this.#pageMax,
    };
    return this.#page;
  }

  /** The page arrived. After the last one the report is over, and begins anew if asked for again. */
  sent(): void {
    const page = this.#page;
    this.#page = undefined;
    if (page === undefined) return;
    this.#after = page.last ? undefined : page.entries.at(-1)?.key;
  }
}
