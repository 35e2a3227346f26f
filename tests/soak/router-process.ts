/** The router of a soak: the real `cellctl router` in a process of its own, and what it takes. */
import { spawn } from "node:child_process";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as pause } from "node:timers/promises";
import { type Inspector, inspect } from "./inspector.ts";

export type RouterProcess = {
  readonly port: number;
  readonly inspector: Inspector;
  readonly sample: () => Promise<Sample>;
  /** The page of metrics: each name with the sum of its series, whatever their labels. */
  readonly metrics: () => Promise<ReadonlyMap<string, number>>;
  /** Its exit code. */
  readonly stop: () => Promise<number | null>;
  /** As it stands; for whoever ends himself. */
  readonly kill: () => void;
  readonly troubles: () => readonly string[];
};

export type Sample = {
  readonly rssMiB: number;
  readonly files: number;
  /** Connections in the queue of its public listener. */
  readonly unaccepted: number;
  /** So long its main thread has waited for a processor that others had. */
  readonly starvedMs: number;
};

/** A heap that is far too small for a leak of any size: it would end the process. */
const heapMiBMax = 160;

export async function startRouter(
  dir: string,
  table: object,
  flags: readonly string[],
): Promise<RouterProcess> {
  const file = join(dir, "cells.json");
  await writeFile(file, JSON.stringify(table));
  const launcher = resolve(import.meta.dirname, "..", "..", "cli", "main.ts");
  const child = spawn(
    process.execPath,
    [
      ...[`--max-old-space-size=${heapMiBMax}`, "--inspect=127.0.0.1:0", launcher, "router"],
      ...["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"],
      ...["--table", file, "--access-log", "off", ...flags],
    ],
    { stdio: ["ignore", "pipe", "pipe"] },
  );
  const exited = new Promise<number | null>((done) => child.once("exit", (code) => done(code)));
  const troubles: string[] = [];
  let url: string | undefined;
  let started: { readonly listen: string; readonly admin: string } | undefined;
  createInterface(child.stderr).on("line", (line) => {
    url ??= /^Debugger listening on (ws:\S+)$/.exec(line)?.[1];
    if (!isOfInspector(line)) troubles.push(`stderr: ${line}`);
  });
  createInterface(child.stdout).on("line", (line) => {
    const event = readLine(line);
    if (event?.["event"] === "router.started") started = event as unknown as typeof started;
    if (event?.["level"] === "error") troubles.push(line.slice(0, 500));
  });
  while (started === undefined || url === undefined) {
    if (child.exitCode !== null) throw new Error(`the router did not start: ${troubles.join(" ")}`);
    await pause(20);
  }
  const { listen, admin } = started;
  const port = Number(listen.split(":").at(-1));
  const inspector = await inspect(url);
  return {
    port,
    inspector,
    sample: () => sampleOf(child.pid ?? 0, port),
    metrics: async () => sumsOf(await (await fetch(`http://${admin}/metrics`)).text()),
    stop: () => {
      inspector.close();
      child.kill("SIGTERM");
      return exited;
    },
    kill: () => void child.kill("SIGKILL"),
    troubles: () => troubles,
  };
}

const isOfInspector = (line: string): boolean =>
  /^(Debugger (listening|attached|ending)|For help, see|Waiting for the debugger)/.test(line);

function readLine(line: string): Readonly<Record<string, unknown>> | undefined {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

function sumsOf(page: string): ReadonlyMap<string, number> {
  const sums = new Map<string, number>();
  for (const line of page.split("\n")) {
    const named = /^# TYPE (\S+)/.exec(line)?.[1];
    // A family without series is at zero; one that is not there at all is a mistake of whoever asks.
    if (named !== undefined) sums.set(named, 0);
    const name = /^[a-z_]+/.exec(line)?.[0];
    if (name === undefined) continue;
    sums.set(name, (sums.get(name) ?? 0) + Number(line.slice(line.lastIndexOf(" "))));
  }
  return sums;
}

/** Of Linux: /proc says it without asking the process. */
async function sampleOf(pid: number, port: number): Promise<Sample> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  const rss = Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0) / 1024;
  const files = (await readdir(`/proc/${pid}/fd`)).length;
  const [, waitedNs] = (await readFile(`/proc/${pid}/schedstat`, "utf8")).split(" ").map(Number);
  const starvedMs = Math.round((waitedNs ?? 0) / 1e6);
  return { rssMiB: Math.round(rss), files, unaccepted: await unacceptedAt(port), starvedMs };
}

/** Of a listening socket (state 0A), the queue of what is read are connections. */
async function unacceptedAt(port: number): Promise<number> {
  const own = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  const lines = (await readFile("/proc/net/tcp", "utf8"))
    .split("\n")
    .map((line) => line.trim().split(/\s+/));
  return lines
    .filter(([, local, , state]) => state === "0A" && local?.endsWith(own))
    .reduce((sum, [, , , , queues]) => sum + Number.parseInt(queues?.split(":")[1] ?? "0", 16), 0);
}
