/**
 * The cell's stage as this gate follows it. What the database holds rules, because it is durable and
 * the same for all agents; only the way out of `enforce` is taken as soon as the control plane says
 * it, since the gate opens before the database does.
 *
 * An answer may come late: only one that is newer than what the database was told last opens the gate.
 *
 * Inward the order is database, then gate: so `enforce` is never taken from an answer, and an agent
 * that has not seen its database yet refuses.
 */
import type { CellStage } from "../../contract/routing-table.ts";

export class StageKeeper {
  #database: CellStage = "enforce";
  #number = 0;
  #leavingFor: { readonly stage: CellStage; readonly number: number } | undefined;
  readonly #onChange: (from: CellStage, to: CellStage) => void;

  constructor(onChange: (from: CellStage, to: CellStage) => void) {
    this.#onChange = onChange;
  }

  get now(): CellStage {
    return this.#database === "enforce" ? (this.#leavingFor?.stage ?? "enforce") : this.#database;
  }

  /** Read in the cell's database, by readings one after the other: an older one must not come late. */
  observe(stage: CellStage, number: number): void {
    this.#move(() => {
      this.#database = stage;
      this.#number = number;
      // The database has followed, or gone on past it; from here on it alone is believed.
      const leaving = this.#leavingFor?.number ?? 0;
      if (stage !== "enforce" || number >= leaving) this.#leavingFor = undefined;
    });
  }

  /** True: hearing this would open the gate before the database does. */
  wouldLeave(stage: CellStage | undefined, number: number): boolean {
    const isNewer = number > this.#number;
    return stage !== undefined && stage !== "enforce" && this.#database === "enforce" && isNewer;
  }

  /** Said by the control plane, as change `number` of the stage; undefined: as it is. */
  hear(stage: CellStage | undefined, number: number): void {
    if (stage === undefined) return;
    this.#move(() => {
      this.#leavingFor = this.wouldLeave(stage, number) ? { stage, number } : undefined;
    });
  }

  #move(change: () => void): void {
    const before = this.now;
    change();
    if (this.now !== before) this.#onChange(before, this.now);
  }
}
