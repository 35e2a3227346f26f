/**
 * A shell that lives as long as a document's tour: what one block sets or starts in the background,
 * the next one finds. Ends with everything that was started in it.
 */
import { spawn } from "node:child_process";

export type Terminal = {
  /** Runs a block; its output, standard error too. Throws when a command of it fails. */
  readonly run: (script: string) => Promise<string>;
  readonly close: () => Promise<void>;
};

export function openTerminal(cwd: string, env: NodeJS.ProcessEnv): Terminal {
  // Also a command in the middle of a block that fails ends the shell, and so the tour.
  const shell = spawn("bash", ["-e", "-o", "pipefail"], {
    cwd,
    env,
    stdio: "pipe",
    detached: true,
  });
  const { pid } = shell;
  let output = "";
  let onOutput = () => {};
  const collect = (chunk: Buffer) => {
    output += chunk.toString("utf8");
    onOutput();
  };
  shell.stdout.on("data", collect);
  shell.stderr.on("data", collect);
  shell.stdin.on("error", () => {}); // It has ended: `closed` says so.
  let ended = false;
  const closed = new Promise<void>((resolve) => {
    shell.once("close", () => {
      ended = true;
      onOutput();
      resolve();
    });
    // Children in the background keep the pipes open.
    shell.once("exit", () => {
      ended = true;
      onOutput();
    });
  });
  let blocks = 0;

  return {
    run: (script) =>
      new Promise<string>((resolve, reject) => {
        blocks += 1;
        const mark = `== end of block ${blocks} ==`;
        const from = output.length;
        onOutput = () => {
          const end = output.indexOf(mark, from);
          if (end >= 0) resolve(output.slice(from, end));
          else if (ended)
            reject(new Error(`the shell has ended\n${script}\n${output.slice(from)}`));
        };
        shell.stdin.write(`${script}\nprintf '\\n%s\\n' '${mark}'\n`);
        onOutput();
      }),
    close: async () => {
      shell.stdin.end();
      for (const signal of ["SIGTERM", "SIGKILL"] as const) {
        if (pid !== undefined) signalGroup(pid, signal);
        const late = new Promise<void>((resolve) => setTimeout(resolve, 5000).unref());
        await Promise.race([closed, late]);
      }
    },
  };
}

function signalGroup(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal);
  } catch {
    // Nobody is left in it.
  }
}
