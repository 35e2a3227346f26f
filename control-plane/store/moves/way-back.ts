/**
 * The way back that nobody had to ask for: rows of the two cells were found to differ after the switch,
 * and what the source has is right. A move of its own, as `move reverse` makes one.
 */
import { moveOptionsSchema, movePlanSchema } from "../../../contract/move-api.ts";
import { planSteps } from "../../core/move/move-plan.ts";
import { roomOf } from "../../core/move/move-target.ts";
import type { MoveView } from "../../core/move/move-view.ts";
import { recordAudit } from "../audit.ts";
import type { Tx } from "../database.ts";
import { lockFleet } from "../routing-change.ts";
import { closeKeys, insertMove } from "./ask.ts";
import { loadsUnder } from "./candidates.ts";
import { takeRoom } from "./room.ts";

const actor = { name: "mover", role: "system" } as const;

export async function startWayBack(
  tx: Tx,
  view: MoveView,
  fresh: { readonly id: string; readonly nowMs: number; readonly reason: string },
): Promise<void> {
  const { id, nowMs, reason } = fresh;
  await lockFleet(tx);
  const { source: target, target: source, keyspace } = view;
  const keys = view.keys.map(({ key }) => key);
  const options = moveOptionsSchema.parse({ ...view.options, switch: "auto" });
  const plan = movePlanSchema.parse({
    ...{ keyspace, keys, source, target, stores: view.plan.stores, tables: view.plan.tables },
    checks: [],
    estimate: { ...view.plan.estimate, copyMs: 0 },
    steps: planSteps({ source, target, options, isReversal: true }),
  });
  await recordAudit(
    tx,
    {
      ...{ actor, action: "move.reverse", object: view.id, reason, outcome: "accepted" },
      before: { move: view.id, step: view.step },
      after: { id, source, target, keys },
    },
    nowMs,
  );
  const room = roomOf((await loadsUnder(tx, keys)).map((load) => ({ ...load, name: load.key })));
  await takeRoom(tx, target, room);
  await closeKeys(tx, view.id);
  await insertMove(tx, {
    ...{ plan, options, reverses: view.id },
    keys: view.keys.map(({ key, epoch }) => ({ key, epoch: epoch + 1 })),
    op: {
      ...{ id, object: view.object, input: { source, target, room } },
      plan: {
        kind: "tenant.move",
        steps: plan.steps.map(({ step, text }) => ({ action: step, object: view.object, text })),
        skipped: [],
      },
      headline: `waits for its turn: ${view.object} back from ${source} to ${target}`,
      ...{ actor: actor.name, reason, nowMs },
    },
  });
}
