/**
 * The anatomy of an error (design of the CLI, §1.3): the code, what happened with values and limits,
 * what did or did not change, one or two exact next commands. On standard error, always.
 */
import type { Failure } from "../failures.ts";
import type { Paint } from "./paint.ts";
import { printable, printableJson } from "./printable.ts";

export function failureText(failure: Failure, paint: Paint): string {
  const [first = "", ...more] = failure.message.split("\n").map(printable);
  // Whoever pressed Ctrl-C made no mistake.
  const isChosen = failure.code === "DETACHED";
  const lines = [
    isChosen ? `^C ${first}` : `${paint("bad", `Error [${failure.code}]:`)} ${first}`,
    ...more.map((line) => `  ${line}`),
    ...(failure.changed === false ? ["  Nothing was changed."] : []),
    ...failure.nextSteps.map(
      (step, index) => `  ${index === 0 ? "Next:" : "     "} ${printable(step)}`,
    ),
    ...(isChosen ? [] : [`  More: cellctl explain ${failure.code}`]),
  ];
  return lines.map((line) => `${line}\n`).join("");
}

/** The same facts for a program: `-o json` prints this on standard error. */
export function failureJson(failure: Failure): string {
  const { code, message, changed, details, nextSteps } = failure;
  const body = {
    error: {
      code,
      message,
      ...(Object.keys(details).length > 0 ? { details } : {}),
      ...(changed === false ? { changed } : {}),
      next_steps: nextSteps,
    },
  };
  return `${printableJson(JSON.stringify(body, null, 2))}\n`;
}
