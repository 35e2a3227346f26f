/**
 * What may be asked of a failover, step by step, and what comes next for people. Pure: the API refuses by
 * it, and tells the next commands by it.
 */
import type { FailoverAction, FailoverStep } from "../../../contract/failover-api.ts";
import { canAbort, isFailoverEnd, nextFailoverStep } from "./failover-state.ts";

export type FailoverSituation = {
  readonly id: string;
  readonly cell: string;
  readonly step: FailoverStep;
};

export type ActionRefusal = { readonly text: string; readonly nextSteps: readonly string[] };

const possible: Readonly<Record<FailoverAction, (step: FailoverStep) => boolean>> = {
  abort: canAbort,
  resume: (step) => nextFailoverStep(step, "resumed") !== undefined,
};

export function refuseFailoverAction(
  at: FailoverSituation,
  action: FailoverAction,
): ActionRefusal | undefined {
  if (possible[action](at.step)) return undefined;
  return { text: whyNot(at, action), nextSteps: nextForFailover(at, true) };
}

function whyNot({ id, step, cell }: FailoverSituation, action: FailoverAction): string {
  if (isFailoverEnd(step)) return `${id} is over (${step}).`;
  if (action === "resume") return `${id} is ${step}: only one that was halted goes on by a word.`;
  return step === "restoring"
    ? `${id} is being called off already.`
    : `${id} is ${step}: the streams from ${cell} are cut or keys are given away, so there is only the way forward.`;
}

/** `always`: also where there is nothing to do but to watch. */
export function nextForFailover(
  { id, cell, step }: FailoverSituation,
  always = false,
): readonly string[] {
  if (step === "halted") return [`cellctl failover status ${id}`, `cellctl failover resume ${id}`];
  if (step === "done") return [`cellctl failover report ${id}`, `cellctl cell get ${cell}`];
  if (isFailoverEnd(step)) return always ? [`cellctl failover status ${id}`] : [];
  const watch = `cellctl failover watch ${id}`;
  return canAbort(step) ? [watch, `cellctl failover abort ${id}`] : [watch];
}
