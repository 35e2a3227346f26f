/** Tells which cells the table has begun to call halted: what stands open to them must not go on. */
import type { CellId } from "../../contract/ids.ts";
import type { TableState } from "../../contract/table-state.ts";

export class Halts {
  #halted: ReadonlySet<CellId> = new Set();
  #lists: TableState["lists"] | undefined;
  #tell: (cells: ReadonlySet<CellId>) => void = () => {};

  /** Whoever holds connections open. One only: a router has one set of doors. */
  onHalted(tell: (cells: ReadonlySet<CellId>) => void): void {
    this.#tell = tell;
  }

  follow({ lists }: TableState): void {
    if (lists === this.#lists) return;
    this.#lists = lists;
    const before = this.#halted;
    const now = lists.cells.flatMap(({ id, halted }) => (halted === true ? [id] : []));
    this.#halted = new Set(now);
    const fresh = now.filter((id) => !before.has(id));
    if (fresh.length > 0) this.#tell(new Set(fresh));
  }
}
