/**
 * What is done about a cell that is confirmed gone: nothing, a word to people, or a failover. The gates have
 * been looked at; the policy only decides who decides.
 */
import type { FailoverGate, FailoverPolicy, Witness } from "../../../contract/failover-api.ts";
import { type FailoverMode, type Past, powerOffGate } from "./gates.ts";

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

/** What somebody has asked for already: the next command says it again. */
export type Given = Past & { readonly mode: FailoverMode; readonly provedDead: boolean };
const nothingGiven: Given = {
  ...{ mode: "unplanned", provedDead: false, override: [], allowDataLoss: false },
};

export const planCommand = (cell: string, { mode, provedDead }: Given): string =>
  [
    `cellctl failover plan ${cell}`,
    ...(mode === "planned" ? ["--mode planned"] : []),
    ...(provedDead ? ["--proved-dead"] : []),
  ].join(" ");

/** What a person types, with the gates to go past; where one cannot be passed, the plan says why. */
export function startCommand(
  cell: string,
  blocked: readonly FailoverGate[],
  given: Given = nothingGiven,
): string {
  if (blocked.some(({ name, overridable }) => !overridable && name !== powerOffGate))
    return planCommand(cell, given);
  const flags = [
    ...(given.provedDead ? ["--proved-dead"] : []),
    ...given.override.map((name) => `--override ${name}`),
    ...(given.allowDataLoss ? ["--allow-data-loss"] : []),
    ...blocked.flatMap(({ name }) => {
      if (forAutomationOnly.has(name)) return [];
      if (name === powerOffGate) return ["--proved-dead"];
      return name === "lag" ? ["--allow-data-loss"] : [`--override ${name}`];
    }),
  ];
  return [
    `cellctl failover start ${cell}`,
    ...(given.mode === "planned" ? ["--mode planned"] : []),
    ...new Set(flags),
    ...(flags.length === 0 ? [] : ['--reason "…"']),
  ].join(" ");
}

/** A cell that somebody sees alive is emptied, and nothing is lost. */
export const startCommands = (
  cell: string,
  blocked: readonly FailoverGate[],
  { witnesses, given }: { readonly witnesses: readonly Witness[]; readonly given: Given },
): readonly string[] => [
  ...(given.mode === "unplanned" &&
  blocked.some(({ name }) => name === "witnesses") &&
  witnesses.some(({ says }) => says === "alive")
    ? [`cellctl failover start ${cell} --mode planned   (a cell that lives)`]
    : []),
  startCommand(cell, blocked, given),
];
