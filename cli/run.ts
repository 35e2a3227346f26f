/**
 * Runs one command line to its exit code. Nothing below throws past here: every failure becomes the
 * anatomy of an error on standard error, and one of the exit codes.
 */
import type { Command } from "commander";
import { cliErrorTable, usage } from "./failures.ts";
import type { Io } from "./io.ts";
import { createPaint } from "./render/paint.ts";
import type { GlobalOptions, Session } from "./session.ts";
import { didYouMean } from "./similar.ts";

const completeWord = "__complete";

export async function runCli(words: readonly string[], io: Io): Promise<number> {
  // `cellctl help tenant create` is what many tools understand.
  const argv = words[0] === "help" ? [...words.slice(1), "--help"] : words;
  const { buildProgram, formatAsked, spokenPath } = await import("./program.ts");
  if (argv[0] === completeWord) {
    const { complete } = await import("./complete.ts");
    return complete(io, argv.slice(1));
  }
  let session: Session | undefined;
  let program: Command | undefined;
  let exitCode = 0;
  // Commander writes help to standard output and its errors to the other; both must be flushed.
  const writes: Promise<void>[] = [];
  try {
    program = await buildProgram(argv, {
      color: io.stdout.isTerminal,
      columns: io.stdout.columns() ?? 100,
      writeHelp: (text) => writes.push(io.stdout.write(text)),
      writeHelpAsError: (text) => writes.push(io.stderr.write(text)),
      bind: (command, action) =>
        command.action(async function act(this: Command) {
          refuseUnknownVerb(this);
          const { createSession } = await import("./session.ts");
          session = createSession(io, this.optsWithGlobals<GlobalOptions>());
          exitCode = (await action(session, this.args, this.opts())) ?? 0;
        }),
    });
    if (argv.length === 0) program.outputHelp();
    else await program.parseAsync([...argv], { from: "user" });
  } catch (error) {
    const help = [...(program === undefined ? ["cellctl"] : spokenPath(program, argv)), "--help"];
    exitCode = await reportFailure(error, io, session, formatAsked(argv), help.join(" "));
  } finally {
    await Promise.all(writes);
    await session?.close();
  }
  return exitCode;
}

/** A noun that does something by itself, such as `router`, would take a mistyped verb for an argument. */
function refuseUnknownVerb(command: Command): void {
  const [word] = command.args;
  if (word === undefined || command.commands.length === 0) return;
  const known = command.commands.map((verb) => verb.name());
  throw usage(`unknown command "${word}" of ${command.name()}${didYouMean(word, known)}`);
}

async function reportFailure(
  error: unknown,
  io: Io,
  session: Session | undefined,
  format: string | undefined,
  help: string,
): Promise<number> {
  const [{ toFailure }, { failureText, failureJson }, { carryFleet }] = await Promise.all([
    import("./to-failure.ts"),
    import("./render/failure.ts"),
    import("./carry-fleet.ts"),
  ]);
  const found = toFailure(error, help);
  if (found === "shown") return 0;
  if (found === "verb missing") return cliErrorTable.USAGE.exit;
  const failure = {
    ...found,
    nextSteps: carryFleet([...new Set(found.nextSteps)], session?.fleetFlags ?? {}),
  };
  await session?.progress.clear();
  const paint = session?.paint ?? createPaint(io, io.stderr, "auto");
  await io.stderr.write(
    format === "json" || format === "yaml" ? failureJson(failure) : failureText(failure, paint),
  );
  // A refusal is an answer: only a fault of ours has a trace that tells anybody anything.
  if (session?.verbose === true && failure.code === "INTERNAL" && error instanceof Error) {
    const { inspect } = await import("node:util");
    const { printable } = await import("./render/printable.ts");
    const trace = inspect(error, { depth: 4 }).split("\n").map(printable).join("\n");
    await io.stderr.write(`${trace}\n`);
  }
  return failure.exit;
}
