/** Runs a program to its end, as an unprivileged user where one is given, and keeps what it said. */
import { spawn } from "node:child_process";

/** The user PostgreSQL runs as when we are root; it refuses to run as root. */
export type RunAs = { readonly name: string; readonly uid: number; readonly gid: number };

export type CommandResult = {
  /** 127 when it could not be started at all. */
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
};

const outputCharsMax = 64 * 1024;

export function runCommand(
  program: string,
  args: readonly string[],
  options: {
    readonly runAs: RunAs | undefined;
    readonly env: Readonly<Record<string, string>>;
  },
): Promise<CommandResult> {
  return new Promise((resolve) => {
    const child = spawn(program, args, {
      // The caller's own folder may be closed to the other user, and then even `sh` complains.
      cwd: "/",
      env: { ...options.env },
      stdio: ["ignore", "pipe", "pipe"],
      ...identity(options.runAs),
    });
    const output = { stdout: "", stderr: "" };
    for (const name of ["stdout", "stderr"] as const) {
      child[name].on("data", (chunk: Buffer) => {
        output[name] = (output[name] + chunk.toString("utf8")).slice(-outputCharsMax);
      });
    }
    child.once("error", (error) => resolve({ code: 127, ...output, stderr: error.message }));
    child.once("close", (code) => resolve({ code: code ?? 126, ...output }));
  });
}

/** `uid` and `gid` for spawn; nothing when we run as an ordinary user already. */
export const identity = (runAs: RunAs | undefined): { uid?: number; gid?: number } =>
  runAs === undefined ? {} : { uid: runAs.uid, gid: runAs.gid };
