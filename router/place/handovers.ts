/**
 * Since when this router knows that a cell's keys are given to their next owners. Requests wait for that as
 * they do in a switch of a move, but not for long: a takeover that stands still, or whose control plane is
 * gone in the middle of it, would have everybody wait who asks for what the dead cell owned.
 */
import type { CellId } from "../../contract/ids.ts";
import type { TableState } from "../../contract/table-state.ts";
import type { Clock } from "../../runtime/clock.ts";

export class Handovers {
  readonly #clock: Clock;
  readonly #limitMs: number;
  #endsMs: ReadonlyMap<CellId, number> = new Map();
  #lists: TableState["lists"] | undefined;

  /** `limitMs`: so long requests wait, from when the table first says so; 0: they do not. */
  constructor(clock: Clock, limitMs: number) {
    this.#clock = clock;
    this.#limitMs = limitMs;
  }

  follow({ lists }: TableState): void {
    if (lists === this.#lists) return;
    this.#lists = lists;
    const endMs = this.#clock.monotonicMs() + this.#limitMs;
    this.#endsMs = new Map(
      lists.cells.flatMap(({ id, handover }) =>
        handover === true ? [[id, this.#endsMs.get(id) ?? endMs]] : [],
      ),
    );
  }

  /** Of the monotonic clock; infinite for a cell that is not handed over. */
  endMs(cell: CellId): number {
    return this.#endsMs.get(cell) ?? Number.POSITIVE_INFINITY;
  }
}
