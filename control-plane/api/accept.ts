/** The end of every mutation that becomes an operation: the plan of a dry run, or the recorded op. */
import type { Plan } from "../../contract/control-api.ts";
import { newOpId } from "../../runtime/random.ts";
import { type OpKind, opMachines } from "../core/ops/kinds.ts";
import { insertOp } from "../store/ops.ts";
import type { ApiContext } from "./context.ts";
import type { Answer } from "./endpoint.ts";
import type { Work } from "./mutation.ts";

export const dryRunAnswer = (plan: Plan, nextSteps: readonly string[] = []): Answer => ({
  status: 200,
  body: { plan, next_steps: nextSteps },
});

export const freshOpId = (context: ApiContext, work: Work): string =>
  newOpId(context.random, work.nowMs);

/** Records the operation at the first step of its machine. */
export async function accept(
  work: Work,
  what: {
    readonly id: string;
    readonly kind: OpKind;
    readonly object: string;
    readonly plan: Plan;
    readonly input: Readonly<Record<string, unknown>>;
    readonly revision?: number;
    readonly headline: string;
    /** Already carried out in this transaction: there is nothing to wait for. */
    readonly done?: boolean;
    readonly nextSteps?: readonly string[];
  },
): Promise<Answer> {
  const machine = opMachines[what.kind];
  const { done = false, nextSteps = [], revision = null, ...columns } = what;
  const op = await insertOp(work.tx, {
    ...columns,
    revision,
    step: done ? "done" : machine.first,
    state: done ? "done" : "running",
    actor: work.actor.name,
    reason: work.reason,
    nowMs: work.nowMs,
    deadlineMs: done ? undefined : machine.deadlineMs(machine.first),
  });
  return {
    status: 202,
    body: {
      op,
      plan: what.plan,
      next_steps: nextSteps.length > 0 ? nextSteps : [`cellctl op watch ${op.id}`],
    },
  };
}
