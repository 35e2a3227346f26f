/**
 * The states of a cell, as intended; what is observed of it is `health.ts`. The database column, the
 * API and this table come from one array in the contract.
 *
 * provisioning: being built · active: open for placement · cordoned: serves, takes no new tenants ·
 * draining: its tenants leave · quarantined: kept apart as evidence · retired: gone, its id is spent.
 */
import type { CellAction, CellState } from "../../contract/control-api.ts";

export const cellTransitions: Readonly<Record<CellState, readonly CellState[]>> = {
  provisioning: ["active", "retired"],
  active: ["cordoned", "draining", "quarantined", "retired"],
  cordoned: ["active", "draining", "quarantined", "retired"],
  draining: ["active", "cordoned", "quarantined", "retired"],
  quarantined: ["cordoned", "retired"],
  retired: [],
};

export const mayBecome = (from: CellState, to: CellState): boolean =>
  from === to || cellTransitions[from].includes(to);

/** In which states an action makes sense. Kill, stop and start act on processes in any living state. */
export const actionStates: Readonly<Record<CellAction, readonly CellState[]>> = {
  cordon: ["active"],
  uncordon: ["cordoned"],
  kill: ["active", "cordoned", "draining", "quarantined"],
  stop: ["active", "cordoned", "draining", "quarantined"],
  start: ["active", "cordoned", "draining", "quarantined"],
  destroy: ["provisioning", "active", "cordoned", "draining", "quarantined"],
};

/** What a person types next when the action is not possible in this state. */
export function insteadOf(action: CellAction, cell: string, state: CellState): readonly string[] {
  if (state === "retired") return ["cellctl cell ls"];
  if (action === "cordon" && state === "cordoned") return [`cellctl cell uncordon ${cell}`];
  if (action === "uncordon" && state === "active") return [`cellctl cell cordon ${cell}`];
  if (state === "provisioning")
    return [`cellctl cell create ${cell}`, `cellctl cell destroy ${cell}`];
  return [`cellctl cell get ${cell}`];
}
