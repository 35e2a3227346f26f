/** Processes that outlive their supervisor, and two supervisors that want one folder. Real processes. */
import { type ChildProcess, spawn } from "node:child_process";
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterEach, beforeEach, describe, test } from "vitest";
import { must } from "../runtime/assert.ts";
import { systemClock } from "../runtime/clock.ts";
import { systemRandom } from "../runtime/random.ts";
import { type DataFolder, openDataFolder, readSupervisor, takeFolder } from "./data-folder.ts";
import { trim } from "./log-file.ts";
import {
  endLeftovers,
  isProvedGone,
  launchNode,
  launchShell,
  type NodeProcess,
} from "./node-process.ts";
import { canReach } from "./postgres/machine-folder.ts";
import { chooseUnprivilegedUser } from "./postgres/unprivileged-user.ts";
import { childrenOf, identify, isAlive, signalProcess } from "./process-identity.ts";

let root: string;
let folder: DataFolder;
const children: ChildProcess[] = [];

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "cellfleet-supervision-"));
  folder = await openDataFolder(join(root, "data"), undefined, systemRandom);
});
afterEach(async () => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
  await endLeftovers(folder.notes, 0, systemClock);
  await rm(root, { recursive: true, force: true });
});

const program = (name: string, script: string, more: Partial<NodeProcess> = {}): NodeProcess => ({
  name,
  args: ["-e", script],
  env: {},
  folders: { logs: folder.logs, notes: folder.notes },
  clock: systemClock,
  graceMs: 2000,
  isReady: async () => (await log(name)).includes("ready"),
  ...more,
});
const log = (name: string) => readFile(join(folder.logs, `${name}.log`), "utf8").catch(() => "");
const waits = "console.log('ready'); setInterval(() => {}, 1000);";

describe("a process", () => {
  test("is ready when it says so, and writes its log itself", async ({ expect }) => {
    const child = await launchNode(program("one", waits));
    expect(await log("one")).toBe("ready\n");
    await child.stop();
    expect(await child.gone).toBe("signal SIGTERM");
  });

  test("that does not become ready says why", async ({ expect }) => {
    const broken = program("one", "console.error('no such port'); process.exit(3)");
    await expect(launchNode(broken)).rejects.toMatchObject({
      code: "PROVIDER_FAILED",
      message: expect.stringMatching(/exit code 3[\s\S]*no such port/),
    });
  });

  test("is proved gone when nothing is left of it, wherever that went", async ({ expect }) => {
    const gone = () => isProvedGone(folder.notes, "one");
    expect(gone()).toBe(true); // Never started.
    // A group of its own, as a program that becomes a daemon takes.
    const stray = `require('node:child_process').spawn('sleep', ['60'], { detached: true });`;
    const script = `${stray} console.log('ready'); setInterval(() => {}, 1000);`;
    const { args: _, ...rest } = program("one", "");
    const command = `exec ${process.execPath} -e "${script}"`;
    const child = await launchShell({ ...rest, command, cwd: "/" });
    const [sleeper] = childrenOf(child.pid);
    expect(gone()).toBe(false);
    await child.kill();
    // Where environments cannot be read nobody knows of it: it is as far as the group.
    if (process.platform === "linux") expect(gone()).toBe(false);
    signalProcess(must(sleeper, "the one that went astray"), "SIGKILL");
    while (!gone()) await systemClock.sleep(5);
    await writeFile(join(folder.notes, "one.json"), "half a n");
    expect(gone()).toBe(false);
  });

  test("that will not end is ended by force after its grace", async ({ expect }) => {
    const deaf = `process.on('SIGTERM', () => console.log('heard')); ${waits}`;
    const child = await launchNode(program("one", deaf, { graceMs: 300 }));
    await child.stop();
    expect(await child.gone).toBe("signal SIGKILL");
    expect(await log("one")).toContain("heard");
  });

  test("keeps the log of its last run, and its log within bounds", async ({ expect }) => {
    await (await launchNode(program("one", `console.log('first'); ${waits}`))).stop();
    await (await launchNode(program("one", `console.log('second'); ${waits}`))).stop();
    expect(await log("one")).toContain("second");
    expect(await readFile(join(folder.logs, "one.log.1"), "utf8")).toContain("first");
    const path = join(folder.logs, "big.log");
    await writeFile(path, "x".repeat(33 * 1024 * 1024));
    await trim(path);
    expect(await readFile(path, "utf8")).toBe("");
  });
});

