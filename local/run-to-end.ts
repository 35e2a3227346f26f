/**
 * Runs a command line of somebody's application to its end, with its output in a log file. Told too
 * late, it is ended with all that it started.
 */
import { spawn } from "node:child_process";
import { readFile } from "node:fs/promises";
import { CellError } from "../contract/errors.ts";
import type { Clock } from "../runtime/clock.ts";
import { rotate, withLog } from "./log-file.ts";

export type Command = {
  /** What it is for, in messages. */
  readonly name: string;
  readonly command: string;
  readonly cwd: string;
  /** The whole environment. */
  readonly env: Readonly<Record<string, string>>;
  readonly logFile: string;
  readonly withinMs: number;
  readonly clock: Clock;
};

export const shell = "/bin/sh";
const linesShown = 15;

/** Throws PROVIDER_FAILED with the last lines of its output unless it ends with 0. */
export async function runToEnd(options: Command): Promise<void> {
  await rotate(options.logFile);
  const { promise: ended, resolve: end } = Promise.withResolvers<string | undefined>();
  const child = withLog(options.logFile, (log) =>
    spawn(shell, ["-c", options.command], {
      cwd: options.cwd,
      env: { ...options.env },
      stdio: ["ignore", log, log],
      // A group of its own, to be ended as one.
      detached: true,
    }),
  );
  child.once("error", (error) => end(error.message));
  child.once("exit", (code, signal) => {
    if (code === 0) end(undefined);
    else end(signal === null ? `exit code ${code}` : `signal ${signal}`);
  });
  const late = options.clock.after(options.withinMs, () => {
    end(`not done within ${options.withinMs / 1000} s`);
    if (child.pid !== undefined) endGroup(child.pid);
  });
  const how = await ended;
  late.cancel();
  if (how !== undefined) throw await failure(options, how);
}

/** Its shell is our child and was not waited for yet, so that the number is still its own. */
function endGroup(pid: number): void {
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // It ended in the same moment.
  }
}

async function failure({ name, command, logFile }: Command, how: string): Promise<CellError> {
  const log = await readFile(logFile, "utf8").catch(() => "");
  const last = log.trimEnd().split("\n").slice(-linesShown).join("\n");
  const text = `${name} failed (${how}): ${command}\n${last}`.trimEnd();
  return new CellError("PROVIDER_FAILED", text, { nextSteps: [`read ${logFile}`] });
}
