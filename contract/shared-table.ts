/**
 * A table as it is handed to another thread or written to a file: values that `postMessage` can carry,
 * with the images of its tenants as they are, not copied. Whoever gets one makes a table of it
 * (`TableState.fromShared`) and moves it on by the same deltas as everybody else.
 */
import type { SharedAliases } from "./alias-index.ts";
import type { HashKey } from "./half-sip-hash.ts";
import type { CellId, Revision } from "./ids.ts";
import type { SharedPlacements } from "./placements.ts";
import type { Sum } from "./table-checksum.ts";
import type { TableHead } from "./table-state.ts";

/** Opaque to whoever carries it. */
export type SharedTable = {
  readonly head: TableHead;
  readonly hashKey: HashKey;
  readonly listsSum: Sum;
  readonly placements: SharedPlacements;
  readonly aliases: SharedAliases;
  /** Cells that lost or gained a placement, and when last. */
  readonly changedOwner: ReadonlyArray<readonly [CellId, Revision]>;
};