describe("what a killed supervisor left", () => {
  test("is found and ended by the next one", async ({ expect }) => {
    const child = await launchNode(program("one", waits));
    const identity = identify(child.pid);
    expect(await endLeftovers(folder.notes, 2000, systemClock)).toEqual(["one"]);
    expect(identity !== undefined && isAlive(identity)).toBe(false);
    expect(await readdir(folder.notes)).toEqual([]);
  });

  test("never costs a stranger its life who has the same pid now", async ({ expect }) => {
    const stranger = spawn(process.execPath, ["-e", waits], { stdio: "ignore" });
    children.push(stranger);
    const note = { pid: stranger.pid, startedAt: "another boot/1" };
    await writeFile(join(folder.notes, "one.json"), JSON.stringify(note));
    expect(await endLeftovers(folder.notes, 2000, systemClock)).toEqual([]);
    expect(identify(stranger.pid ?? 0)).toBeDefined();
  });
});

describe("the data folder", () => {
  test("keeps databases where the server's user can reach them", async ({ expect }) => {
    const runAs = await chooseUnprivilegedUser();
    // The folder above is closed, as that of a home is; only to root that makes a difference.
    await chmod(root, runAs === undefined ? 0o700 : 0o711);
    const reachable = await openDataFolder(join(root, "reachable"), runAs, systemRandom);
    await chmod(root, 0o700);
    const closed = await openDataFolder(join(root, "closed"), runAs, systemRandom);
    try {
      expect(reachable.databases).toBe(reachable.root);
      expect(await canReach(closed.databases, runAs)).toBe(true);
      expect(closed.databases === closed.root).toBe(runAs === undefined);
      // The same folder, the same place: a second start finds its data.
      expect((await openDataFolder(join(root, "closed"), runAs, systemRandom)).databases).toBe(
        closed.databases,
      );
      expect((await stat(closed.secrets)).mode & 0o777).toBe(0o700);
    } finally {
      if (runAs !== undefined) await rm(closed.databases, { recursive: true });
    }
  });

  test("has one supervisor at a time", async ({ expect }) => {
    await takeFolder(folder);
    await expect(takeFolder(folder)).rejects.toMatchObject({
      code: "STATE_CONFLICT",
      message: expect.stringContaining(`process ${process.pid}`),
    });
  });

  test("is free again when its supervisor is gone, whoever has its pid now", async ({ expect }) => {
    const note = { pid: process.pid, startedAt: "another boot/1" };
    await writeFile(join(folder.root, "supervisor.json"), JSON.stringify(note));
    await takeFolder(folder);
    expect(await readSupervisor(folder.root)).toEqual(identify(process.pid));
    expect((await readdir(folder.root)).filter((name) => name.includes("supervisor"))).toEqual([
      "supervisor.json",
    ]);
  });

  test("goes to exactly one of many that come at once after a dead one", async ({ expect }) => {
    // Many folders, so that the rivals meet in every possible moment of each other.
    const folders = await Promise.all(
      Array.from({ length: 40 }, async (_, index) => {
        const contested = join(root, `contested-${index}`);
        await mkdir(contested);
        const dead = { pid: 2 ** 22, startedAt: "another boot/1" };
        await writeFile(join(contested, "supervisor.json"), JSON.stringify(dead));
        return contested;
      }),
    );
    const rivals = Array.from({ length: 4 }, () => rival(folders));
    await Promise.all(rivals.map((one) => one.line()));
    for (const { start } of rivals) start();
    const outcomes = await Promise.all(
      rivals.map(async (one) => JSON.parse(await one.line()) as string[]),
    );
    for (const [index] of folders.entries()) {
      const answers = outcomes.map((one) => one[index] ?? "").sort((a, b) => a.localeCompare(b));
      expect(answers).toEqual(["STATE_CONFLICT", "STATE_CONFLICT", "STATE_CONFLICT", "won"]);
    }
  });
});

/** A process that takes all the folders it can, once it is told to start. */
function rival(folders: readonly string[]) {
  const module = new URL("data-folder.ts", import.meta.url).href;
  const script = `
    const { takeFolder } = await import(${JSON.stringify(module)});
    console.log("ready");
    await new Promise((go) => process.stdin.once("data", go));
    const outcomes = [];
    for (const root of process.argv.slice(1)) {
      outcomes.push(await takeFolder({ root }).then(() => "won", (error) => error.code));
    }
    console.log(JSON.stringify(outcomes));
    setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", script, ...folders], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  children.push(child);
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    start: () => child.stdin.write("go\n"),
    line: async () => String((await lines.next()).value),
  };
}
