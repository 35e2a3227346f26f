/**
 * Starts a program as a process of its own, and leaves a note of it on disk: pid and start time. When
 * the supervisor is killed, its processes live on; the next one finds the notes and ends exactly
 * those processes.
 *
 * A command of somebody's application is given to a shell; what it starts in turn is in its process
 * group, and the group is ended as one.
 */
import { spawn } from "node:child_process";
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { readdir, readFile, rm } from "node:fs/promises";
import { setPriority } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import { CellError } from "../contract/errors.ts";
import type { Clock } from "../runtime/clock.ts";
import { rotate, withLog } from "./log-file.ts";
import {
  identify,
  isAlive,
  membersOfGroup,
  noneOfGroup,
  processIdentitySchema,
  signalGroup,
  signalProcess,
} from "./process-identity.ts";
import type { Program } from "./programs.ts";
import { shell } from "./run-to-end.ts";
import type { Launched } from "./unit.ts";

type Launch = {
  readonly name: string;
  /** The whole environment. */
  readonly env: Readonly<Record<string, string>>;
  readonly folders: { readonly logs: string; readonly notes: string };
  readonly clock: Clock;
  readonly graceMs: number;
  readonly yields?: boolean;
  /** Asked again and again until it says yes; the process is then ready. */
  readonly isReady: () => Promise<boolean>;
};
export type NodeProcess = Launch & {
  /** The file to run, then its arguments. No secrets: anybody can read a command line. */
  readonly args: readonly string[];
};
type Surroundings = Omit<Launch, "isReady">;
export type ShellProcess = Launch & {
  readonly command: string;
  readonly cwd: string;
};

type Executable = {
  readonly file: string;
  readonly args: readonly string[];
  readonly cwd?: string;
  /** Also what it started belongs to it. */
  readonly group: boolean;
};

/** Names the note of a process in the environment of all that it starts. */
const markVariable = "CELLFLEET_NOTE";
const noteSchema = processIdentitySchema.extend({
  /** Of a process that is ended together with its group. */
  groupMark: z.string().optional(),
});
type Note = z.infer<typeof noteSchema>;

const readyWithinMs = 60_000;
const readyPauseMs = 40;

export const launchNode = (options: NodeProcess): Promise<Launched> =>
  launch(options, { file: process.execPath, args: options.args, group: false });

/** One of our programs, or a command for the shell. */
export const launchProgram = (
  { run, env, isUp, yields = false }: Program,
  options: Surroundings,
) => {
  const launch = { ...options, env: { ...options.env, ...env }, isReady: isUp, yields };
  return "args" in run ? launchNode({ ...launch, ...run }) : launchShell({ ...launch, ...run });
};

export const launchShell = (options: ShellProcess): Promise<Launched> =>
  launch(options, {
    file: shell,
    args: ["-c", options.command],
    cwd: options.cwd,
    group: true,
  });

