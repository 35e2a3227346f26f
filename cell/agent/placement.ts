/** One placement key as this cell's database has it. */
import type { OwnershipState } from "../../contract/cell-protocol.ts";

export type Placement = { readonly state: OwnershipState; readonly epoch: number };
