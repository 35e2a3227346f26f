import { describe, expect, test } from "vitest";
import { moveActions, moveSteps } from "../../../contract/move-api.ts";
import { type MoveSituation, nextForMove, possibleActions, refuseAction } from "./move-actions.ts";
import { isMoveEnd, moveTransitions } from "./move-state.ts";

const at = (more: Partial<MoveSituation>): MoveSituation => ({
  ...{ id: "op_0m4abcdefghij", step: "ready", paused: false, asked: null },
  ...{ source: "cell-01", target: "cell-02", reversal: undefined },
  keys: ["default/tenant/acme"],
  ...more,
});

describe("what may be asked of a move", () => {
  test("of each step, in one table", () => {
    const table = Object.fromEntries(
      moveSteps.map((step) => [step, possibleActions(at({ step })).join(" ")]),
    );
    const early = "switch cancel pause";
    expect(table).toEqual({
      planned: early,
      preflight: early,
      preparing: early,
      copying: early,
      "catching-up": early,
      verifying: early,
      ready: "verify switch cancel pause",
      holding: "cancel",
      closing: "cancel",
      fencing: "cancel",
      draining: "cancel",
      committing: "cancel",
      activating: "",
      routing: "",
      reversing: "",
      soaking: "reverse complete",
      diverged: "reverse complete",
      cleaning: "",
      releasing: "cancel",
      aborting: "",
      done: "",
      cancelled: "",
      failed: "",
    });
  });

  const all = moveSteps.flatMap((step) => moveActions.map((action) => ({ step, action })));

  test.each(all)(
    "$action of a move that is $step is possible, or refused with what is",
    (asked) => {
      const situation = at({ step: asked.step });
      const refusal = refuseAction(situation, asked.action);
      expect(refusal === undefined).toBe(possibleActions(situation).includes(asked.action));
      if (refusal === undefined) return;
      expect(refusal.text).toMatch(/^op_0m4abcdefghij .*\.$/);
      expect(refusal.nextSteps.length).toBeGreaterThan(0);
      const verbs = refusal.nextSteps.map((next) => / move (\S+) op_/.exec(next)?.[1]);
      const told = moveActions.filter((action) => verbs.includes(action));
      expect(told.flatMap((action) => refuseAction(situation, action) ?? [])).toEqual([]);
    },
  );

  test("a wish is taken only where the table has a step for it", () => {
    const events = { verify: "asked-verify", switch: "switched", cancel: "abandoned" } as const;
    for (const step of moveSteps) {
      for (const action of possibleActions(at({ step }))) {
        if (action === "verify") expect(moveTransitions[step][events.verify]).toBeDefined();
        if (isMoveEnd(step)) expect.unreachable(`${action} of a move that is ${step}`);
      }
    }
  });

  test("a cancellation that was asked for is not overtaken, but can be let on", () => {
    expect(possibleActions(at({ asked: "cancel", paused: true }))).toEqual(["cancel", "resume"]);
    expect(refuseAction(at({ asked: "cancel" }), "switch")?.text).toContain("being cancelled");
  });

  test("a move that is being taken back is left alone", () => {
    const soaking = at({ step: "soaking", reversal: "op_back000000" });
    expect(possibleActions(soaking)).toEqual([]);
    expect(refuseAction(soaking, "complete")).toMatchObject({
      nextSteps: ["cellctl move watch op_back000000"],
    });
  });

  test("a paused one is resumed; one that is over has nothing next", () => {
    expect(nextForMove(at({ paused: true }))).toEqual(["cellctl move resume op_0m4abcdefghij"]);
    expect(refuseAction(at({ paused: true }), "pause")?.text).toContain("paused already");
    expect(refuseAction(at({}), "resume")?.text).toContain("not paused");
    for (const step of moveSteps.filter(isMoveEnd)) expect(nextForMove(at({ step }))).toEqual([]);
    expect(nextForMove(at({ step: "ready" }))[0]).toBe("cellctl move switch op_0m4abcdefghij");
    expect(nextForMove(at({ step: "ready", asked: "switch" }))).toEqual([
      "cellctl move watch op_0m4abcdefghij",
    ]);
  });
});

test("of a move that is over the next command works as it is printed", () => {
  const next = (more: Partial<MoveSituation>) =>
    refuseAction(at(more), "switch")?.nextSteps.slice(1);
  expect(next({ step: "failed" })).toEqual([
    "cellctl move plan --key default/tenant/acme --to cell-02",
  ]);
  expect(next({ step: "done" })).toEqual([
    "cellctl move plan --key default/tenant/acme --to cell-01",
  ]);
  const keys = Array.from({ length: 6 }, (_, index) => `users/slot/${index}`);
  expect(next({ step: "failed", keys })).toEqual([]);
});
