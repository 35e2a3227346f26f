/** What an RPO report is made from: read by the store, judged by rpo.ts and rpo-method.ts. */
import type { AckedWrite } from "../../../contract/cell-protocol.ts";
import type { CellId, OpId } from "../../../contract/ids.ts";
import type { PlacementKey } from "../../../contract/placement-key.ts";
import type { StorePosition } from "./rpo-position.ts";

/** All that one router instance handed in, page after page. */
export type Ring = {
  readonly router: string;
  readonly instance: string;
  /** The page that says `last` has come. */
  readonly isWhole: boolean;
  /** By the router's clock. */
  readonly completeSinceMs: number;
  /** To be added to the router's clock, to have ours; too large by the time that the page travelled. */
  readonly offsetMs: number;
  readonly entries: readonly AckedWrite[];
};

export type RpoPartner = {
  readonly annex: CellId;
  readonly host: CellId;
  readonly buckets: { readonly lo: number; readonly hi: number };
  /** Where its streams were cut, one for each store of the cell. */
  readonly stores: readonly StorePosition[];
  readonly heartbeatAgeMs: number | null;
  /** By our clock: when the newest heartbeat that was applied was made; null: none. */
  readonly heartbeatAtMs: number | null;
};

/** A key of the dead cell, and what became of it. */
export type RpoKey = {
  readonly key: PlacementKey;
  /** Whom the failover gave it to: an annex, the cell that a move had taken it from; empty: nobody. */
  readonly cell: string;
  /** Who has its rows now: moves may have taken it on since; null: it was deleted. */
  readonly owner: string | null;
  /** At the dead cell. */
  readonly epoch: number;
  readonly fate: "adopted" | "returned" | "unavailable" | "quarantined";
  readonly reason: string;
  /** Of a key that was returned: how far the copy there had come in the dead cell's log (rpo-position.ts). */
  readonly remoteLsn: string | null;
};

export type RpoFacts = {
  readonly failover: OpId;
  readonly cell: CellId;
  readonly detectedAtMs: number;
  readonly fencedAtMs: number | null;
  readonly partners: readonly RpoPartner[];
  readonly keys: ReadonlyMap<string, RpoKey>;
  /** May have acknowledged its writes: seen not long before it was cut off, whether they live or not. */
  readonly routers: readonly string[];
  readonly rings: readonly Ring[];
};

/** A write whose fate has to be looked up, and where. */
export type Suspect = {
  readonly write: AckedWrite;
  /** When it was passed on, by our clock. */
  readonly atMs: number;
  /** The cell that has the rows of its key now; null: none has. */
  readonly owner: string | null;
  readonly because: string;
  /** Of several stores those that may lack it; empty: there is but one. */
  readonly stores: readonly string[];
};

/** `found`: its idempotency record is there. `absent`: it is not. `unasked`: nobody could ask. */
export type Finding = "found" | "absent" | "unasked";
