/**
 * Lets keys go on from the only copy that there is: in the database of a cell that was failed over and has
 * returned. A person vouches that it is the database that died, and none of an older backup: nobody else can
 * know what it lacks.
 */
import { CellError } from "../../contract/errors.ts";
import { canWipe } from "../core/failover/salvage.ts";
import { onePlan } from "../core/ops/machine.ts";
import { countStranded, goOnFromCopy } from "../store/failover/stranded.ts";
import { insertOp } from "../store/ops.ts";
import { lockNormalFleet } from "../store/routing-change.ts";
import { dryRunAnswer, freshOpId } from "./accept.ts";
import { requireCell } from "./cell-lookup.ts";
import type { ApiContext } from "./context.ts";
import type { Answer } from "./endpoint.ts";
import type { Work } from "./mutation.ts";
import { requireFailoverOf, requireNoOther, requireRunning } from "./salvage-decide.ts";

/** Throws CELL_UNKNOWN, STATE_CONFLICT. */
export async function adoptStranded(context: ApiContext, work: Work, id: string): Promise<Answer> {
  const { tx } = work;
  await lockNormalFleet(tx);
  const cell = await requireCell(tx, id);
  const { op: failover } = await requireFailoverOf(tx, id, undefined);
  if (cell.state !== "quarantined" || !cell.revoking || !canWipe(failover.step)) {
    throw new CellError(
      "STATE_CONFLICT",
      `${id} is ${cell.state}, and ${failover.id} is at ${failover.step}: which keys nobody else has is known when it is over.`,
      { nextSteps: [`cellctl failover status ${failover.id}`] },
    );
  }
  requireRunning(cell);
  await requireNoOther(tx, id);
  const keys = await countStranded(tx, id);
  if (keys === 0) {
    throw new CellError("STATE_CONFLICT", `No key waits for the copy that ${id} has.`, {
      nextSteps: [`cellctl cell salvage ${id}`, `cellctl move ls --cell ${id}`],
    });
  }
  const text = `${keys} keys go on from the copy that ${id} has, and move into whole cells`;
  const plan = onePlan("cell.salvage-apply", [{ action: "adopt", object: id, text }]);
  if (work.dryRun) return dryRunAnswer(plan);
  await work.record({ keys, failover: failover.id }, { decision: "adopt" });
  const op = freshOpId(context, work);
  await goOnFromCopy(tx, id, op);
  const recorded = await insertOp(tx, {
    ...{ id: op, kind: "cell.salvage-apply", object: id, plan, step: "done", state: "done" },
    ...{ headline: text, input: { failover: failover.id, decision: "adopt", keys } },
    ...{ actor: work.actor.name, reason: work.reason, revision: null, nowMs: work.nowMs },
    deadlineMs: undefined,
  });
  const next = [`cellctl move ls --cell ${id}`, `cellctl cell salvage ${id}`];
  return { status: 202, body: { op: recorded, plan, next_steps: next } };
}
