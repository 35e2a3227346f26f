/** docs/moves.md draws the table of steps, and tells each of them: a page that says less would be believed. */
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { expect, test } from "vitest";
import { moveActions, moveSteps } from "../contract/move-api.ts";
import { isMoveEnd, moveTransitions } from "../control-plane/core/move/move-state.ts";

const page = readFileSync(join(resolve(import.meta.dirname, ".."), "docs/moves.md"), "utf8");

/** A dash ends a name in a drawing. */
const idOf = (step: string): string => step.replaceAll("-", "_");

/** One arrow per pair of steps, with all that leads from one to the other. */
function drawing(): string {
  const lines = moveSteps.flatMap((from) => {
    const events = Map.groupBy(Object.entries(moveTransitions[from]), ([, to]) => to);
    return [...events].map(
      ([to, said]) => `  ${idOf(from)} --> ${idOf(to)}: ${said.map(([event]) => event).join(", ")}`,
    );
  });
  const named = moveSteps.filter((step) => idOf(step) !== step);
  const names = named.map((step) => `  state "${step}" as ${idOf(step)}`);
  return ["stateDiagram-v2", ...names, `  [*] --> ${moveSteps[0]}`, ...lines].join("\n");
}

test("the picture is the table", () => {
  expect(/```mermaid\n([\s\S]*?)\n?```/.exec(page)?.[1]).toBe(drawing());
});

test("every step of the way has a line, and every action a row", () => {
  const offTheWay = ["diverged", "releasing", "aborting"];
  for (const step of moveSteps.filter((one) => !isMoveEnd(one) && !offTheWay.includes(one))) {
    expect(page).toContain(`\n| ${step} | `);
  }
  for (const action of moveActions) expect(page).toContain(`| \`cellctl move ${action} MOVE\` | `);
});
