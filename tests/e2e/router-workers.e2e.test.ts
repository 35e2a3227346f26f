/** A router process with worker threads, as an operator drives it: by signals. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { afterEach, expect, test, vi } from "vitest";
import { ask, until } from "../../router/running.fixture.ts";
import { closeServer, listenOn } from "../../table/table.fixture.ts";

const entry = resolve(import.meta.dirname, "..", "..", "cli", "main.ts");
const closers: Array<() => Promise<unknown>> = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

type Line = Readonly<Record<string, unknown>>;

async function startProcess(workers: string): Promise<{
  readonly child: ChildProcess;
  readonly lines: Line[];
  readonly port: number;
}> {
  const folder = await mkdtemp(join(tmpdir(), "cellfleet-workers-"));
  closers.push(() => rm(folder, { recursive: true, force: true }));
  const app = createServer((_req, res) => res.end("ok"));
  const endpoints = [`http://127.0.0.1:${await listenOn(app, 0)}`];
  closers.push(() => closeServer(app));
  const table = join(folder, "table.json");
  await writeFile(table, JSON.stringify({ cells: { a: { endpoints } }, tenants: { acme: "a" } }));
  const where = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--table", table];
  const times = ["--drain-delay-ms", "0", "--drain-announce-ms", "50", "--drain-ms", "2000"];
  const child = spawn(
    process.execPath,
    [entry, "router", ...where, ...times, "--workers", workers],
    {
      stdio: ["ignore", "pipe", "inherit"],
    },
  );
  closers.push(async () => {
    if (child.exitCode !== null) return;
    child.kill("SIGKILL");
    await once(child, "exit");
  });
  const lines: Line[] = [];
  // Each line must be whole: a cut one is no JSON.
  createInterface({ input: child.stdout }).on("line", (line) => lines.push(JSON.parse(line)));
  const started = await vi.waitFor(() => {
    const line = lines.find(({ event }) => event === "router.started");
    expect(line).toBeDefined();
    return line;
  }, 30_000);
  return { child, lines, port: Number(String(started?.["listen"]).split(":").at(-1)) };
}

test("SIGUSR2 replaces the workers, SIGTERM ends the process in good order", async () => {
  const { child, lines, port } = await startProcess("2");
  expect((await ask(port, "acme")).text).toBe("ok");
  child.kill("SIGUSR2");
  await until(() => expect(lines.filter(({ event }) => event === "worker.left")).toHaveLength(2));
  expect((await ask(port, "acme")).text).toBe("ok");
  child.kill("SIGTERM");
  const [code] = await once(child, "exit");
  expect(code).toBe(0);
  expect(lines.at(-1)).toMatchObject({ event: "router.stopped" });
  expect(lines.filter(({ event }) => event === "request.done")).toHaveLength(2);
});

test("a router of one thread has no workers to replace, and serves on", async () => {
  const { child, lines, port } = await startProcess("1");
  child.kill("SIGUSR2");
  await until(() => expect(lines.at(-1)).toMatchObject({ event: "router.not-restarted" }));
  expect((await ask(port, "acme")).text).toBe("ok");
  child.kill("SIGTERM");
  const [code] = await once(child, "exit");
  expect(code).toBe(0);
});
