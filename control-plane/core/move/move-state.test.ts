/** The table of steps: no dead end, no way back after the commit, and the drawing that documents show. */
import { describe, expect, test } from "vitest";
import { type MoveStep, moveSteps } from "../../../contract/move-api.ts";
import {
  canAbandon,
  isMoveEnd,
  isReversible,
  type MoveEvent,
  moveEvents,
  moveTransitions,
  nextMoveStep,
  pointOfNoReturn,
  switchSteps,
} from "./move-state.ts";

const after = (step: MoveStep): readonly MoveStep[] =>
  moveEvents.flatMap((event) => nextMoveStep(step, event) ?? []);

function reachable(from: MoveStep): ReadonlySet<MoveStep> {
  const seen = new Set<MoveStep>([from]);
  for (const step of seen) for (const next of after(step)) seen.add(next);
  return seen;
}

describe("the table of a move's steps", () => {
  test("every step is reached from the first, and every one leads to an end", () => {
    expect(reachable("planned")).toEqual(new Set(moveSteps));
    for (const step of moveSteps) {
      expect([...reachable(step)].some(isMoveEnd), step).toBe(true);
    }
  });

  test("every event leads somewhere, and every step of the switch can be taken back", () => {
    const used = new Set<MoveEvent>();
    for (const step of moveSteps) {
      for (const event of moveEvents) if (nextMoveStep(step, event) !== undefined) used.add(event);
    }
    expect(used).toEqual(new Set(moveEvents));
    for (const step of switchSteps) {
      expect(nextMoveStep(step, "backed-off"), step).toBe("releasing");
      expect(nextMoveStep(step, "taken-over"), step).toBe("releasing");
    }
  });

  test("after the point of no return no way leads back to a step before it", () => {
    for (const step of reachable(pointOfNoReturn)) {
      expect(isReversible(step), step).toBe(false);
      expect(canAbandon(step), step).toBe(false);
    }
    expect(reachable(pointOfNoReturn).has("aborting")).toBe(false);
    expect(reachable(pointOfNoReturn).has("releasing")).toBe(false);
  });

  test("what is taken back ends as cancelled or failed, never as done", () => {
    expect(reachable("aborting")).toEqual(new Set(["aborting", "cancelled", "failed"]));
  });

  test("only the commit leads over the point of no return", () => {
    const doors = moveSteps.flatMap((step) =>
      moveEvents.flatMap((event) =>
        nextMoveStep(step, event) === pointOfNoReturn ? [`${step} ${event}`] : [],
      ),
    );
    expect(doors).toEqual(["committing committed"]);
  });

  test("its drawing", () => {
    const lines = moveSteps.map((step) => {
      const ways = Object.entries(moveTransitions[step]).map(([event, to]) => `${event} → ${to}`);
      return `${step}: ${ways.length === 0 ? "(end)" : ways.join(", ")}`;
    });
    expect(lines.join("\n")).toMatchInlineSnapshot(`
      "planned: admitted → preflight, abandoned → aborting
      preflight: fit → preparing, abandoned → aborting
      preparing: prepared → copying, streaming → catching-up, abandoned → aborting
      copying: copied → catching-up, abandoned → aborting
      catching-up: caught-up → verifying, abandoned → aborting
      verifying: verified → ready, mismatched → aborting, abandoned → aborting
      ready: switched → holding, asked-verify → verifying, abandoned → aborting
      holding: held → closing, backed-off → releasing, taken-over → releasing
      closing: closed → fencing, backed-off → releasing, taken-over → releasing
      fencing: fenced → draining, backed-off → releasing, taken-over → releasing
      draining: drained → committing, backed-off → releasing, taken-over → releasing
      committing: committed → activating, backed-off → releasing, taken-over → releasing
      activating: activated → routing
      routing: routed → reversing
      reversing: reversed → soaking, mismatched → diverged
      soaking: soaked → cleaning, handed-over → done
      diverged: handed-over → done, soaked → cleaning
      cleaning: cleaned → done
      releasing: released → ready, gave-up → aborting
      aborting: undone-cancelled → cancelled, undone-failed → failed
      done: (end)
      cancelled: (end)
      failed: (end)"
    `);
  });
});
