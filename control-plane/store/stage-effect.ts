/** What a change of stage does to the cell's row, with its conditions looked at again under the fleet's lock. */
import { eq, sql } from "drizzle-orm";
import { must } from "../../runtime/assert.ts";
import type { Effect } from "../core/ops/machine.ts";
import { type Condition, stageConditions, unmet } from "../core/stage.ts";
import { Abandoned } from "./abandoned.ts";
import { databaseNowMs, type Tx } from "./database.ts";
import { readCells, readClosed, readHoldings, readRouters } from "./fleet-store.ts";
import { changeRouting } from "./routing-change.ts";
import { cell } from "./schema.ts";

/** The conditions as they stand now. */
export async function readConditions(
  tx: Tx,
  id: string,
  requires: NonNullable<Extract<Effect, { kind: "stage" }>["requires"]>,
): Promise<readonly Condition[]> {
  const cells = await readCells(tx);
  return stageConditions(
    {
      cell: must(
        cells.find((one) => one.id === id),
        `cell ${id}`,
      ),
      cells,
      routers: await readRouters(tx),
      holdings: await readHoldings(tx),
      closed: await readClosed(tx),
      nowMs: await databaseNowMs(tx),
    },
    requires.to,
    requires.acceptRefusals,
  );
}

/** Agents and routers are woken by the new revision, whichever of them it is for. */
export async function applyStage(
  tx: Tx,
  effect: Extract<Effect, { kind: "stage" }>,
): Promise<void> {
  const { requires, goal, now } = effect;
  // What was true when the turn was decided is not any more: the next turn says what follows.
  if (requires !== undefined && unmet(await readConditions(tx, effect.cell, requires)).length > 0) {
    throw new Abandoned("raced");
  }
  await changeRouting(tx, { config: true });
  await tx
    .update(cell)
    .set({
      ...(goal === undefined ? {} : { stageGoal: goal, stageNumber: sql`stage_number + 1` }),
      ...(now === undefined ? {} : { stage: now, stageAt: sql`clock_timestamp()` }),
    })
    .where(eq(cell.id, effect.cell));
}
