/**
 * The command line as a tree: nouns, and the file that knows each. Only the noun that is spoken is
 * loaded; the others are known by name and one line, which is all that `cellctl --help` needs.
 */
import { Command, Option } from "commander";
import { release } from "../contract/release.ts";
import type { AddHelp, Bind, Register } from "./grammar.ts";

type Noun = {
  readonly name: string;
  readonly summary: string;
  readonly group: string;
  readonly load: () => Promise<{ readonly register: Register; readonly addHelp?: AddHelp }>;
};

const look = "Look:";
const fleet = "Change the fleet:";
const people = "People and access:";
const processes = "Processes:";
const tool = "This tool:";

export const nouns: readonly Noun[] = [
  noun("status", look, "the fleet in a few lines", () => import("./commands/status.ts")),
  noun(
    "check",
    look,
    "is everything as it should be, and how to mend what is not",
    () => import("./commands/check.ts"),
  ),
  noun(
    "assess",
    look,
    "does a running database need cells yet, and what to do first",
    () => import("./commands/assess.ts"),
  ),
  noun("top", look, "live: cells, busiest tenants, routers", () => import("./commands/top.ts")),
  noun("events", look, "what happened", () => import("./commands/events.ts")),
  noun("query", look, "ask all cells' databases one question", () => import("./commands/query.ts")),
  noun(
    "explain",
    look,
    "an error code, a kind of object, a tenant's placement, a refused request",
    () => import("./commands/explain.ts"),
  ),
  noun(
    "cell",
    fleet,
    "cells: each a full copy of the application with its own database",
    () => import("./commands/cell.ts"),
  ),
  noun(
    "tenant",
    fleet,
    "tenants, and in which cell each lives",
    () => import("./commands/tenant.ts"),
  ),
  noun(
    "claim",
    fleet,
    "unique names of tenants: domains, API keys, mail addresses",
    () => import("./commands/claim.ts"),
  ),
  noun(
    "keyspace",
    fleet,
    "sets of tenants with one mapping strategy",
    () => import("./commands/keyspace.ts"),
  ),
  noun(
    "schema",
    fleet,
    "your own database: check its schema, install the guard, take it off",
    () => import("./commands/schema.ts"),
  ),
  noun(
    "route",
    fleet,
    "where a request goes, overrides, endpoints that name no tenant",
    () => import("./commands/route.ts"),
  ),
  noun(
    "routing",
    fleet,
    "where in a request the tenant and the service are named",
    () => import("./commands/routing.ts"),
  ),
  noun("flag", fleet, "feature flags by tenant, cell and ring", () => import("./commands/flag.ts")),
  noun(
    "ring",
    fleet,
    "groups of cells that get changes one after the other",
    () => import("./commands/ring.ts"),
  ),
  noun(
    "move",
    fleet,
    "tenants from one cell to another, while they are served",
    () => import("./commands/move.ts"),
  ),
  noun(
    "standby",
    fleet,
    "which cell keeps which tenants of which other cell, and how far behind",
    () => import("./commands/standby.ts"),
  ),
  noun(
    "failover",
    fleet,
    "take the tenants of a dead cell over",
    () => import("./commands/failover.ts"),
  ),
  noun(
    "rebalance",
    fleet,
    "even the load of cells out: a plan first, then live moves",
    () => import("./commands/rebalance.ts"),
  ),
  noun(
    "lever",
    fleet,
    "one switch that stops all but repairs; gating switches, limits",
    () => import("./commands/lever.ts"),
  ),
  noun(
    "slo",
    fleet,
    "what share of requests must end well, and how much of the error budget is left",
    () => import("./commands/slo.ts"),
  ),
  noun(
    "recovery",
    fleet,
    "after a restore of the control plane: what it waits for",
    () => import("./commands/recovery.ts"),
  ),
  noun("op", fleet, "operations: list, show, watch", () => import("./commands/op.ts")),
  noun(
    "audit",
    people,
    "who did what and why, in a chain that can be verified",
    () => import("./commands/audit.ts"),
  ),
  noun("token", people, "tokens for people and machines", () => import("./commands/token.ts")),
  noun(
    "init",
    processes,
    "describe your application in a cellfleet.yaml, by asking",
    () => import("./commands/init.ts"),
  ),
  noun("dev", processes, "a whole fleet on this machine", () => import("./commands/dev.ts")),
  noun(
    "control-plane",
    processes,
    "start a control plane",
    () => import("./commands/control-plane.ts"),
  ),
  noun(
    "router",
    processes,
    "start a router; list the fleet's routers",
    () => import("./commands/router.ts"),
  ),
  noun("agent", processes, "start the agent of a cell", () => import("./commands/agent.ts")),
  noun(
    "context",
    tool,
    "fleets that this tool knows by name",
    () => import("./commands/context.ts"),
  ),
  noun(
    "completion",
    tool,
    "a completion script for bash, zsh or fish",
    () => import("./commands/completion.ts"),
  ),
  noun(
    "version",
    tool,
    "the version of this tool, and of the fleet's release",
    () => import("./commands/version.ts"),
  ),
];

