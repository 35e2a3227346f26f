/**
 * The settings of a process, as raw texts: from the command line, else from `CELLFLEET_…` in the
 * environment (`--database-url` is `CELLFLEET_DATABASE_URL`). Each process checks its own.
 */
import type { Command } from "commander";
import type { Options } from "./grammar.ts";

export type RawFlags = Readonly<Record<string, unknown>>;

const variableOf = (long: string): string =>
  `CELLFLEET_${long
    .replace(/^--(no-)?/, "")
    .replaceAll("-", "_")
    .toUpperCase()}`;

/** Only what was said: defaults are the process's own. */
export function rawFlags(
  command: Command,
  options: Options,
  env: Readonly<Record<string, string | undefined>>,
): RawFlags {
  const flags: Record<string, unknown> = {};
  for (const option of command.options) {
    const name = option.attributeName();
    const said = command.getOptionValueSource(name) === "cli" ? options[name] : undefined;
    const fallback = option.long === undefined ? undefined : env[variableOf(option.long)];
    if (said !== undefined) flags[name] = said;
    else if (fallback !== undefined && fallback !== "") flags[name] = fromText(option, fallback);
  }
  return flags;
}

/** A switch in the environment: `1` and `true` mean that it was given. */
function fromText(
  option: { readonly required: boolean; readonly negate: boolean },
  raw: string,
): unknown {
  if (option.required) return raw;
  const given = raw === "1" || raw === "true";
  return option.negate ? !given : given;
}
