/**
 * The cell's stage as this gate follows it. What the database holds rules, because it is durable and
 * the same for all agents; only the way out of `enforce` is taken as soon as the control plane says
 * it, since the gate opens before the database does.
 *
 * Inward the order is database, then gate: so `enforce` is never taken from an answer, and an agent
 * that has not seen its database yet refuses.
 */
import type { CellStage } from "../../contract/routing-table.ts";

export class StageKeeper {
  #database: CellStage = "enforce";
  #leavingFor: CellStage | undefined;
  readonly #onChange: (from: CellStage, to: CellStage) => void;

  constructor(onChange: (from: CellStage, to: CellStage) => void) {
    this.#onChange = onChange;
  }

  get now(): CellStage {
    return this.#database === "enforce" ? (this.#leavingFor ?? "enforce") : this.#database;
  }

  /** Read in the cell's database, by readings one after the other: an older one must not come late. */
  observe(stage: CellStage): void {
    this.#move(() => {
      this.#database = stage;
      // The database has followed; from here on it alone is believed.
      if (stage !== "enforce") this.#leavingFor = undefined;
    });
  }

  /** Said by the control plane; undefined: as it is. */
  hear(stage: CellStage | undefined): void {
    if (stage === undefined) return;
    this.#move(() => {
      const leaves = stage !== "enforce" && this.#database === "enforce";
      this.#leavingFor = leaves ? stage : undefined;
    });
  }

  #move(change: () => void): void {
    const before = this.now;
    change();
    if (this.now !== before) this.#onChange(before, this.now);
  }
}
