/** What an RPO report is made from: read by the store, judged by rpo.ts and rpo-method.ts. */
import type { AckedWrite } from "../../../contract/cell-protocol.ts";
import type { CellId, OpId } from "../../../contract/ids.ts";
import type { PlacementKey } from "../../../contract/placement-key.ts";

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
  /** Everything that the cell committed up to here is applied; null: nothing is known to be. */
  readonly remoteLsn: string | null;
  readonly heartbeatAgeMs: number | null;
  /** By our clock: when the newest heartbeat that was applied was made; null: none. */
  readonly heartbeatAtMs: number | null;
};

/** A key of the dead cell, and what became of it. */
export type RpoKey = {
  readonly key: PlacementKey;
  /** Who owns it now; an annex, the cell that a move had taken it from, or the dead cell itself. */
  readonly cell: string;
  readonly fate: "adopted" | "returned" | "unavailable" | "quarantined";
  readonly reason: string;
  /** Of a key that was returned: how far the copy there had come in the dead cell's log. */
  readonly remoteLsn: string | null;
};

export type RpoFacts = {
  readonly failover: OpId;
  readonly cell: CellId;
  readonly detectedAtMs: number;
  readonly fencedAtMs: number | null;
  readonly partners: readonly RpoPartner[];
  readonly keys: ReadonlyMap<string, RpoKey>;
  /** Seen within the last minutes before the cell was cut off, whether they live or not. */
  readonly routers: readonly string[];
  readonly rings: readonly Ring[];
  /** Why positions in acknowledgements cannot be compared with those of partners; undefined: they can. */
  readonly incomparable: string | undefined;
};

/** A write whose fate has to be looked up, and where. */
export type Suspect = {
  readonly write: AckedWrite;
  /** When it was passed on, by our clock. */
  readonly atMs: number;
  /** The cell that owns its key now. */
  readonly owner: string;
  readonly because: string;
};

/** `found`: its idempotency record is there. `absent`: it is not. `unasked`: nobody could ask. */
export type Finding = "found" | "absent" | "unasked";

/** `X/Y`, as PostgreSQL writes it; undefined: it is none. */
export function parseLsn(text: string | null | undefined): bigint | undefined {
  const parts = /^([0-9A-Fa-f]{1,8})\/([0-9A-Fa-f]{1,8})$/.exec(text ?? "");
  if (parts === null) return undefined;
  return (BigInt(`0x${parts[1]}`) << 32n) | BigInt(`0x${parts[2]}`);
}

/** Null: of one of them nobody knows it. */
export function leastLsn(positions: readonly (string | null)[]): string | null {
  const [first = null, ...rest] = positions;
  return rest.reduce((least, one) => {
    const [a, b] = [parseLsn(least), parseLsn(one)];
    if (a === undefined || b === undefined) return null;
    return a < b ? least : one;
  }, first);
}
