/** docs/failover.md draws the table of steps, and tells each of them, each gate and each word of the command line. */
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { expect, test } from "vitest";
import {
  failoverActions,
  failoverModes,
  failoverPolicies,
  failoverSteps,
} from "../contract/failover-api.ts";
import {
  failoverTransitions,
  isFailoverEnd,
} from "../control-plane/core/failover/failover-state.ts";
import { checkGates } from "../control-plane/core/failover/gates.ts";
import { gateFacts } from "../control-plane/core/failover/sight.fixture.ts";

const page = readFileSync(join(resolve(import.meta.dirname, ".."), "docs/failover.md"), "utf8");

/** One arrow per pair of steps, with all that leads from one to the other. */
function drawing(): string {
  const lines = failoverSteps.flatMap((from) => {
    const events = Map.groupBy(Object.entries(failoverTransitions[from]), ([, to]) => to);
    return [...events].map(
      ([to, said]) => `  ${from} --> ${to}: ${said.map(([event]) => event).join(", ")}`,
    );
  });
  return ["stateDiagram-v2", `  [*] --> ${failoverSteps[0]}`, ...lines].join("\n");
}

test("the picture is the table", () => {
  expect(/```mermaid\n([\s\S]*?)\n?```/.exec(page)?.[1]).toBe(drawing());
});

test("every step has a line, every gate a row, every word of the command line its place", () => {
  for (const step of failoverSteps.filter((one) => !isFailoverEnd(one))) {
    expect(page).toContain(`\n| ${step} | `);
  }
  const gates = failoverModes.flatMap((mode) => checkGates(gateFacts({ mode })));
  for (const { name } of gates) expect(page).toContain(`\`${name}\``);
  for (const action of failoverActions) {
    expect(page).toContain(`| \`cellctl failover ${action} FAILOVER\` | `);
  }
  for (const policy of failoverPolicies) expect(page).toContain(`\n| \`${policy}\` | `);
});
