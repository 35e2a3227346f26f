/**
 * Whose keys are given to their next owners, and for how long this router has known. Requests wait for that as
 * they do for the switch of a move, but not for long: a takeover that stands still, or whose control plane is
 * gone in the middle of it, would have everybody wait who asks for what the dead cell owned.
 */
import type { CellId } from "../../contract/ids.ts";
import type { TableState } from "../../contract/table-state.ts";
import type { Clock, Timer } from "../../runtime/clock.ts";

export class Handovers {
  readonly #clock: Clock;
  readonly #limitMs: number;
  readonly #onOver: () => void;
  /** Undefined: its time is over, and stays so until the table has taken the word back. */
  readonly #timers = new Map<CellId, Timer | undefined>();
  #lists: TableState["lists"] | undefined;

  /** `limitMs`: so long requests wait, from when the table first says so; 0: they do not. */
  constructor(options: {
    readonly clock: Clock;
    readonly limitMs: number;
    /** Whoever waits is to be looked at again. */
    readonly onOver: () => void;
  }) {
    this.#clock = options.clock;
    this.#limitMs = options.limitMs;
    this.#onOver = options.onOver;
  }

  follow({ lists }: TableState): void {
    if (lists === this.#lists) return;
    this.#lists = lists;
    const now = new Set(lists.cells.flatMap(({ id, handover }) => (handover === true ? [id] : [])));
    for (const [cell, timer] of this.#timers) {
      if (now.has(cell)) continue;
      timer?.cancel();
      this.#timers.delete(cell);
    }
    for (const cell of now) {
      if (!this.#timers.has(cell)) this.#timers.set(cell, this.#limit(cell));
    }
  }

  /** Is it waited for no more? */
  isOver(cell: CellId): boolean {
    return this.#timers.has(cell) && this.#timers.get(cell) === undefined;
  }

  #limit(cell: CellId): Timer | undefined {
    if (this.#limitMs === 0) return undefined;
    const end = () => {
      this.#timers.set(cell, undefined);
      this.#onOver();
    };
    return this.#clock.after(this.#limitMs, end, { background: true });
  }
}
