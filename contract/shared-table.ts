/**
 * A table as it is handed to another thread: values that `postMessage` can carry. Whoever gets one
 * makes a table of it (`TableState.fromShared`) and moves it on by the same deltas as everybody else.
 */
import type { AliasGroup, PlacementGroup } from "./routing-table.ts";
import type { TableHead } from "./table-state.ts";
import type { HashKey } from "./tenant-index.ts";

/** Opaque to whoever carries it. */
export type SharedTable = {
  readonly head: TableHead;
  readonly hashKey: HashKey;
  readonly epochMax: number;
  readonly groups: ReadonlyArray<PlacementGroup | AliasGroup>;
};
