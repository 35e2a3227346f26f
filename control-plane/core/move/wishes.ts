/** What was asked of a move, weighed before each look at its step: a switch that has begun is not paused. */
import { canAbandon, switchSteps } from "./move-state.ts";
import type { MoveView } from "./move-view.ts";

export type Bidding =
  /** The step's effect, as the table says. */
  | "go-on"
  | "wait"
  /** Taken back because somebody said so: before the switch, or in the middle of it. */
  | "abandon"
  | "back-off";

export function weighWish({
  step,
  wish,
  paused,
}: Pick<MoveView, "step" | "wish" | "paused">): Bidding {
  if (wish === "cancel") {
    if (canAbandon(step)) return "abandon";
    if (switchSteps.includes(step)) return "back-off";
  }
  return paused && canAbandon(step) ? "wait" : "go-on";
}

/** Does anything have to be done, or is it a matter of time? Nobody follows a move that rests. */
export function isDue(
  view: Pick<MoveView, "step" | "wish" | "soakUntilMs">,
  nowMs: number,
): boolean {
  if (view.step === "diverged") return view.wish === "complete";
  if (view.step !== "soaking") return true;
  return view.wish === "complete" || (view.soakUntilMs !== null && nowMs >= view.soakUntilMs);
}
