/**
 * A command that is printed must work as it stands: where the fleet was named by a flag, the next command
 * names it in the same way. The one place for it: what errors and successes suggest passes through here.
 */
import type { FleetFlags } from "./fleet.ts";
import { quoted } from "./quoted.ts";

/** Steps that are no command, and those that name a fleet themselves, stay as they are. */
export const carryFleet = (steps: readonly string[], { context, data }: FleetFlags): string[] => {
  const flags = [
    ...(context === undefined ? [] : ["--context", quoted(context)]),
    ...(data === undefined ? [] : ["--data", quoted(data)]),
  ].join(" ");
  if (flags === "") return [...steps];
  return steps.map((step) => {
    if (!step.startsWith("cellctl ") || /\s--(data|context|help)\b/.test(step)) return step;
    // What is said of it behind it, `cellctl check   (why)`, stays behind it.
    const [, command = step, said = ""] = /^(.*?)(\s{2,}\(.*)?$/.exec(step) ?? [];
    return `${command} ${flags}${said}`;
  });
};
