/** A failover that a person begins, and what is asked of one that runs. */
import type { z } from "zod";
import { CellError } from "../../contract/errors.ts";
import type {
  beginFailoverSchema,
  FailoverAction,
  FailoverPlan,
  failoverDryRunSchema,
  planFailoverSchema,
} from "../../contract/failover-api.ts";
import { must } from "../../runtime/assert.ts";
import { nextForFailover, refuseFailoverAction } from "../core/failover/failover-actions.ts";
import { blockingGates } from "../core/failover/gates.ts";
import { type Given, startCommand, startCommands } from "../core/failover/policy.ts";
import {
  type FailoverRow,
  findFailover,
  lockFailover,
  toFailover,
} from "../store/failover/read.ts";
import { planFailover, requireFit, startFailover } from "../store/failover/start.ts";
import { askFailover } from "../store/failover/start-wish.ts";
import { wakeWatchers } from "../store/ops.ts";
import { lockNormalFleet } from "../store/routing-change.ts";
import { freshOpId } from "./accept.ts";
import { requireCell } from "./cell-lookup.ts";
import type { ApiContext } from "./context.ts";
import type { Answer } from "./endpoint.ts";
import type { Work } from "./mutation.ts";

type Asked = z.output<typeof beginFailoverSchema>;

export async function planOf(
  context: ApiContext,
  asked: z.output<typeof planFailoverSchema>,
): Promise<z.input<typeof failoverDryRunSchema>> {
  await requireCell(context.database.read, asked.cell);
  const nothingPast = { override: [], allowDataLoss: false, automatic: false };
  const plan = await context.database.snapshot((tx) =>
    planFailover(tx, { ...asked, ...nothingPast }),
  );
  return { plan, next_steps: [...afterPlan(plan, { ...asked, ...nothingPast })] };
}

/** Throws what `startFailover` throws. */
export async function beginFailover(
  context: ApiContext,
  work: Work,
  asked: Asked,
): Promise<Answer> {
  const { tx, actor, reason, nowMs } = work;
  await lockNormalFleet(tx);
  await requireCell(tx, asked.cell);
  const what = { ...asked, reason, automatic: false };
  if (work.dryRun) {
    // The next step is the same command, for real.
    const { plan } = await requireFit(tx, { ...what, reason: reason === "" ? "dry run" : reason });
    return { status: 200, body: { plan, next_steps: [startCommand(asked.cell, [], asked)] } };
  }
  const id = freshOpId(context, work);
  const row = await startFailover(tx, { ...what, id, actor, nowMs, record: work.record });
  return { status: 202, body: acted(row) };
}

export const failoverUnknown = (id: string): CellError =>
  new CellError("FAILOVER_UNKNOWN", `There is no failover ${id}.`, {
    nextSteps: ["cellctl failover ls"],
  });

/** Throws FAILOVER_UNKNOWN, STATE_CONFLICT, RECOVERING. */
export async function actOnFailover(
  work: Work,
  { id, action }: { readonly id: string; readonly action: FailoverAction },
): Promise<Answer> {
  const { tx } = work;
  await lockNormalFleet(tx);
  const row = await lockFailover(tx, id);
  if (row === undefined) throw failoverUnknown(id);
  const { step, cell } = toFailover(row);
  const refusal = refuseFailoverAction({ id, cell, step }, action);
  if (refusal !== undefined) {
    throw new CellError("STATE_CONFLICT", refusal.text, {
      nextSteps: refusal.nextSteps,
      details: { op: id, step },
    });
  }
  if (work.dryRun) return { status: 200, body: acted(row) };
  await work.record({ step, wish: row.failover.wish }, { wish: action });
  await askFailover(tx, id, action);
  await wakeWatchers(tx, [id]);
  return { status: 202, body: acted(must(await findFailover(tx, id), "failover that was asked")) };
}

function acted(row: FailoverRow): { readonly failover: unknown; readonly next_steps: unknown } {
  const failover = toFailover(row);
  return { failover, next_steps: nextForFailover(failover) };
}

/** What a person types after a look at a plan. */
function afterPlan({ cell, gates, witnesses }: FailoverPlan, given: Given): readonly string[] {
  const blocked = blockingGates(gates, { override: [], allowDataLoss: false });
  return startCommands(cell, blocked, { witnesses, given });
}
