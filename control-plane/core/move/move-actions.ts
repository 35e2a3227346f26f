/**
 * What may be asked of a move, step by step, and what to do instead where it may not. Pure: the API
 * refuses by it, and tells the next commands by it.
 */
import { type MoveAction, type MoveStep, moveActions } from "../../../contract/move-api.ts";
import { canAbandon, isMoveEnd, isReversible, switchSteps } from "./move-state.ts";

export type ActionRefusal = { readonly text: string; readonly nextSteps: readonly string[] };

export type MoveSituation = {
  readonly id: string;
  readonly step: MoveStep;
  readonly paused: boolean;
  readonly asked: string | null;
  readonly source: string;
  readonly target: string;
  readonly keys: readonly string[];
  /** The open move that takes this one back. */
  readonly reversal: string | undefined;
};

const beforeSwitch = (step: MoveStep): boolean => canAbandon(step);
const afterSwitch = (step: MoveStep): boolean =>
  step === "activating" || step === "routing" || step === "reversing";
/** What has happened already is no reason to refuse: the same wish again is no news. */
const possible: Readonly<Record<MoveAction, (at: MoveSituation) => boolean>> = {
  verify: ({ step }) => step === "ready",
  switch: ({ step }) => beforeSwitch(step),
  reverse: ({ step, reversal }) =>
    (step === "soaking" || step === "diverged") && reversal === undefined,
  complete: ({ step, reversal }) =>
    (step === "soaking" || step === "diverged") && reversal === undefined,
  // In the middle of a switch it is looked at again before the commit.
  cancel: ({ step }) => isReversible(step),
  pause: ({ step, paused }) => beforeSwitch(step) && !paused,
  resume: ({ step, paused }) => !isMoveEnd(step) && paused,
};

/** What can be asked of it now. */
export const possibleActions = (at: MoveSituation): readonly MoveAction[] =>
  moveActions.filter((action) => possible[action](at) && !isCancelled(at, action));

/** Once a cancellation is asked for, nothing else is. */
const isCancelled = ({ asked }: MoveSituation, action: MoveAction): boolean =>
  asked === "cancel" && action !== "cancel" && action !== "resume";

export function refuseAction(at: MoveSituation, action: MoveAction): ActionRefusal | undefined {
  if (possible[action](at) && !isCancelled(at, action)) return undefined;
  return { text: whyNot(at, action), nextSteps: insteadOf(at) };
}

function whyNot(at: MoveSituation, action: MoveAction): string {
  const { id, step, source } = at;
  if (isMoveEnd(step)) {
    return step === "done" && action === "reverse"
      ? `${id} is done: the rows in ${source} are removed, so the way back is a new move.`
      : `${id} is over (${step}).`;
  }
  if (at.reversal !== undefined) return `${id} is being taken back by ${at.reversal}.`;
  if (isCancelled(at, action)) return `${id} is being cancelled.`;
  if (action === "pause" && at.paused) return `${id} is paused already.`;
  if (action === "resume") return `${id} is not paused (${step}).`;
  return whyNotAt(at, action);
}

function whyNotAt({ id, step, source, target }: MoveSituation, action: MoveAction): string {
  if (step === "aborting") return `${id} is being taken back; ${source} serves as before.`;
  if (step === "cleaning") return `${id} is cleaning: the way back is closed.`;
  if (beforeSwitch(step)) return `${id} is ${step}: ${beforehand[action] ?? "it is too early."}`;
  if (switchSteps.includes(step) || step === "releasing") {
    return `${id} is in the middle of its switch (${step}), which is over or taken back in a moment.`;
  }
  return `${id} is ${step}: ${target} serves its keys${afterSwitch(step) ? ", and the way back opens in a moment" : ""}.`;
}

const beforehand: Readonly<Partial<Record<MoveAction, string>>> = {
  verify: "it is compared by itself before it is ready, and again when asked then.",
  reverse: "nothing is switched yet, so there is nothing to take back; cancel ends it.",
  complete: "nothing is switched yet.",
};

function insteadOf(at: MoveSituation): readonly string[] {
  const { id, step, source, target } = at;
  if (at.reversal !== undefined) return [`cellctl move watch ${at.reversal}`];
  const now = possibleActions(at).map((action) => `cellctl move ${action} ${id}`);
  if (step === "done" || step === "cleaning") {
    return [`cellctl move show ${id}`, ...planAgain(at, source)];
  }
  if (isMoveEnd(step)) return [`cellctl move show ${id}`, ...planAgain(at, target)];
  return now.length === 0 ? [`cellctl move watch ${id}`] : now;
}

const keysShownMax = 5;

/** A command that works as it stands; of many keys it would be longer than anybody reads. */
const planAgain = ({ keys }: MoveSituation, to: string): readonly string[] =>
  keys.length > keysShownMax || !keys.every((key) => /^[\w.~:@+=,/-]+$/.test(key))
    ? []
    : [`cellctl move plan ${keys.map((key) => `--key ${key}`).join(" ")} --to ${to}`];

/** After something was asked, or where a person looks: what comes next. */
export function nextForMove(at: MoveSituation): readonly string[] {
  const { id, step } = at;
  if (isMoveEnd(step)) return [];
  if (at.asked === null && !at.paused && step === "ready") {
    return [`cellctl move switch ${id}`, `cellctl move verify ${id}`, `cellctl move cancel ${id}`];
  }
  if (at.paused) return [`cellctl move resume ${id}`];
  if (step === "soaking" && at.reversal === undefined) {
    return [`cellctl move complete ${id}`, `cellctl move reverse ${id}`];
  }
  if (step === "diverged") return [`cellctl move show ${id}`, `cellctl move reverse ${id}`];
  return [`cellctl move watch ${id}`];
}