async function launch(options: Launch, program: Executable): Promise<Launched> {
  const logFile = join(options.folders.logs, `${options.name}.log`);
  await rotate(logFile);
  const { promise: gone, resolve: end } = Promise.withResolvers<string>();
  const child = withLog(logFile, (log) =>
    spawn(program.file, [...program.args], {
      ...(program.cwd === undefined ? {} : { cwd: program.cwd }),
      env: { ...options.env, ...(program.group ? { [markVariable]: noteOf(options) } : {}) },
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
  if (options.yields === true && child.pid !== undefined) letYield(child.pid);
  const identity = child.pid === undefined ? undefined : identify(child.pid);
  if (identity === undefined) throw await failure(options, logFile, await gone);
  const groupMark = `${markVariable}=${noteOf(options)}`;
  const note = program.group ? { ...identity, groupMark } : identity;
  writeNote(options, note);
  // A shell that is gone is the end of its command, whatever it may have left behind.
  if (program.group) void gone.then(() => signal(note, "SIGKILL"));
  const process_ = describe(note, gone, { ...options, hold: () => child.ref() });
  await waitReady(options, process_, logFile);
  return process_;
}

/**
 * As `nice` would: also what it starts in turn inherits it. Where Linux groups processes by session, a process
 * that is the first of its session is nice towards nobody else; its group has to be
 * (https://man7.org/linux/man-pages/man7/sched.7.html, "The autogroup feature").
 */
const yieldingPriority = 2;
function letYield(pid: number): void {
  try {
    setPriority(pid, yieldingPriority);
    writeFileSync(`/proc/${pid}/autogroup`, String(yieldingPriority), { flag: "r+" });
  } catch {
    // It has ended already, or this system has no priorities, or no groups.
  }
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
      const note = await readNote(join(notes, file));
      if (note !== undefined && lives(note)) {
        await terminate(note, graceMs, clock);
        ended.push(file.replace(/\.json$/, ""));
        if (lives(note)) return; // Stuck in the kernel: the note is what still tells of it.
      }
      await rm(join(notes, file), { force: true });
    });
  await Promise.all(work);
  return ended.sort((a, b) => a.localeCompare(b));
}

/**
 * No process that was started under this name is left, nor one that it started in turn: by the note, so
 * that it holds also for what another supervisor started. What cannot be read is not gone.
 */
export function isProvedGone(notes: string, name: string): boolean {
  const text = readIfThere(join(notes, `${name}.json`));
  if (text === undefined) return true;
  const note = parseNote(text);
  if (note === undefined || isAlive(note)) return false;
  return note.groupMark === undefined || noneOfGroup(note, note.groupMark);
}

function describe(
  note: Note,
  gone: Promise<string>,
  { graceMs, clock, hold }: Launch & { readonly hold: () => void },
): Launched {
  return {
    pid: note.pid,
    gone,
    stop: () => terminate(note, graceMs, clock),
    kill: async () => {
      // Where nothing else keeps this process alive it would end before it has heard, and whoever waits with it.
      hold();
      signal(note, "SIGKILL");
      await gone;
    },
  };
}

const lives = (note: Note): boolean =>
  note.groupMark === undefined ? isAlive(note) : membersOfGroup(note, note.groupMark).length > 0;
const signal = (note: Note, name: NodeJS.Signals): boolean =>
  note.groupMark === undefined
    ? signalProcess(note, name)
    : signalGroup(note, note.groupMark, name);

async function terminate(note: Note, graceMs: number, clock: Clock): Promise<void> {
  signal(note, "SIGTERM");
  if (await isGone(note, graceMs, clock)) return;
  signal(note, "SIGKILL");
  await isGone(note, graceMs, clock);
}

/** Polled: a process that another supervisor started is not our child. */
async function isGone(note: Note, withinMs: number, clock: Clock): Promise<boolean> {
  const deadline = clock.monotonicMs() + withinMs;
  for (let pauseMs = 5; lives(note); pauseMs = Math.min(pauseMs * 2, 100)) {
    if (clock.monotonicMs() > deadline) return false;
    await clock.sleep(pauseMs);
  }
  return true;
}

async function waitReady(options: Launch, child: Launched, logFile: string): Promise<void> {
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

async function failure({ name }: Launch, logFile: string, how: string): Promise<CellError> {
  const log = await readFile(logFile, "utf8").catch(() => "");
  const last = log.trimEnd().split("\n").slice(-5).join("\n");
  return new CellError("PROVIDER_FAILED", `${name} did not start (${how})\n${last}`.trimEnd(), {
    nextSteps: [`read ${logFile}`],
  });
}

const noteOf = ({ folders, name }: Launch): string => join(folders.notes, `${name}.json`);

/**
 * At once, without giving way: a supervisor killed between start and note would leave a process that
 * nobody finds. By rename, so that a reader never meets half a note. Never removed: an old note
 * names a process that is gone, and start times tell.
 */
function writeNote(options: Launch, note: Note): void {
  const draft = `${noteOf(options)}.new`;
  writeFileSync(draft, JSON.stringify(note));
  renameSync(draft, noteOf(options));
}

const readNote = async (path: string): Promise<Note | undefined> =>
  parseNote(await readFile(path, "utf8").catch(() => ""));

/** Undefined: there is no such file. Unreadable it is empty, which is no note. */
function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return existsSync(path) ? "" : undefined;
  }
}

function parseNote(text: string): Note | undefined {
  try {
    return noteSchema.parse(JSON.parse(text));
  } catch {
    return undefined; // Not a note of ours: nothing that may be ended by it.
  }
}
