/** What a cell's database is to say about a key, and what it means when it says something else. */
import type { OwnershipState } from "../../contract/cell-protocol.ts";
import type { PlacementState } from "../../contract/control-api.ts";
import { unreachable } from "../../runtime/assert.ts";

/**
 * `pending` waits for exactly this cell to say `active`. `hold` is the routers' business: the owner
 * that the row names goes on owning.
 */
export function ownershipOf(row: {
  readonly state: PlacementState;
  readonly deleted: boolean;
}): OwnershipState {
  if (row.deleted) return "dropped";
  switch (row.state) {
    case "pending":
    case "active":
    case "hold":
      return "active";
    case "unavailable":
    case "suspended":
      return "fenced";
    case "deleting":
      return "dropped";
    default:
      return unreachable(row.state);
  }
}

export type Refusal = {
  readonly key: string;
  /** What stands in the cell's database. */
  readonly state: OwnershipState;
  readonly epoch: number;
};

/**
 * `settled`: it says what is wanted. `raise`: an old command with a greater number stands in the way
 * at the same epoch; a new epoch is above it. `restored`: the cell has lived through what this
 * database has never heard of.
 */
export type RefusalVerdict = "settled" | "raise" | "restored";

export function judgeRefusal(
  wanted: { readonly state: OwnershipState; readonly epoch: number },
  refusal: Refusal,
): RefusalVerdict {
  if (refusal.epoch > wanted.epoch) return "restored";
  if (refusal.epoch < wanted.epoch || refusal.state === wanted.state) return "settled";
  return refusal.state === "moved" ? "restored" : "raise";
}
