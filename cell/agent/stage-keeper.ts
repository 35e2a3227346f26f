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

  get now(): CellStage {
    return this.#database === "enforce" ? (this.#leavingFor ?? "enforce") : this.#database;
  }

  /** Read in the cell's database. */
  observe(stage: CellStage): void {
    this.#database = stage;
    // The database has followed; from here on it alone is believed.
    if (stage !== "enforce") this.#leavingFor = undefined;
  }

  /** Said by the control plane; undefined: as it is. */
  hear(stage: CellStage | undefined): void {
    if (stage === undefined) return;
    const leaves = stage !== "enforce" && this.#database === "enforce";
    this.#leavingFor = leaves ? stage : undefined;
  }
}
