import { expect, test } from "vitest";
import { moveOptionsSchema, moveSteps } from "../../../contract/move-api.ts";
import { planSteps } from "./move-plan.ts";
import { isMoveEnd } from "./move-state.ts";

const options = moveOptionsSchema.parse({});
const asked = { source: "cell-01", target: "cell-02", options, isReversal: false };
const names = (isReversal: boolean) => planSteps({ ...asked, isReversal }).map(({ step }) => step);

test("a plan goes the way of the table, each step in words", () => {
  const offTheWay = ["planned", "diverged", "releasing", "aborting"];
  expect(names(false)).toEqual(
    moveSteps.filter((step) => !isMoveEnd(step) && !offTheWay.includes(step)),
  );
  for (const { step, text } of planSteps(asked)) expect(text).not.toBe(step);
});

test("what takes a move back copies nothing", () => {
  expect(names(true)).toEqual(names(false).filter((step) => step !== "copying"));
});

test("the words say what was asked for", () => {
  const said = (more: Partial<typeof options>) =>
    planSteps({ ...asked, options: { ...options, ...more } })
      .map(({ text }) => text)
      .join("\n");
  expect(said({})).toContain("wait for `cellctl move switch`");
  expect(said({ switch: "auto" })).toContain("switch as soon as it is ready");
  expect(said({ copyRateMax: 5000 })).toContain("5000 bytes a second");
  expect(said({})).toContain("for 30 min cell-01 follows cell-02");
  expect(said({ soakMs: 1500 })).toContain("for 1.5 s");
  expect(said({ pauseBudgetMs: 250, switchTriesMax: 2 })).toContain("250 ms at most");
});
