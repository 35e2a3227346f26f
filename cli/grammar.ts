/**
 * How nouns and verbs are declared: the words of the command line, and what they call. A noun's file
 * is loaded only when it is spoken.
 */
import type { Command } from "commander";
import type { Session } from "./session.ts";

/** Options of one command, as commander leaves them. */
export type Options = Readonly<Record<string, unknown>>;

/** Returns the exit code; nothing means 0. */
export type Action = (
  session: Session,
  args: readonly string[],
  options: Options,
) => Promise<number | undefined>;

/** Binds an action to a command of commander. */
export type Bind = (command: Command, action: Action) => Command;

/** What a noun's file exports: adds the noun's verbs to its command. */
export type Register = (noun: Command, bind: Bind) => void;

/** What it may export besides: help that has to be looked up, asked for only when help is shown. */
export type AddHelp = (noun: Command) => Promise<void>;

export const text = (options: Options, name: string): string | undefined => {
  const value = options[name];
  return typeof value === "string" ? value : undefined;
};
export const flag = (options: Options, name: string): boolean => options[name] === true;
export const texts = (options: Options, name: string): readonly string[] => {
  const value = options[name];
  return Array.isArray(value) ? value.filter((item) => typeof item === "string") : [];
};

/** How an option is written: `maxParallel` is `--max-parallel`. */
export const spelled = (name: string): string =>
  `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;

/** For options that may be given more than once. */
export const collect = (value: string, before: readonly string[] | undefined): string[] => [
  ...(before ?? []),
  value,
];

/** Options of every command that changes something. */
export const intent = (command: Command): Command =>
  command
    .option("--reason <text>", "why; goes to the audit log")
    .option("--dry-run", "print the plan, change nothing")
    .option(
      "--idempotency-key <key>",
      "repeat a request without doing it twice (default: a fresh one)",
    );

/** Options of every command that becomes an operation. */
export const mutation = (command: Command): Command =>
  intent(command)
    .option("--wait", "wait until the operation is done (the default)")
    .option("--no-wait", "return as soon as the operation is recorded");

/** For what safety rules stand in front of. */
export const overridable = (command: Command): Command =>
  command.option(
    "--override <rule>",
    "go past this safety rule (repeatable; needs --reason, and is recorded)",
    collect,
  );

const confirmation = (command: Command): Command =>
  command.option("--confirm <name>", "confirm by name, instead of being asked");

/** As `mutation`, for what destroys: asks for the name on a terminal. */
export const destructive = (command: Command): Command => confirmation(mutation(command));

/** As `destructive`, for what is done when the answer comes: there is no operation to wait for. */
export const destructiveAtOnce = (command: Command): Command => confirmation(intent(command));
