/**
 * What a failure means at a step. Before the point of no return a move is given up when waiting does not
 * help; inside the switch it is taken back at once, whatever it was; after it there is only trying again.
 */
import { type ErrorCode, errorTable } from "../../../contract/errors.ts";
import type { MoveStep } from "../../../contract/move-api.ts";
import type { Failure } from "../ops/machine.ts";
import { canAbandon, switchSteps } from "./move-state.ts";

export type FailureVerdict =
  /** The same effect again, after a while. */
  "retry" | "abandon" | "back-off";

export type Patience = {
  /** Failing for longer than this before the switch, a move is given up. */
  readonly stepMs: number;
  /** A cell that does not answer keeps a route on hold, or a move open, for this long at most. */
  readonly releaseMs: number;
  readonly undoMs: number;
};
export const patienceDefault: Patience = {
  stepMs: 120_000,
  releaseMs: 10_000,
  undoMs: 30_000,
};

/** PostgreSQL's codes of what ends when somebody else does: a lock, a deadlock, an object in use. */
const passing: readonly unknown[] = ["55P03", "40P01", "40001", "55006"];

/**
 * `code`: undefined for what has none, such as a fault of the control plane's own database; `sqlState`:
 * PostgreSQL's own, where it refused.
 */
export function judgeFailure(
  step: MoveStep,
  { code, sqlState }: { readonly code: ErrorCode | undefined; readonly sqlState?: unknown },
  failingMs: number,
  patience: Pick<Patience, "stepMs"> = patienceDefault,
): FailureVerdict {
  if (switchSteps.includes(step)) return "back-off";
  if (!canAbandon(step)) return "retry";
  const mayPass =
    code === undefined ||
    code === "CONFIG_INVALID" ||
    errorTable[code].retry === "safe" ||
    passing.includes(sqlState);
  return mayPass && failingMs < patience.stepMs ? "retry" : "abandon";
}

/** Between two tries of one effect. Where requests wait for it, hardly any. */
export function retryDelayMs(step: MoveStep, failures: number): number {
  const isHurry = step === "activating" || step === "routing" || step === "releasing";
  const [least, most] = isHurry ? [20, 500] : [200, 5000];
  return Math.min(most, least * 2 ** Math.min(failures - 1, 10));
}

/** Between two tries of the switch: who was in the way gets time to end. */
export const betweenTriesMs = (tries: number): number => Math.min(5000, 250 * 2 ** (tries - 1));

export const budgetExceeded = (at: MoveStep, tookMs: number, budgetMs: number): Failure => ({
  code: "PAUSE_BUDGET_EXCEEDED",
  message: `${at} was not over when requests had waited for ${Math.round(tookMs)} ms of ${budgetMs}. The switch was taken back; the source serves as before. A move begun with a greater --pause-budget has more time.`,
  nextSteps: ["cellctl check"],
});

export const takenOver: Failure = {
  code: "PAUSE_BUDGET_EXCEEDED",
  message:
    "Another control plane went on in the middle of the switch, and cannot know for how long requests had waited. The switch was taken back; the source serves as before.",
  nextSteps: ["cellctl status"],
};
