/**
 * A whole fleet for a test: the real `cellctl dev` in a folder of its own, on ports the system
 * chose. Whatever the test did to it, `stop()` leaves no process and no folder behind.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { Agent, request } from "undici";
import { type Endpoints, endpointsSchema } from "../contract/provider-api.ts";
import { testApplicationFile } from "./application.ts";

const root = resolve(import.meta.dirname, "..");
const launcher = join(root, "bin", "cellctl.js");
const readyWithinMs = 90_000;
const stopWithinMs = 30_000;

export type Answer = {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  // A test looks at whatever the answer holds.
  readonly json: Record<string, unknown>;
  readonly text: string;
};

export type CliResult = { readonly code: number; readonly stdout: string; readonly stderr: string };

export type TestFleet = {
  readonly dataDir: string;
  /** Read anew at every call: a restart may choose other ports. */
  readonly endpoints: () => Promise<Endpoints>;
  /** One request through the router. */
  readonly ask: (
    tenant: string,
    method: "GET" | "POST",
    path: string,
    body?: unknown,
    headers?: Readonly<Record<string, string>>,
  ) => Promise<Answer>;
  /** `cellctl …` against this fleet. */
  readonly cli: (...args: string[]) => Promise<CliResult>;
  /** As `cli`, with `-o json`; throws when the exit code is not 0. */
  readonly cliJson: (...args: string[]) => Promise<Record<string, unknown>>;
  /** Orderly: SIGTERM to the supervisor. */
  readonly shutDown: () => Promise<void>;
  /** SIGKILL to the supervisor and everything under it, at once. */
  readonly killEverything: () => Promise<void>;
  /** Start again on the same folder. */
  readonly start: () => Promise<void>;
  /** Standard output and error of the supervisor so far. */
  readonly output: () => string;
  readonly stop: () => Promise<void>;
};

export async function startFleet(
  options: {
    readonly cells?: number;
    readonly flags?: readonly string[];
    /** Of each cell; none unless a test is about them: annexes are processes too. */
    readonly standbyPartners?: number;
    /** A cellfleet.yaml; without it the application is the sample, or what CELLFLEET_TEST_APP names. */
    readonly app?: string;
    /** Of the Node that runs the supervisor. */
    readonly nodeFlags?: readonly string[];
  } = {},
): Promise<TestFleet> {
  const dataDir = await mkdtemp(join(tmpdir(), "cellfleet-test-"));
  const agent = new Agent({ connections: 64, allowH2: false });
  const app = options.app ?? testApplicationFile;
  const nodeFlags = options.nodeFlags ?? [];
  const supervisor = createSupervisor(dataDir, nodeFlags, [
    ...(app === undefined ? [] : ["--app", resolve(app)]),
    "--cells",
    String(options.cells ?? 3),
    "--standby-partners",
    String(options.standbyPartners ?? 0),
    ...(options.flags ?? []),
  ]);

  const endpoints = async () =>
    endpointsSchema.parse(JSON.parse(await readFile(join(dataDir, "endpoints.json"), "utf8")));

  const fleet: TestFleet = {
    dataDir,
    endpoints,
    ask: async (tenant, method, path, body, headers = {}) =>
      ask(agent, (await endpoints()).router, method, path, body, {
        "x-tenant-id": tenant,
        ...headers,
      }),
    cli: (...args) => runCli(dataDir, args),
    cliJson: async (...args) => {
      const result = await runCli(dataDir, [...args, "-o", "json"]);
      if (result.code !== 0) {
        throw new Error(`cellctl ${args.join(" ")} ended with ${result.code}\n${result.stderr}`);
      }
      return JSON.parse(result.stdout) as Record<string, unknown>;
    },
    shutDown: () => supervisor.end("SIGTERM"),
    killEverything: async () => {
      for (const pid of await processesUnder(dataDir)) killQuietly(pid);
      await supervisor.end("SIGKILL");
      const none = async () => (await processesUnder(dataDir)).length === 0;
      await until("all processes gone", none, stopWithinMs);
    },
    start: supervisor.start,
    output: supervisor.output,
    stop: async () => {
      await supervisor.end("SIGTERM");
      for (const pid of await processesUnder(dataDir)) killQuietly(pid);
      await agent.destroy();
      await rm(dataDir, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
    },
  };

  try {
    await fleet.start();
  } catch (error) {
    await fleet.stop();
    throw error;
  }
  return fleet;
}

type Supervisor = {
  readonly start: () => Promise<void>;
  readonly end: (signal: "SIGTERM" | "SIGKILL") => Promise<void>;
  readonly output: () => string;
};

function createSupervisor(
  dataDir: string,
  nodeFlags: readonly string[],
  flags: readonly string[],
): Supervisor {
  const ports = ["--port", "0", "--admin-port", "0", "--control-plane-port", "0"];
  let current: ChildProcess | undefined;
  let output = "";

  async function start(): Promise<void> {
    const from = output.length;
    const onText = (text: string) => {
      output += text;
    };
    const child = run(["dev", "--data", dataDir, ...ports, ...flags], onText, nodeFlags);
    current = child;
    const ready = () => {
      if (hasEnded(child)) throw new Error("cellctl dev ended before it was ready");
      return output.slice(from).includes("cellfleet ready");
    };
    await until("cellfleet ready", ready, readyWithinMs).catch((error: unknown) => {
      throw new Error(`${String(error)}\n${output}`);
    });
  }

  async function end(signal: "SIGTERM" | "SIGKILL"): Promise<void> {
    const child = current;
    if (child === undefined || hasEnded(child)) return;
    const gone = new Promise<void>((resolveGone) => child.once("exit", () => resolveGone()));
    child.kill(signal);
    const late = setTimeout(() => child.kill("SIGKILL"), stopWithinMs);
    await gone;
    clearTimeout(late);
  }

  return { start, end, output: () => output };
}

async function runCli(dataDir: string, args: readonly string[]): Promise<CliResult> {
  let stdout = "";
  let stderr = "";
  const child = run([...args, "--data", dataDir], (text, stream) => {
    if (stream === "stdout") stdout += text;
    else stderr += text;
  });
  const code = await new Promise<number>((resolveCode) =>
    child.once("close", (exit) => resolveCode(exit ?? 255)),
  );
  return { code, stdout, stderr };
}

function run(
  args: readonly string[],
  onText: (text: string, stream: "stdout" | "stderr") => void,
  nodeFlags: readonly string[] = [],
): ChildProcess {
  const child = spawn(process.execPath, [...nodeFlags, launcher, ...args], {
    cwd: root,
    stdio: ["ignore", "pipe", "pipe"],
    env: cleanEnvironment(),
  });
  child.stdout.on("data", (chunk: Buffer) => onText(chunk.toString("utf8"), "stdout"));
  child.stderr.on("data", (chunk: Buffer) => onText(chunk.toString("utf8"), "stderr"));
  return child;
}

const hasEnded = (child: ChildProcess): boolean =>
  child.exitCode !== null || child.signalCode !== null;

/** One request, whole answer; an answer that is not JSON has an empty `json`. */
export async function ask(
  agent: Agent,
  origin: string,
  method: "GET" | "POST",
  path: string,
  body: unknown,
  headers: Readonly<Record<string, string>>,
): Promise<Answer> {
  const response = await request(`${origin}${path}`, {
    method,
    dispatcher: agent,
    headers: { ...(body === undefined ? {} : { "content-type": "application/json" }), ...headers },
    ...(body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) }),
  });
  const text = await response.body.text();
  return { status: response.statusCode, headers: response.headers, text, json: parse(text) };
}

