/** While a cell is being adopted, what may be placed where: asked before anything takes tenants. */
import { CellError } from "../../contract/errors.ts";
import type { CellView } from "../core/fleet.ts";
import { agentSteps } from "../core/ops/cell-stage.ts";
import { adoptionGoesOn, checkAdoption } from "../core/safety.ts";

/**
 * Throws SAFETY_RULE when another cell than the one being adopted would take tenants, STATE_CONFLICT
 * when that one runs no agent yet: a placement is applied by an agent, also while nothing is refused.
 */
export function requireAdoptionAllows(
  cells: readonly CellView[],
  named: ReadonlyArray<string | undefined> = [],
): void {
  const adopted = cells.find(({ id, adopting }) => id === adopting);
  if (adopted === undefined) return;
  for (const id of named) {
    const cell = id === undefined ? undefined : { id, adopting: adopted.id };
    const refusal = cell === undefined ? undefined : checkAdoption(cell);
    if (refusal !== undefined) throw adoptionGoesOn(adopted, refusal);
  }
  if (adopted.stage.now !== "pass-through" || adopted.health === "healthy") return;
  throw new CellError(
    "STATE_CONFLICT",
    `${adopted.id} is in stage pass-through, and no agent of it serves yet: nobody could apply a placement there. Start its agent; requests go past it until stage observe.`,
    { nextSteps: [...agentSteps(adopted.id), `cellctl cell get ${adopted.id}`] },
  );
}
