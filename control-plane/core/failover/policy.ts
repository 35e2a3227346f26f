/**
 * What is done about a cell that is confirmed gone: nothing, a word to people, or a failover. The gates have
 * been looked at; the policy only decides who decides.
 */
import type { FailoverGate, FailoverPolicy } from "../../../contract/failover-api.ts";
import { powerOffGate } from "./gates.ts";

export type PolicyAnswer =
  | { readonly kind: "nothing" }
  /** An event with the command to type. */
  | { readonly kind: "suggest"; readonly text: string; readonly command: string }
  /** Automation stands still, and says why. */
  | { readonly kind: "held"; readonly text: string; readonly command: string }
  | { readonly kind: "start" };

export function decidePolicy(
  policy: FailoverPolicy,
  cell: string,
  why: string,
  blocked: readonly FailoverGate[],
): PolicyAnswer {
  if (policy === "off") return { kind: "nothing" };
  const command = startCommand(cell, blocked);
  if (policy === "suggest") {
    const against = blocked.length === 0 ? "" : `; against it: ${textsOf(blocked)}`;
    return { kind: "suggest", text: `${cell} is ${why}${against}`, command };
  }
  if (blocked.length === 0) return { kind: "start" };
  // Whoever stopped it knows; nobody need be woken.
  const meant = blocked.find(({ name }) => name === "intent");
  if (meant !== undefined) return { kind: "suggest", text: meant.text, command };
  // Never automation's to decide: somebody is asked, whatever else is in the way.
  if (blocked.some(({ name }) => name === powerOffGate)) {
    return { kind: "suggest", text: `${cell} is ${why}; ${textsOf(blocked)}`, command };
  }
  const text = `${cell} is not taken over by itself: ${textsOf(blocked)}`;
  return { kind: "held", text, command };
}

const textsOf = (blocked: readonly FailoverGate[]): string =>
  blocked.map(({ text }) => text).join("; ");

/** Gates that stand open to a person. */
const forAutomationOnly: ReadonlySet<string> = new Set(["rate", "intent"]);

/** What a person types, with the gates to go past; where one cannot be passed, the plan says why. */
export function startCommand(cell: string, blocked: readonly FailoverGate[]): string {
  if (blocked.some(({ name, overridable }) => !overridable && name !== powerOffGate))
    return `cellctl failover plan ${cell}`;
  const flags = blocked.flatMap(({ name }) => {
    if (forAutomationOnly.has(name)) return [];
    if (name === powerOffGate) return [" --proved-dead"];
    return name === "lag" ? [" --allow-data-loss"] : [` --override ${name}`];
  });
  const reason = flags.length === 0 ? "" : ' --reason "…"';
  return `cellctl failover start ${cell}${flags.join("")}${reason}`;
}

/** A cell that is not confirmed gone may well live: then it is emptied, and nothing is lost. */
export const startCommands = (
  cell: string,
  blocked: readonly FailoverGate[],
): readonly string[] => [
  ...(blocked.some(({ name }) => name === "witnesses")
    ? [`cellctl failover start ${cell} --mode planned   (a cell that lives)`]
    : []),
  startCommand(cell, blocked),
];
