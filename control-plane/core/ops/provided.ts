/**
 * When to ask the provider, and what to make of its answer. A provider that fails is asked again,
 * ever more rarely, until the step's deadline.
 */
import type { ProviderAction } from "../../../contract/provider-api.ts";
import type { ProviderNote } from "../fleet.ts";
import type { Decision, OpWorld } from "./machine.ts";
import { isLate, tooLate } from "./machine.ts";

const retryFirstMs = 500;
const retryMostMs = 10_000;

/** Undefined: ask now. A text: why not yet. */
export function holdOff(note: ProviderNote | null, nowMs: number): string | undefined {
  if (note === null || note.failures === 0) return undefined;
  const pauseMs = Math.min(retryFirstMs * 2 ** (note.failures - 1), retryMostMs);
  return nowMs - note.askedAtMs < pauseMs
    ? `the provider failed ${note.failures} times (${note.error}); asking again soon`
    : undefined;
}

/**
 * Asks until the provider has carried the action out. `settled` says when its answer is the wanted one;
 * an answer that is on the way is looked at again.
 */
export function decideProviding(
  world: OpWorld,
  ask: {
    readonly cell: string;
    readonly action: ProviderAction;
    readonly settled: (state: string) => boolean;
    readonly nextSteps: readonly string[];
  },
): Decision<"provided" | "late"> {
  const { op, fleet } = world;
  const note = op.provider?.action === ask.action ? op.provider : null;
  if (note?.answer !== undefined && note.answer !== null && ask.settled(note.answer.state)) {
    const headline = `the provider reports ${ask.cell} as ${note.answer.state}`;
    return { kind: "go", event: "provided", headline, effects: [] };
  }
  if (isLate(world)) {
    const evidence = note === null ? "it was never reached" : (note.answer?.text ?? note.error);
    const message = `The provider did not ${ask.action} ${ask.cell} in time: ${evidence}`;
    return tooLate(message, ask.nextSteps, "PROVIDER_FAILED");
  }
  const pause = holdOff(note, fleet.nowMs);
  if (pause !== undefined) return { kind: "wait", headline: pause };
  const onTheWay = note?.answer?.state === "creating";
  const headline = onTheWay
    ? `the provider is at work: ${note.answer?.text ?? ""}`
    : `asking the provider to ${ask.action} ${ask.cell}`;
  return { kind: "call", action: onTheWay ? "look" : ask.action, cell: ask.cell, headline };
}
