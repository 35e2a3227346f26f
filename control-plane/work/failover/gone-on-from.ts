/**
 * Brings keys whose only copy is in a failed-over cell into whole cells, by ordinary moves. Each look begins
 * what may be begun; nothing is remembered, so whoever leads next goes on.
 */
import { cellsGoneOnFrom } from "../../store/failover/stranded.ts";
import { emptyCell } from "../emptying/emptying.ts";
import type { SalvageWorld } from "./salvage-world.ts";

/** True: a move was begun. */
export async function bringOut(
  world: Pick<SalvageWorld, "database" | "clock" | "random">,
  term: number,
): Promise<boolean> {
  let begun = 0;
  for (const from of await cellsGoneOnFrom(world.database.read)) {
    const reason = `nobody but ${from}, which was failed over, has a copy: into a whole cell`;
    begun += (await emptyCell(world, { from, op: "", term, reason })).begun;
  }
  return begun > 0;
}
