/**
 * A move's steps and what may follow what: the one table that executor, API, CLI, tests and documents
 * read. Order matters; the meaning of each step stands in contract/move-api.ts.
 *
 * What must always be true: up to and with `committing` a move can be taken back and leaves its keys
 * as they were; from `activating` on there is only the way forward. A step is entered in the same
 * transaction that records what its predecessor came to, and its effect may be repeated.
 */
import { type MoveStep, moveSteps } from "../../../contract/move-api.ts";

export const moveEvents = [
  /** There is room at source and target. */
  "admitted",
  "fit",
  "prepared",
  /** The stream exists already (a move that takes another one back): nothing is copied. */
  "streaming",
  "copied",
  "caught-up",
  "verified",
  /** Asked for, or `switch: auto`. */
  "switched",
  /** Asked to compare once more. */
  "asked-verify",
  "held",
  "closed",
  "fenced",
  "drained",
  "committed",
  "activated",
  "routed",
  "reversed",
  "mismatched",
  /** Its time is over, or somebody said `complete`. */
  "soaked",
  /** Another move took the stream over, back to the source. */
  "handed-over",
  "cleaned",
  /** The pause budget is over, or something of the switch did not work: try again. */
  "backed-off",
  /** Another executor went on in the middle of a switch: its clock knows nothing of the pause. */
  "taken-over",
  "released",
  /** Released for the last time. */
  "gave-up",
  /** It cannot work, or somebody said `cancel`. */
  "abandoned",
  "undone-cancelled",
  "undone-failed",
] as const;
export type MoveEvent = (typeof moveEvents)[number];

export const moveTransitions: Readonly<
  Record<MoveStep, Readonly<Partial<Record<MoveEvent, MoveStep>>>>
> = {
  planned: { admitted: "preflight", abandoned: "aborting" },
  preflight: { fit: "preparing", abandoned: "aborting" },
  preparing: { prepared: "copying", streaming: "catching-up", abandoned: "aborting" },
  copying: { copied: "catching-up", abandoned: "aborting" },
  "catching-up": { "caught-up": "verifying", abandoned: "aborting" },
  verifying: { verified: "ready", mismatched: "aborting", abandoned: "aborting" },
  ready: { switched: "holding", "asked-verify": "verifying", abandoned: "aborting" },
  holding: { held: "closing", "backed-off": "releasing", "taken-over": "releasing" },
  closing: { closed: "fencing", "backed-off": "releasing", "taken-over": "releasing" },
  fencing: { fenced: "draining", "backed-off": "releasing", "taken-over": "releasing" },
  draining: { drained: "committing", "backed-off": "releasing", "taken-over": "releasing" },
  committing: { committed: "activating", "backed-off": "releasing", "taken-over": "releasing" },
  activating: { activated: "routing" },
  routing: { routed: "reversing" },
  reversing: { reversed: "soaking", mismatched: "diverged" },
  soaking: { soaked: "cleaning", "handed-over": "done" },
  diverged: { "handed-over": "done", soaked: "cleaning" },
  cleaning: { cleaned: "done" },
  releasing: { released: "ready", "gave-up": "aborting" },
  aborting: { "undone-cancelled": "cancelled", "undone-failed": "failed" },
  done: {},
  cancelled: {},
  failed: {},
};

/** Entering this step commits the move. */
export const pointOfNoReturn: MoveStep = "activating";

/** From `holding` on requests of the keys wait: the pause budget counts here. */
export const switchSteps: readonly MoveStep[] = [
  "holding",
  "closing",
  "fencing",
  "draining",
  "committing",
];

/** May the move still be taken back by itself? */
export const isReversible = (step: MoveStep): boolean =>
  moveSteps.indexOf(step) < moveSteps.indexOf(pointOfNoReturn) || step === "releasing";

export const isMoveEnd = (step: MoveStep): boolean =>
  Object.keys(moveTransitions[step]).length === 0;

export const nextMoveStep = (step: MoveStep, event: MoveEvent): MoveStep | undefined =>
  moveTransitions[step][event];

/** The event by which a move stops being one, from any step before the point of no return. */
export const canAbandon = (step: MoveStep): boolean =>
  moveTransitions[step].abandoned !== undefined;
