/** What a cell's database is to say about a key of which the control plane says this. */
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
      return "fenced";
    default:
      return unreachable(row.state);
  }
}
