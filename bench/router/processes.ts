/**
 * Processes to be measured: pinned to one processor, their CPU time and memory read from the kernel,
 * and all of them ended, also when the bench is interrupted.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { closeSync, openSync, readdirSync, readFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { availableParallelism } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";

const startedWithinMs = 60_000;
const endsWithinMs = 3000;

export type Pinned = {
  readonly pid: number;
  /** CPU time of all its threads and children so far, in microseconds. */
  readonly cpuUs: () => number;
  /** Resident memory of it and its children, in bytes. */
  readonly rssBytes: () => number;
};

export const proxyCore = 0;
export const loadCore = 1;
export const canPin = hasCommand("taskset", ["--version"]) && availableParallelism() > 1;

export function hasCommand(name: string, args: readonly string[]): boolean {
  return spawnSync(name, args, { stdio: "ignore" }).error === undefined;
}

const running = new Set<ChildProcess>();

/** On one processor, if this machine lets us choose. */
export const pinned = (core: number, command: readonly string[]): readonly string[] =>
  canPin ? ["taskset", "-c", String(core), ...command] : command;

export const canKeepAwake = canPin && hasCommand("chrt", ["--version"]);

/**
 * Keeps a processor from sleeping, with work that gives way to all other. On a virtual machine it is the
 * writer who pays for waking a sleeping reader, up to 10 us, and a proxy that is a little slower lets
 * the load's processor sleep more often: without this the same proxy is measured in two modes.
 */
export function keepAwake(core: number): void {
  if (!canKeepAwake) return;
  const spin = ["chrt", "--idle", "0", "sh", "-c", "while :; do :; done"];
  const [file = "", ...args] = pinned(core, spin);
  running.add(spawn(file, args, { stdio: "ignore" }));
}

export type StartOptions = {
  readonly name: string;
  readonly core: number;
  readonly command: readonly string[];
  /** Where it listens; it is there when a connection is taken. */
  readonly port: number;
  /** Its standard output and errors. */
  readonly outFile: string;
};

export async function startPinned(options: StartOptions): Promise<Pinned> {
  const [file = "", ...args] = pinned(options.core, options.command);
  const out = openSync(options.outFile, "a");
  const child = spawn(file, args, { stdio: ["ignore", out, out] });
  closeSync(out);
  running.add(child);
  const deadline = performance.now() + startedWithinMs;
  while (!(await answers(options.port))) {
    const ended = child.exitCode !== null || child.signalCode !== null;
    if (ended || performance.now() > deadline) {
      const last = readFileSync(options.outFile, "utf8").slice(-2000);
      throw new Error(`${options.name} did not start: ${last}`);
    }
    await sleep(50);
  }
  const pid = child.pid ?? 0;
  return {
    pid,
    cpuUs: () => sum(family(pid).map(cpuUsOf)),
    rssBytes: () => sum(family(pid).map(rssOf)),
  };
}

const sum = (values: readonly number[]): number => values.reduce((all, one) => all + one, 0);

/** The process and its children, and theirs. */
function family(pid: number): number[] {
  const children = tasks(pid).flatMap((task) => {
    const text = read(`/proc/${pid}/task/${task}/children`);
    return text
      .split(" ")
      .filter((one) => one !== "")
      .map(Number);
  });
  return [pid, ...children.flatMap(family)];
}

function tasks(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/task`);
  } catch {
    return [];
  }
}

/** A process may end while it is looked at. */
function read(file: string): string {
  try {
    return readFileSync(file, "utf8").trim();
  } catch {
    return "";
  }
}

/** The first figure of schedstat: nanoseconds on a processor, user and system. */
const cpuUsOf = (pid: number): number =>
  sum(
    tasks(pid).map(
      (task) => Number(read(`/proc/${pid}/task/${task}/schedstat`).split(" ")[0] ?? 0) / 1000,
    ),
  );

function rssOf(pid: number): number {
  const kilobytes = /^VmRSS:\s+(\d+) kB$/m.exec(read(`/proc/${pid}/status`))?.[1];
  return Number(kilobytes ?? 0) * 1024;
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    const settle = (there: boolean) => {
      socket.destroy();
      resolve(there);
    };
    socket.once("connect", () => settle(true));
    socket.once("error", () => settle(false));
  });
}

export async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer());
  const ports = await Promise.all(
    servers.map(
      (server) =>
        new Promise<number>((resolve, reject) => {
          server.once("error", reject);
          server.listen(0, "127.0.0.1", () => {
            const address = server.address();
            resolve(typeof address === "object" && address !== null ? address.port : 0);
          });
        }),
    ),
  );
  await Promise.all(servers.map((server) => new Promise((done) => server.close(done))));
  return ports;
}

export async function stopAll(): Promise<void> {
  await Promise.all([...running].map(stop));
}

async function stop(child: ChildProcess): Promise<void> {
  running.delete(child);
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  child.kill("SIGTERM");
  const timer = setTimeout(() => child.kill("SIGKILL"), endsWithinMs);
  await ended;
  clearTimeout(timer);
}
