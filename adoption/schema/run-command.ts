/** Runs a team's own migration tool for one database, and hands its output over line by line. */
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";

export type CommandLine = { readonly stream: "stdout" | "stderr"; readonly text: string };

export type CommandEnd =
  | { readonly kind: "done" }
  | { readonly kind: "failed"; readonly reason: string };

/** `command` is a line for the shell. The address of the database stands in its environment alone. */
export async function runCommand(options: {
  readonly command: string;
  readonly cwd: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly onLine: (line: CommandLine) => Promise<void> | void;
  readonly signal: AbortSignal;
}): Promise<CommandEnd> {
  const child = spawn("/bin/sh", ["-c", options.command], {
    cwd: options.cwd,
    env: { ...options.env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const onAbort = () => child.kill("SIGTERM");
  options.signal.addEventListener("abort", onAbort, { once: true });
  try {
    const ended = new Promise<CommandEnd>((resolve) => {
      child.once("error", (error) => resolve({ kind: "failed", reason: error.message }));
      child.once("close", (code, signal) => resolve(endOf(code, signal)));
    });
    await Promise.all([
      readLines(child.stdout, "stdout", options.onLine),
      readLines(child.stderr, "stderr", options.onLine),
    ]);
    return await ended;
  } finally {
    options.signal.removeEventListener("abort", onAbort);
  }
}

function endOf(code: number | null, signal: NodeJS.Signals | null): CommandEnd {
  if (code === 0) return { kind: "done" };
  return { kind: "failed", reason: signal === null ? `exit code ${code}` : `ended by ${signal}` };
}

async function readLines(
  input: Readable,
  stream: CommandLine["stream"],
  onLine: (line: CommandLine) => Promise<void> | void,
): Promise<void> {
  for await (const text of createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY })) {
    await onLine({ stream, text });
  }
}
