/**
 * What the pages say exists: every `cellctl` command and flag, every metric, every file of ours that is named. Pages
 * rot in silence; this makes it audible.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join, relative, resolve } from "node:path";
import type { Command } from "commander";
import { beforeAll, describe, expect, test } from "vitest";
import { buildProgram, globalOptions, nouns } from "../cli/program.ts";

const root = resolve(import.meta.dirname, "..");
const outside = new Set(["node_modules", "dist", "coverage"]);
const pages = filesOf(root, ".md")
  // What is planned or past is told there: commands that are not, or no longer.
  .filter((path) => !/docs\/decisions\//.test(path))
  .map((path) => ({ name: relative(root, path), text: readFileSync(path, "utf8") }));

type Said = { readonly page: string; readonly words: readonly string[] };

/** `cellctl …` in inline code, and at the start of a line in a block of code. */
function commandsOf({ name, text }: (typeof pages)[number]): Said[] {
  const inline = [...text.matchAll(/`(?:npx )?cellctl ([^`]+)`/g)];
  const blocks = [...text.matchAll(/^(?:npx )?cellctl (.+)$/gm)];
  return [...inline, ...blocks].map(([, said = ""]) => ({
    page: name,
    words: said
      .replaceAll("\n", " ")
      .replace(/"[^"]*"/g, "TEXT")
      .split(/[ =]+/),
  }));
}

const trees = new Map<string, Command>();
beforeAll(async () => {
  for (const { name } of nouns) {
    const program = await buildProgram([name], {
      color: false,
      columns: 80,
      writeHelp: () => {},
      writeHelpAsError: () => {},
      bind: (command) => command,
    });
    const noun = program.commands.find((command) => command.name() === name);
    if (noun !== undefined) trees.set(name, noun);
  }
});

const known = new Set(globalOptions().flatMap(({ long, short }) => [long, short]));

/** What is wrong with a command that a page shows; undefined when nothing is. */
function fault({ page, words }: Said): string | undefined {
  const [noun = "", ...rest] = words;
  // `cellctl <part>` and `cellctl …` speak of many; `cellctl --help` of all.
  if (/^[<…-]/.test(noun)) return undefined;
  const said = `${page}: cellctl ${words.join(" ")}`;
  const tree = trees.get(noun);
  if (tree === undefined) return `${said}: no such noun`;
  const { command, stranger } = descend(tree, rest);
  if (stranger !== undefined) return `${said}: no verb ${stranger}`;
  const options = new Set(command.options.flatMap(({ long, short }) => [long, short]));
  const flag = rest.find(
    (word) => /^--?[a-z]/.test(word) && !options.has(word) && !known.has(word),
  );
  return flag === undefined ? undefined : `${said}: no ${flag}`;
}

/** Follows the verbs as far as they lead; a word where only a verb can stand is a stranger. */
function descend(
  tree: Command,
  words: readonly string[],
): { readonly command: Command; readonly stranger?: string } {
  let command = tree;
  for (const word of words) {
    const verb: Command | undefined = command.commands.find((one) => one.name() === word);
    if (verb === undefined) {
      const mustBeVerb = command.commands.length > 0 && command.registeredArguments.length === 0;
      return mustBeVerb && !word.startsWith("-") ? { command, stranger: word } : { command };
    }
    command = verb;
  }
  return { command };
}

describe("the pages", () => {
  test("name only commands and flags that cellctl has", () => {
    const said = pages.flatMap(commandsOf);
    expect(said.length).toBeGreaterThan(30);
    expect(said.map(fault).filter((one) => one !== undefined)).toEqual([]);
  });

  test("and a command that it has not would be seen", () => {
    const wrong = ["cell explode cell-01", "cell ls --sideways", "teleport", "dev kill --now x"];
    const seen = wrong.map((words) => fault({ page: "a page", words: words.split(" ") }));
    expect(seen).toEqual([
      "a page: cellctl cell explode cell-01: no verb explode",
      "a page: cellctl cell ls --sideways: no --sideways",
      "a page: cellctl teleport: no such noun",
      "a page: cellctl dev kill --now x: no --now",
    ]);
  });

  test("name only metrics that are made somewhere", () => {
    const sources = filesOf(root, ".ts")
      .filter((path) => !path.endsWith(".test.ts"))
      .map((path) => readFileSync(path, "utf8"))
      .join("\n");
    const named = pages.flatMap(({ text }) =>
      [...text.matchAll(/\bcellfleet_(router|agent|control)_([a-z_]+)\b/g)].map(
        ([, part = "", rest = ""]) => ({ part, rest }),
      ),
    );
    expect(named.length).toBeGreaterThan(0);
    expect(named.filter(({ rest }) => !sources.includes(rest))).toEqual([]);
  });

  test("name only files and folders that are there", () => {
    const named = pages.flatMap(({ name, text }) =>
      [...text.matchAll(/`((?:[\w-]+\/)+(?:[\w.-]+\.(?:ts|sql|md|json|js))?)`/g)]
        .map(([, path = ""]) => path)
        .filter((path) => existsSync(join(root, path.split("/")[0] ?? "")))
        .filter((path) => !existsSync(join(root, path)))
        .map((path) => `${name} names ${path}`),
    );
    expect(named).toEqual([]);
  });
});

function filesOf(folder: string, ending: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    if (entry.name.startsWith(".") || outside.has(entry.name)) return [];
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return filesOf(path, ending);
    return entry.name.endsWith(ending) ? [path] : [];
  });
}
