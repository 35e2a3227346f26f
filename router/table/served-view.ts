/**
 * What this router serves from, made anew in the same turn as each change of the table, so that no
 * request sees lists of one revision and placements of another.
 */
import type { CellId } from "../../contract/ids.ts";
import type { DeltaBody } from "../../contract/routing-table.ts";
import type { TableState } from "../../contract/table-state.ts";
import type { RoutingView } from "../place/decide.ts";

export type ServedView = {
  /** Undefined until there is a table. */
  readonly view: () => RoutingView | undefined;
  /** A table of the control plane came, or moved on by a delta. */
  readonly follow: (table: TableState, delta?: DeltaBody) => void;
  /** Static mode: the file is the operator's, so it is taken as it is. */
  readonly set: (view: RoutingView) => void;
};

/** `onChange` runs in the same turn as the change, after it is complete. */
export function createServedView(
  onChange: (view: RoutingView, delta: DeltaBody | undefined) => void,
): ServedView {
  let view: RoutingView | undefined;
  const set = (next: RoutingView, delta?: DeltaBody) => {
    view = next;
    onChange(next, delta);
  };
  return {
    view: () => view,
    follow: (table, delta) => set({ table, protocol: "epoch", passThrough: takerOf(table) }, delta),
    set: (next) => set(next),
  };
}

/** The one cell that is not in `enforce`. Of two neither may take what is placed nowhere: no guesses. */
function takerOf({ lists }: TableState): CellId | undefined {
  const [taker, second] = lists.cells.filter(({ stage = "enforce" }) => stage !== "enforce");
  return second === undefined ? taker?.id : undefined;
}
