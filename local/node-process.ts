/**
 * Starts one of our programs as a process of its own, and leaves a note of it on disk: pid and start
 * time. When the supervisor is killed, its processes live on; the next one finds the notes and ends
 * exactly those processes.
 */
import { spawn } from "node:child_process";
import { renameSync, writeFileSync } from "node:fs";
import { readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { CellError } from "../contract/errors.ts";
import type { Clock } from "../runtime/clock.ts";
import { rotate, withLog } from "./log-file.ts";
import {
  identify,
  isAlive,
  type ProcessIdentity,
  processIdentitySchema,
  signalProcess,
} from "./process-identity.ts";
import type { Launched } from "./unit.ts";

export type NodeProcess = {
  readonly name: string;
  /** The file to run, then its arguments. No secrets: anybody can read a command line. */
  readonly args: readonly string[];
  /** The whole environment. */
  readonly env: Readonly<Record<string, string>>;
  readonly folders: { readonly logs: string; readonly notes: string };
  readonly clock: Clock;
  readonly graceMs: number;
  /** Asked again and again until it says yes; the process is then ready. */
  readonly isReady: () => Promise<boolean>;
};

const readyWithinMs = 60_000;
const readyPauseMs = 40;

export async function launchNode(options: NodeProcess): Promise<Launched> {
  const logFile = join(options.folders.logs, `${options.name}.log`);
  await rotate(logFile);
  const { promise: gone, resolve: end } = Promise.withResolvers<string>();
  const child = withLog(logFile, (log) =>
    spawn(process.execPath, [...options.args], {
      env: { ...options.env },
      stdio: ["ignore", log, log],
      // Ctrl-C on the terminal is for the supervisor, which stops the others in their order.
      detached: true,
    }),
  );
  child.once("error", (error) => end(error.message));
  child.once("exit", (code, signal) =>
    end(signal === null ? `exit code ${code}` : `signal ${signal}`),
  );
  child.unref();
  const identity = child.pid === undefined ? undefined : identify(child.pid);
  if (identity === undefined) throw await failure(options, logFile, await gone);
  writeNote(options, identity);
  const process_ = describe(identity, gone, options);
  await waitReady(options, process_, logFile);
  return process_;
}

/** Ends what a killed supervisor left behind. Returns the names, for a line on the screen. */
export async function endLeftovers(
  notes: string,
  graceMs: number,
  clock: Clock,
): Promise<readonly string[]> {
  const ended: string[] = [];
  const work = (await readdir(notes).catch((): string[] => []))
    .filter((file) => file.endsWith(".json"))
    .map(async (file) => {
      const identity = await readNote(join(notes, file));
      if (identity !== undefined && isAlive(identity)) {
        await terminate(identity, graceMs, clock);
        ended.push(file.replace(/\.json$/, ""));
      }
      await rm(join(notes, file), { force: true });
    });
  await Promise.all(work);
  return ended.sort((a, b) => a.localeCompare(b));
}

function describe(
  identity: ProcessIdentity,
  gone: Promise<string>,
  { graceMs, clock }: NodeProcess,
): Launched {
  return {
    pid: identity.pid,
    gone,
    stop: () => terminate(identity, graceMs, clock),
    kill: async () => {
      signalProcess(identity, "SIGKILL");
      await gone;
    },
  };
}

async function terminate(identity: ProcessIdentity, graceMs: number, clock: Clock): Promise<void> {
  signalProcess(identity, "SIGTERM");
  if (await isGone(identity, graceMs, clock)) return;
  signalProcess(identity, "SIGKILL");
  await isGone(identity, graceMs, clock);
}

/** Polled: a process that another supervisor started is not our child. */
async function isGone(identity: ProcessIdentity, withinMs: number, clock: Clock): Promise<boolean> {
  const deadline = clock.monotonicMs() + withinMs;
  for (let pauseMs = 5; isAlive(identity); pauseMs = Math.min(pauseMs * 2, 100)) {
    if (clock.monotonicMs() > deadline) return false;
    await clock.sleep(pauseMs);
  }
  return true;
}

async function waitReady(options: NodeProcess, child: Launched, logFile: string): Promise<void> {
  let ended: string | undefined;
  void child.gone.then((how) => {
    ended = how;
  });
  const deadline = options.clock.monotonicMs() + readyWithinMs;
  while (!(await options.isReady())) {
    if (ended !== undefined) throw await failure(options, logFile, ended);
    if (options.clock.monotonicMs() > deadline) {
      await child.stop();
      throw await failure(options, logFile, `not ready within ${readyWithinMs / 1000} s`);
    }
    await options.clock.sleep(readyPauseMs);
  }
}

async function failure({ name }: NodeProcess, logFile: string, how: string): Promise<CellError> {
  const log = await readFile(logFile, "utf8").catch(() => "");
  const last = log.trimEnd().split("\n").slice(-5).join("\n");
  return new CellError("PROVIDER_FAILED", `${name} did not start (${how})\n${last}`.trimEnd(), {
    nextSteps: [`read ${logFile}`],
  });
}

const noteOf = ({ folders, name }: NodeProcess): string => join(folders.notes, `${name}.json`);

/**
 * At once, without giving way: a supervisor killed between start and note would leave a process that
 * nobody finds. By rename, so that a reader never meets half a note. Never removed: an old note
 * names a process that is gone, and start times tell.
 */
function writeNote(options: NodeProcess, identity: ProcessIdentity): void {
  const draft = `${noteOf(options)}.new`;
  writeFileSync(draft, JSON.stringify(identity));
  renameSync(draft, noteOf(options));
}

async function readNote(path: string): Promise<ProcessIdentity | undefined> {
  try {
    return processIdentitySchema.parse(JSON.parse(await readFile(path, "utf8")));
  } catch {
    return undefined; // Not a note of ours: nothing that may be ended by it.
  }
}
