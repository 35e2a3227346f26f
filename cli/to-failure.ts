/** From whatever was thrown to a failure that can be shown: the CLI's one rescue point. */
import { CommanderError } from "commander";
import { CellError, errorTable } from "../contract/errors.ts";
import { CliError, cliFailure, type Failure, usage } from "./failures.ts";

/** Commander has printed what there is to say: help that was asked for, or help in place of a verb. */
export type Shown = "shown" | "verb missing";

/** `help`: the command that shows what may be written instead, for errors of the command line. */
export function toFailure(error: unknown, help: string): Failure | Shown {
  if (error instanceof CliError) return withHelp(cliFailure(error), help);
  if (error instanceof CellError) return cellFailure(error);
  if (error instanceof CommanderError) return commanderFailure(error, help);
  return {
    code: "INTERNAL",
    exit: errorTable.INTERNAL.exit,
    message: error instanceof Error ? `${error.name}: ${error.message}` : String(error),
    changed: undefined,
    details: {},
    nextSteps: ["repeat with -v, and report what it prints: this is a fault in cellctl"],
  };
}

function cellFailure(error: CellError): Failure {
  const { exit, retry } = errorTable[error.code];
  // A key among the details means: it was sent, and nobody said what became of it.
  const unknown = retry === "idempotent-only" || "idempotencyKey" in error.details;
  const ran = error.code === "OP_FAILED" || "op" in error.details;
  return {
    code: error.code,
    exit,
    message: error.message,
    changed: unknown || ran ? undefined : false,
    details: error.details,
    nextSteps: error.nextSteps,
  };
}

const withHelp = (failure: Failure, help: string): Failure =>
  failure.code === "USAGE" && failure.nextSteps.length === 0
    ? { ...failure, nextSteps: [help] }
    : failure;

function commanderFailure(error: CommanderError, help: string): Failure | Shown {
  if (error.code === "commander.helpDisplayed" || error.code === "commander.version")
    return "shown";
  if (error.code === "commander.help") return "verb missing";
  // `error: unknown command 'cel'\n(Did you mean cell?)`
  const [first = "", ...rest] = error.message.replace(/^error: /, "").split("\n");
  const suggestion = /\(Did you mean (?:one of )?(.+)\?\)/.exec(rest.join(" "))?.[1];
  const message = suggestion === undefined ? first : `${first}; did you mean ${suggestion}?`;
  return cliFailure(usage(message, help));
}
