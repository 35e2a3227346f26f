/** The router of a soak: the real `cellctl router` in a process of its own, and what it takes. */
import { type ChildProcess, spawn } from "node:child_process";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

export type RouterProcess = {
  readonly port: number;
  readonly child: ChildProcess;
  readonly sample: () => Promise<Sample>;
  /** The value of a gauge, all its series together. */
  readonly metric: (name: string) => Promise<number>;
  /** Its exit code. */
  readonly stop: () => Promise<number | null>;
  readonly troubles: () => readonly string[];
};

export type Sample = { readonly rssMiB: number; readonly files: number };

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
      ...[launcher, "router", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"],
      ...["--table", file, "--access-log", "off", ...flags],
    ],
    { stdio: ["ignore", "pipe", "pipe"] },
  );
  const troubles: string[] = [];
  let started: { readonly listen: string; readonly admin: string } | undefined;
  let rest = "";
  child.stderr.on("data", (text: Buffer) => troubles.push(`stderr: ${text.toString().trim()}`));
  child.stdout.on("data", (text: Buffer) => {
    const lines = (rest + text.toString()).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) {
      const event = readLine(line);
      if (event?.["event"] === "router.started") started = event as unknown as typeof started;
      if (event?.["level"] === "error") troubles.push(line.slice(0, 500));
    }
  });
  while (started === undefined) {
    if (child.exitCode !== null) throw new Error(`the router did not start: ${troubles.join(" ")}`);
    await pause(20);
  }
  const { listen, admin } = started;
  return {
    port: Number(listen.split(":").at(-1)),
    child,
    sample: () => sampleOf(child.pid ?? 0),
    metric: async (name) => {
      const page = await (await fetch(`http://${admin}/metrics`)).text();
      return page
        .split("\n")
        .filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `))
        .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" "))), 0);
    },
    stop: async () => {
      const gone = new Promise<number | null>((done) => child.once("exit", (code) => done(code)));
      child.kill("SIGTERM");
      return gone;
    },
    troubles: () => troubles,
  };
}

function readLine(line: string): Readonly<Record<string, unknown>> | undefined {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

/** Of Linux: /proc says it without asking the process. */
async function sampleOf(pid: number): Promise<Sample> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  const rss = Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0) / 1024;
  return { rssMiB: Math.round(rss), files: (await readdir(`/proc/${pid}/fd`)).length };
}