/** Waits for a condition; the time limit is for hangs, not a measurement. */
export async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
  withinMs = 30_000,
  everyMs = 50,
): Promise<void> {
  const deadline = Date.now() + withinMs;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`did not happen within ${withinMs} ms: ${what}`);
    await new Promise((again) => setTimeout(again, everyMs));
  }
}

function parse(text: string): Record<string, unknown> {
  try {
    const json: unknown = JSON.parse(text);
    return typeof json === "object" && json !== null ? (json as Record<string, unknown>) : {};
  } catch {
    return {}; // Not JSON: `text` has it.
  }
}

/** A test's fleet must not be steered by the settings of whoever runs the test. */
function cleanEnvironment(): NodeJS.ProcessEnv {
  const dropped = /^(CELLFLEET_|CELLCTL_|DATABASE_URL$|PG|NODE_OPTIONS$|VITEST)/;
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !dropped.test(name)));
}

function killQuietly(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // Already gone: that is what was wanted.
  }
}

/** Every process that names the folder on its command line, with all their children. */
async function processesUnder(dataDir: string): Promise<number[]> {
  const listing = await new Promise<string>((resolveText) => {
    const child = spawn("ps", ["-axww", "-o", "pid=,ppid=,stat=,args="], {
      stdio: ["ignore", "pipe", "ignore"],
    });
    let text = "";
    child.stdout.on("data", (chunk: Buffer) => {
      text += chunk.toString("utf8");
    });
    child.once("close", () => resolveText(text));
  });
  const rows = listing.split("\n").flatMap((line) => {
    const match = /^\s*(\d+)\s+(\d+)\s+(\S+)\s+(.*)$/.exec(line);
    if (match === null || match[3]?.startsWith("Z") === true) return [];
    return [{ pid: Number(match[1]), parent: Number(match[2]), args: match[4] ?? "" }];
  });
  const found = new Set(
    rows
      .filter((row) => row.args.includes(dataDir) && row.pid !== process.pid)
      .map((row) => row.pid),
  );
  for (let grown = true; grown; ) {
    grown = false;
    for (const row of rows) {
      if (found.has(row.parent) && !found.has(row.pid)) {
        found.add(row.pid);
        grown = true;
      }
    }
  }
  return [...found];
}
