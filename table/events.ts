/** What a follower of the table tells whoever holds it, and what it is told to report. */
import type { RouterSyncRequest } from "../contract/cell-protocol.ts";
import type { TableState } from "../contract/table-state.ts";

export const tableRefusalReasons = [
  "other-fleet",
  "gap",
  "invalid",
  "drift",
  "older",
  "corrupt",
  "unsigned",
  "unreadable",
  "missing",
] as const;
export type TableRefusalReason = (typeof tableRefusalReasons)[number];

export type TableEvent =
  | {
      readonly kind: "applied";
      readonly by: "snapshot" | "delta" | "file";
      /** The revision before; null if there was no table. */
      readonly from: number | null;
      readonly table: TableState;
      readonly ms: number;
    }
  /** `where`: `snapshot`, `delta`, or the folder on disk. What was served before is served on. */
  | {
      readonly kind: "refused";
      readonly reason: TableRefusalReason;
      readonly text: string;
      readonly where: string;
    }
  /** The table in memory is newer than the one on disk. */
  | { readonly kind: "not-written"; readonly error: unknown }
  /** The journal on disk stays long. */
  | { readonly kind: "not-compacted"; readonly error: unknown }
  /** A call was answered; `recovered`: the one before was not. */
  | { readonly kind: "synced"; readonly recovered: boolean }
  /** `first`: of an outage. */
  | { readonly kind: "sync-failed"; readonly error: unknown; readonly first: boolean };

/** What goes along with each call, beside what the follower itself knows. */
export type SyncReport = Pick<
  RouterSyncRequest,
  "admin" | "seen" | "wouldRefuse" | "keys" | "collected"
>;
