/**
 * What a standby is in databases: how its rows get there, how far they are, how the stream is cut, what a
 * returned origin holds that never arrived. Everything is idempotent: called again after a crash.
 *
 * Two implementations: `logical` (the default: a database per origin beside each partner's own, rows
 * split by bucket) and `physical` (a whole server per cell, streamed). What must always be true: a
 * stream that was severed never applies another row (rule R4); CELL_DATABASE_UNREACHABLE alone is worth
 * trying again by itself.
 */
import type { OwnershipChange } from "../contract/cell-protocol.ts";
import type { CellId } from "../contract/ids.ts";
import type { RoutedKeyspace } from "../contract/routing-table.ts";
import type { StandbyProviderName, TakeoverOrder } from "../contract/standby-api.ts";
import type { StoreLogin } from "../moving/ports.ts";

export type BucketRange = { readonly lo: number; readonly hi: number };

/** One origin and one of its partners. */
export type StandbyPair = {
  readonly annex: CellId;
  readonly origin: CellId;
  readonly host: CellId;
  readonly kind: StandbyProviderName;
  /** Of a physical standby all of them. */
  readonly buckets: BucketRange;
  /** All of the fleet: which tables belong to which stands in the origin's manifest. */
  readonly keyspaces: readonly RoutedKeyspace[];
  /** Databases with tenants, by the names they have in every cell; both logins are of the mover's role. */
  readonly stores: ReadonlyArray<{
    readonly name: string;
    readonly origin: StoreLogin;
    readonly annex: StoreLogin;
  }>;
};

export type StandbyStatus = {
  /** `absent`: not made. `copying`: initial rows. `streaming`: in step. `stopped`: does not go on by itself. */
  readonly phase: "absent" | "copying" | "streaming" | "stopped" | "severed";
  /** Why it does not go on, and what mends it; empty otherwise. */
  readonly reason: string;
  /** Bytes of the origin's log not applied yet, the largest of its stores; null: not known now. */
  readonly lagBytes: number | null;
  /** Age of the newest heartbeat that was applied, by the annex's clock; null: none. */
  readonly heartbeatAgeMs: number | null;
  /** Tables that are guarded at the origin and not in the stream (corrections A20). */
  readonly uncovered: readonly string[];
};

/** Where a severed stream stood, store by store. */
export type SeveredAt = {
  readonly stores: ReadonlyArray<{
    readonly name: string;
    /** Everything the origin committed up to here is applied; null: nothing ever was. */
    readonly remoteLsn: string | null;
  }>;
  readonly heartbeatAgeMs: number | null;
};

/** A row that the origin committed and the annex never saw. */
export type SalvagedChange = {
  readonly store: string;
  readonly table: string;
  /** Of the table; empty: it is everybody's. */
  readonly keyspace: string;
  readonly kind: "insert" | "update" | "delete";
  /** Of the row's key column; empty where the message does not carry it. */
  readonly tenant: string;
  /** Columns of the replica identity. */
  readonly key: Readonly<Record<string, string | null>>;
  /** The new row as text values, without large ones that the change left as they were; of a deletion null. */
  readonly row: Readonly<Record<string, string | null>> | null;
  /** Commit position and time at the origin. */
  readonly lsn: string;
  readonly committedAt: string;
};

export type StandbyProvider = {
  /**
   * What it follows by, on both sides (publication, slot and subscription; or a whole server and the trail
   * to it); goes on from whatever stands, and makes anew, with all rows, what cannot go on. Does not wait
   * for the copy, of which `status` tells; while that says `absent`, it is called again. A stream that was
   * cut is STATE_CONFLICT, and so is an annex that serves keys.
   */
  readonly ensure: (pair: StandbyPair, signal: AbortSignal) => Promise<void>;
  readonly status: (pair: StandbyPair) => Promise<StandbyStatus>;
  /** Brings tables into the stream that came since; never changes which rows are filtered. */
  readonly refresh: (pair: StandbyPair) => Promise<void>;
  /** Needs nothing of the origin. Afterwards nothing of it is applied any more. */
  readonly sever: (pair: StandbyPair) => Promise<SeveredAt>;
  /**
   * After `sever`, before keys become active: sequences behind the highest id, statistics; the annex's agent
   * stands on the databases with the rows.
   */
  readonly activate: (pair: StandbyPair) => Promise<void>;
  /**
   * After `sever`: an open order, said to the annex's databases sooner than its agent would. False: one of them
   * knows a later one; absent: only its agent says it.
   */
  readonly open?: (pair: StandbyPair, order: TakeoverOrder) => Promise<boolean>;
  /**
   * After `activate`: these keys are the annex's, said to its databases sooner than its agent would. Resolves
   * with those that are, committed; absent: only its agent says it. Without changes, at any time: the databases
   * are reached, so that the next call is answered sooner.
   */
  readonly own?: (
    pair: StandbyPair,
    changes: readonly OwnershipChange[],
  ) => Promise<readonly string[]>;
  /**
   * Of an origin that is back: changes behind `severed`, in commit order, one call per row. Rejects with
   * SALVAGE_UNFIT when the slot is lost.
   */
  readonly salvage: (
    pair: StandbyPair,
    severed: SeveredAt,
    onChange: (change: SalvagedChange) => void | Promise<void>,
    signal: AbortSignal,
  ) => Promise<void>;
  /** Everything `ensure` made, on both sides; `origin: "gone"`: nothing of the origin can be reached. */
  readonly drop: (pair: StandbyPair, origin: "there" | "gone") => Promise<void>;
  readonly close: () => Promise<void>;
};
