/**
 * Which process is this? A pid alone is not an answer: pids are used again. Whatever is ended or
 * adopted here is named by pid *and* start time, so that a stale file can never hit a stranger.
 *
 * Linux: /proc (start time in ticks, with the boot's id). Elsewhere: `ps`.
 */
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync, readlinkSync, realpathSync } from "node:fs";
import { z } from "zod";

export const processIdentitySchema = z.object({
  pid: z.number().int().min(2),
  /** When it started, in a form that is only ever compared. */
  startedAt: z.string().min(1),
});
export type ProcessIdentity = z.infer<typeof processIdentitySchema>;

const hasProc = process.platform === "linux";

/** Undefined for a process that is gone or a zombie. */
export function identify(pid: number): ProcessIdentity | undefined {
  const startedAt = hasProc ? startFromProc(pid) : startFromPs(pid);
  return startedAt === undefined ? undefined : { pid, startedAt };
}

/** The very process that was recorded, not merely one with its pid. */
export const isAlive = (identity: ProcessIdentity): boolean =>
  identify(identity.pid)?.startedAt === identity.startedAt;

/** Sends a signal to exactly this process; false when it is gone. */
export function signalProcess(identity: ProcessIdentity, signal: NodeJS.Signals): boolean {
  if (!isAlive(identity)) return false;
  try {
    process.kill(identity.pid, signal);
    return true;
  } catch {
    return false; // It ended between the two lines: that is what "gone" means.
  }
}

/** Direct children, living ones. */
export function childrenOf(pid: number): ProcessIdentity[] {
  const found = hasProc ? allPids().filter((other) => parentOf(other) === pid) : childrenByPs(pid);
  return found.flatMap((other) => identify(other) ?? []);
}

/**
 * Living members of the process group that `leader` leads or led. While the leader lives they are
 * what bears its number. After it only those that carry `mark` in their environment (Linux; elsewhere
 * none): the number may have become somebody else's since.
 */
export function membersOfGroup(leader: ProcessIdentity, mark: string): ProcessIdentity[] {
  // One that is just ending has no environment any more, and its ports are still taken.
  return ofGroup(leader, (environment) => environment === "" || has(environment, mark));
}

/**
 * Not one process is left that the leader or its descendants may have been. On Linux also one that left
 * the group, as long as it kept its environment; elsewhere whatever bears the group's number counts.
 */
export function noneOfGroup(leader: ProcessIdentity, mark: string): boolean {
  if (!hasProc) return pidsOfGroup(leader.pid).length === 0;
  const strayed = () => allPids().some((pid) => has(environmentOf(pid), mark) && isThere(pid));
  return membersOfGroup(leader, mark).length === 0 && !strayed();
}

/** To the group as one, so that a member that is just being born hears it too; false when it is empty. */
export function signalGroup(
  leader: ProcessIdentity,
  mark: string,
  signal: NodeJS.Signals,
): boolean {
  if (ofGroup(leader, (environment) => has(environment, mark)).length === 0) return false;
  try {
    process.kill(-leader.pid, signal);
    return true;
  } catch {
    return false; // The last one ended between the two lines.
  }
}

function ofGroup(
  leader: ProcessIdentity,
  belongs: (environment: string) => boolean,
): ProcessIdentity[] {
  const bearer = identify(leader.pid);
  const leads = bearer?.startedAt === leader.startedAt;
  if (bearer !== undefined && !leads) return [];
  return pidsOfGroup(leader.pid)
    .filter((pid) => leads || belongs(environmentOf(pid)))
    .flatMap((pid) => identify(pid) ?? []);
}

const pidsOfGroup = (group: number): number[] =>
  hasProc
    ? allPids().filter((pid) => Number(statFields(pid)?.[2] ?? -1) === group)
    : pairsByPs("pid=,pgid=").flatMap(([pid, its]) => (its === group ? [pid] : []));

const has = (environment: string, mark: string): boolean => environment.split("\0").includes(mark);

