/**
 * The entry point of `cellctl`: hands the real process over to `runCli`, and sets the exit code.
 *
 * Nothing is imported before the warnings are quiet, and as little as possible after: a command
 * loads what it needs itself.
 */
import { once } from "node:events";
import { homedir } from "node:os";
import { systemClock } from "../runtime/clock.ts";
import { quietWarnings } from "../runtime/quiet-warnings.ts";
import { systemRandom } from "../runtime/random.ts";
import type { Sink } from "./io.ts";

/** A second signal sooner than this is the first one again, forwarded by the launcher or by npm. */
const sameSignalMs = 1000;
const exitInterrupted = 130;

function sink(stream: NodeJS.WriteStream): Sink {
  // A reader that has gone away (`cellctl … | head`) is not an error: there is nobody left to tell.
  stream.on("error", (error: NodeJS.ErrnoException) => {
    process.exit(error.code === "EPIPE" ? 0 : 1);
  });
  return {
    write: async (text) => {
      if (!stream.write(text)) await once(stream, "drain");
    },
    isTerminal: stream.isTTY === true,
    columns: () => stream.columns,
  };
}

function listenForSignals(): AbortSignal {
  const interrupt = new AbortController();
  let firstMs: number | undefined;
  const onSignal = () => {
    const nowMs = systemClock.monotonicMs();
    if (firstMs !== undefined && nowMs - firstMs > sameSignalMs) process.exit(exitInterrupted);
    firstMs ??= nowMs;
    interrupt.abort();
  };
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, onSignal);
  return interrupt.signal;
}

quietWarnings();
const { runCli } = await import("./run.ts");
process.exitCode = await runCli(process.argv.slice(2), {
  env: process.env,
  cwd: process.cwd(),
  home: homedir(),
  stdout: sink(process.stdout),
  stderr: sink(process.stderr),
  stdin: process.stdin,
  clock: systemClock,
  random: systemRandom,
  interrupts: listenForSignals,
  nodeVersion: process.versions.node,
});