function noun(name: string, group: string, summary: string, load: Noun["load"]): Noun {
  return { name, group, summary, load };
}

export type ProgramOptions = {
  readonly color: boolean;
  readonly columns: number;
  readonly writeHelp: (text: string) => void;
  readonly writeHelpAsError: (text: string) => void;
  readonly bind: Bind;
};

/** The tree with the spoken noun grown out. */
export async function buildProgram(
  argv: readonly string[],
  options: ProgramOptions,
): Promise<Command> {
  const program = new Command("cellctl")
    .description("Route each tenant to its cell, and run the fleet of cells.")
    .usage("[options] <noun> <verb> …")
    .showSuggestionAfterError(true)
    .helpCommand(false)
    .version(release, "--version", "print the version of this tool")
    .addHelpText("after", helpEnd);
  for (const option of globalOptions()) program.addOption(option);
  prepare(program, options);

  const spoken = spokenNoun(argv);
  for (const { name, group, summary, load } of nouns) {
    const command = program.command(name).description(summary).helpGroup(group);
    if (name === spoken) {
      const { register, addHelp } = await load();
      register(command, options.bind);
      if (argv.includes("--help") || argv.includes("-h")) await addHelp?.(command);
      for (const verb of command.commands) prepare(verb, options);
      for (const deep of command.commands.flatMap(({ commands }) => commands))
        prepare(deep, options);
    }
    prepare(command, options);
  }
  return program;
}

/** Nothing may end the process or write past the streams we were given. */
function prepare(command: Command, options: ProgramOptions): void {
  command
    .exitOverride()
    .helpCommand(false)
    .configureOutput({
      writeOut: options.writeHelp,
      // A noun without its verb: what can follow is told, on standard error.
      writeErr: options.writeHelpAsError,
      // What commander would say of an error comes again as an exception, which is shown.
      outputError: () => undefined,
      getOutHelpWidth: () => options.columns,
      getErrHelpWidth: () => options.columns,
      getOutHasColors: () => options.color,
    });
  if (command.parent !== null) command.addHelpText("after", "\nGlobal options: cellctl --help");
}

export function globalOptions(): Option[] {
  return [
    new Option("-o, --output <format>", "table, wide, json, yaml or name"),
    new Option("--no-headers", "tables without their first line"),
    new Option("--color <when>", "auto, always or never"),
    new Option("--no-input", "never ask; fail instead"),
    new Option("-y, --yes", "answer yes to every question"),
    new Option("-q, --quiet", "no progress, no hints"),
    new Option("-v, --verbose", "say more when something fails"),
    new Option("--timeout <time>", "how long to wait for an operation (default: 10m)"),
    new Option("--context <name>", "the fleet of this context"),
    new Option("--data <folder>", "the local fleet in this folder (default: .cellfleet)"),
  ];
}

const helpEnd = `
Exit codes: 0 ok, 1 failed, 3 verification failed, 4 blocked by a safety rule, 5 not found,
  6 conflict, 64 usage, 69 control plane unreachable, 77 not allowed, 78 configuration,
  124 --timeout passed (the operation goes on), 130 interrupted (the operation goes on).

Start here:
  cellctl dev                    a whole fleet on this machine
  cellctl status                 how it is
  cellctl explain placement acme why a tenant is where it is`;

const withValue = ["-o", "--output", "--color", "--timeout", "--context", "--data"];

/** The first word that is neither an option nor an option's value. */
export function spokenNoun(argv: readonly string[]): string | undefined {
  for (let index = 0; index < argv.length; index += 1) {
    const word = argv[index] ?? "";
    if (withValue.includes(word)) index += 1;
    else if (!word.startsWith("-")) return word;
  }
  return undefined;
}

/** The words of the command that was meant, as far as they are known: `cellctl tenant create`. */
export function spokenPath(program: Command, argv: readonly string[]): string[] {
  const path = [program.name()];
  let command = program;
  for (let index = 0; index < argv.length; index += 1) {
    const word = argv[index] ?? "";
    if (withValue.includes(word)) index += 1;
    if (word.startsWith("-")) continue;
    const next = command.commands.find(
      (known) => known.name() === word || known.aliases().includes(word),
    );
    if (next === undefined) break;
    command = next;
    path.push(command.name());
  }
  return path;
}

/** The format a failure must be written in, also when the command line could not be parsed. */
export function formatAsked(argv: readonly string[]): string | undefined {
  const at = argv.findIndex((word) => /^(-o|--output)($|=)|^-o./.test(word));
  const word = argv[at];
  if (word === undefined) return undefined;
  if (word === "-o" || word === "--output") return argv[at + 1];
  return word.replace(/^(-o=?|--output=)/, "");
}
