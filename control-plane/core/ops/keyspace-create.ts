/** A keyspace and its containers, spread over the open cells: the plan. `placements.ts` runs it. */
import type { Plan } from "../../../contract/control-api.ts";
import { onePlan } from "./machine.ts";

export function planKeyspace(
  name: string,
  strategy: string,
  spread: ReadonlyMap<string, string>,
): Plan {
  const perCell = new Map<string, number>();
  for (const cell of spread.values()) perCell.set(cell, (perCell.get(cell) ?? 0) + 1);
  return onePlan("keyspace.create", [
    { action: "create", object: name, text: `create keyspace ${name}, strategy ${strategy}` },
    ...[...perCell]
      .toSorted(([a], [b]) => (a < b ? -1 : 1))
      .map(([cell, keys]) => ({
        action: "place",
        object: cell,
        text: `place ${keys} of ${spread.size} containers in ${cell}`,
      })),
  ]);
}