/** Empty for a process that is ending; text that bears no mark where we may not look. */
const environmentOf = (pid: number): string =>
  (hasProc ? readText(`/proc/${pid}/environ`) : undefined) ?? "unknown";

/**
 * Processes whose working directory is `folder`. PostgreSQL's children stay in their data folder
 * even after the postmaster is gone, so this finds the ones a `kill -9` left behind. Linux only:
 * elsewhere the list is empty and PostgreSQL itself waits for them.
 */
export function processesIn(folder: string): ProcessIdentity[] {
  if (!hasProc) return [];
  // Reached by a link, the folder has another name there.
  const real = realPath(folder);
  return allPids()
    .filter((pid) => workingFolder(pid) === real)
    .flatMap((pid) => identify(pid) ?? []);
}

/**
 * No process works in `folder`, nor one that may and that `looks` like one of it by its command line:
 * whose working directory we may not read, or, elsewhere than on Linux, cannot.
 */
export function noneIn(folder: string, looks: (command: string) => boolean): boolean {
  const real = realPath(folder);
  if (!hasProc) return !ps(["-axww", "-o", "args="]).split("\n").some(looks);
  return allPids().every((pid) => {
    const works = workingFolder(pid);
    const ours = works === undefined ? looks(commandLine(pid)) : isIn(works, real);
    return !ours || !isThere(pid);
  });
}

/** Not a zombie. */
const isThere = (pid: number): boolean => identify(pid) !== undefined;

/** A folder that was removed under a process keeps its name, with a remark. */
const isIn = (works: string, folder: string): boolean =>
  works === folder || works === `${folder} (deleted)`;

function realPath(folder: string): string {
  try {
    return realpathSync(folder);
  } catch {
    return folder; // Removed: the name it had.
  }
}

/** The command line, words joined by one space; empty when it cannot be read. */
export function commandLine(pid: number): string {
  if (!hasProc) return ps(["-o", "args=", "-p", String(pid)]).trim();
  return readText(`/proc/${pid}/cmdline`)?.split("\0").join(" ").trim() ?? "";
}

let bootId: string | undefined;

function startFromProc(pid: number): string | undefined {
  const fields = statFields(pid);
  if (fields === undefined || fields[0] === "Z" || fields[0] === "X") return undefined;
  bootId ??= readText("/proc/sys/kernel/random/boot_id")?.trim() ?? "";
  return `${bootId}/${fields[19] ?? ""}`;
}

const parentOf = (pid: number): number => Number(statFields(pid)?.[1] ?? -1);

/** Fields of /proc/PID/stat from the state (field 3) on; the name before it may hold anything. */
function statFields(pid: number): string[] | undefined {
  const text = readText(`/proc/${pid}/stat`);
  return text?.slice(text.lastIndexOf(")") + 2).split(" ");
}

const allPids = (): number[] =>
  readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number);

function workingFolder(pid: number): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/cwd`);
  } catch {
    return undefined; // Gone, or another user's: neither is one of ours.
  }
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined; // The process ended while we looked.
  }
}

function startFromPs(pid: number): string | undefined {
  const [state, ...start] = ps(["-o", "stat=,lstart=", "-p", String(pid)])
    .trim()
    .split(/\s+/);
  return state === undefined || state === "" || state.startsWith("Z") ? undefined : start.join(" ");
}

function childrenByPs(pid: number): number[] {
  return pairsByPs("pid=,ppid=").flatMap(([child, parent]) => (parent === pid ? [child] : []));
}

const pairsByPs = (columns: string): Array<readonly [number, number]> =>
  ps(["-axo", columns])
    .split("\n")
    .map((line) => line.trim().split(/\s+/).map(Number))
    .map(([one = -1, other = -1]) => [one, other] as const);

function ps(args: readonly string[]): string {
  try {
    return execFileSync("ps", args, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
  } catch {
    return ""; // `ps` exits with 1 when there is no such process.
  }
}
