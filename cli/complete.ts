/**
 * `cellctl __complete WORD…`: what could stand in the place of the last word, one per line. Asked at
 * every TAB, so it is quick, and silent when the fleet does not answer.
 */
import type { Command, Option } from "commander";
import type { Io } from "./io.ts";
import { buildProgram, globalOptions, nouns } from "./program.ts";

/** Told to the shell's script: complete by file names. */
const byFile = ":file";
const fleetMs = 700;

export async function complete(io: Io, words: readonly string[]): Promise<number> {
  const current = words.at(-1) ?? "";
  const found = await candidates(io, words.slice(0, -1), current);
  const fitting = found.filter((one) => one === byFile || one.startsWith(current));
  await io.stdout.write(fitting.map((one) => `${one}\n`).join(""));
  return 0;
}

async function candidates(
  io: Io,
  before: readonly string[],
  current: string,
): Promise<readonly string[]> {
  const program = await buildProgram(before, {
    color: false,
    columns: 100,
    writeHelp: () => undefined,
    writeHelpAsError: () => undefined,
    bind: (command) => command,
  });
  const { command, operands, pending } = walk(program, before);
  if (pending !== undefined) return valuesOf(io, nameOf(pending), before, current);
  if (current.startsWith("-")) {
    return [...command.options, ...globalOptions()].flatMap(({ long }) => long ?? []);
  }
  if (command === program) return operands.length === 0 ? nouns.map(({ name }) => name) : [];
  const verbs = command.commands.map((verb) => verb.name());
  const last = command.registeredArguments.at(-1);
  const argument =
    command.registeredArguments[operands.length] ?? (last?.variadic === true ? last : undefined);
  if (argument === undefined) return operands.length === 0 ? verbs : [];
  return [...verbs, ...(await valuesOf(io, argument.name(), before, current))];
}

type Place = {
  readonly command: Command;
  readonly operands: readonly string[];
  /** The option that the next word is the value of. */
  readonly pending: Option | undefined;
};

/** Follows the words that are there already, as far as they are known. */
function walk(program: Command, words: readonly string[]): Place {
  let command = program;
  let operands: string[] = [];
  let pending: Option | undefined;
  for (const word of words) {
    if (pending !== undefined) {
      pending = undefined;
    } else if (word.startsWith("-")) {
      pending = takesValue(command, word);
    } else {
      const next = command.commands.find(
        (one) => one.name() === word || one.aliases().includes(word),
      );
      if (next !== undefined && operands.length === 0) command = next;
      else operands = [...operands, word];
    }
  }
  return { command, operands, pending };
}

const takesValue = (command: Command, word: string): Option | undefined =>
  [...command.options, ...globalOptions()].find(
    (option) => option.required && (option.long === word || option.short === word),
  );

/** `--cell <cell>` is about cells: the name of the value, not of the option, says what fits. */
const nameOf = (option: Option): string => /<(.+)>/.exec(option.flags)?.[1] ?? "";

const fixed: Readonly<Record<string, readonly string[]>> = {
  format: ["table", "wide", "json", "yaml", "name"],
  when: ["auto", "always", "never"],
  shell: ["bash", "zsh", "fish"],
  role: ["viewer", "operator", "admin", "router", "agent"],
  mode: ["strict", "row"],
  "auto|manual": ["auto", "manual"],
  file: [byFile],
  folder: [byFile],
};

async function valuesOf(
  io: Io,
  kind: string,
  before: readonly string[],
  current: string,
): Promise<readonly string[]> {
  if (Object.hasOwn(fixed, kind)) return fixed[kind] ?? [];
  try {
    if (kind === "context") return await contextNames(io);
    if (kind === "word") return (await import("./explanations.ts")).explainableWords();
    const { liveIds } = await import("./live-ids.ts");
    return await liveIds(io, kind, before, { prefix: current, timeoutMs: fleetMs });
  } catch {
    return []; // No fleet, no token, no answer in time: nothing to offer, and nobody to tell.
  }
}

async function contextNames(io: Io): Promise<string[]> {
  const { readContexts } = await import("./contexts.ts");
  return Object.keys((await readContexts(io)).contexts);
}
