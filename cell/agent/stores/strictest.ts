/**
 * What several stores of one cell say together, where they differ: the strictest. Pure.
 *
 * Always true: a key is `active` only if every store has it so, at the same epoch; a stage that refuses
 * more counts before one that refuses less.
 */
import { type CellStage, cellStages } from "../../../contract/routing-table.ts";
import type { Placement } from "../placement.ts";

/** In any order and any grouping the same answer to "may it be served, and at which epoch". */
export function strictestPlacement(
  a: Placement | undefined,
  b: Placement | undefined,
): Placement | undefined {
  if (a?.state === b?.state && a?.epoch === b?.epoch) return a;
  const closed = [a, b].filter((one) => isClosed(one));
  if (closed.length > 0) return closed.reduce((one, other) => later(one, other));
  if (a?.state !== "active" && b?.state !== "active") return a ?? b;
  // Active in one store, and another one has not heard of it yet, or is at another epoch.
  return { state: "importing", epoch: Math.max(a?.epoch ?? 0, b?.epoch ?? 0) };
}

/** Here, and not served. What is dropped or unknown is not here: it stands in the way of nothing. */
const isClosed = (one: Placement | undefined): boolean =>
  one !== undefined && one.state !== "active" && one.state !== "dropped";

const later = (a: Placement | undefined, b: Placement | undefined): Placement | undefined =>
  (b?.epoch ?? 0) > (a?.epoch ?? 0) ? b : a;

/** `pass-through` stands first in the list, `enforce` last. */
export const strictestStage = (stages: readonly CellStage[]): CellStage =>
  cellStages[Math.max(...stages.map((stage) => cellStages.indexOf(stage)))] ?? "enforce";
