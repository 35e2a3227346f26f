/**
 * A control plane and routers as real processes, for measurements: started with the launcher that
 * people use, on ports the system chose, found again by their log's first line, ended by `stop`,
 * also when the bench is interrupted. Cells are stood in for by the fixture's: what is measured here
 * is how routing tables are made and spread, not how requests are served.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { cpus, loadavg, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { z } from "zod";
import {
  acceptedSchema,
  cellSchema,
  createdTokenSchema,
  list,
  type Op,
  opSchema,
} from "../contract/control-api.ts";
import { type FakeCell, startFakeCell } from "../control-plane/plane.fixture.ts";
import { createJsonClient, type JsonClient } from "../runtime/http-client.ts";
import { generateKey, type PublicKeys } from "../runtime/signing.ts";
import { startTestPostgres, type TestPostgres } from "../tests/postgres.ts";

const entry = resolve(import.meta.dirname, "..", "cli", "main.ts");
const startedWithinMs = 30_000;
const adminSecret = "the-admin-of-the-bench";

export type BenchProcess = {
  readonly pid: number;
  readonly listen: string;
  readonly admin: string;
  /** Resident memory, in bytes. */
  readonly rss: () => Promise<number>;
  /** Ends it at once. */
  readonly kill: () => Promise<void>;
};

export type BenchFleet = {
  readonly folder: string;
  readonly postgres: TestPostgres;
  readonly databaseUrl: string;
  readonly keys: PublicKeys;
  readonly control: BenchProcess;
  readonly client: JsonClient;
  readonly secret: string;
  readonly router: (id: string) => Promise<BenchProcess>;
  /** Follows an operation to its end; throws when it fails. */
  readonly finish: (op: Op) => Promise<void>;
  readonly stop: () => Promise<void>;
};

export async function startBenchFleet(options: {
  readonly cells: number;
  readonly tenantsPerCellMax: number;
}): Promise<BenchFleet> {
  const folder = mkdtempSync(join(tmpdir(), "cellfleet-bench-"));
  const running: BenchProcess[] = [];
  const closers: Array<() => Promise<void>> = [];
  const removeFolder = () => rmSync(folder, { recursive: true, force: true });
  process.once("exit", removeFolder);
  const stop = async () => {
    for (const close of closers.toReversed()) await close();
    for (const one of running) await one.kill();
    removeFolder();
  };
  try {
    const postgres = await startTestPostgres();
    closers.unshift(postgres.stop);
    const databaseUrl = await postgres.createDatabase("bench");
    const key = generateKey("bench");
    writeFileSync(join(folder, "key.json"), JSON.stringify(key.privateKey), { mode: 0o600 });
    writeFileSync(join(folder, "trust.json"), JSON.stringify(key.publicKeys));
    const control = await startProcess(
      ["control-plane", "--signing-key", join(folder, "key.json"), "--log-level", "info"],
      {
        CELLFLEET_DATABASE_URL: "env:BENCH_DATABASE",
        BENCH_DATABASE: databaseUrl,
        CELLFLEET_BOOTSTRAP_TOKEN: "env:BENCH_ADMIN",
        BENCH_ADMIN: adminSecret,
      },
      "process.started",
    );
    running.push(control);
    const client = createJsonClient({
      origin: control.listen,
      token: adminSecret,
      unreachable: "CONTROL_PLANE_UNREACHABLE",
    });
    closers.push(client.close);
    const cells: FakeCell[] = [];
    closers.push(async () => {
      await Promise.all(cells.map((cell) => cell.stop()));
    });
    await openCells(client, control.listen, options, cells);
    return {
      folder,
      postgres,
      databaseUrl,
      keys: key.publicKeys,
      control,
      client,
      secret: adminSecret,
      finish: (op) => finish(client, op),
      router: async (id) => {
        const token = await machineToken(client, "router", id);
        const router = await startProcess(
          ["router", "--control-plane", control.listen, "--id", id, "--access-log", "off"].concat([
            ...["--drain-delay-ms", "0", "--drain-announce-ms", "0"],
            ...["--trust-keys", join(folder, "trust.json"), "--state-dir", join(folder, id)],
          ]),
          { CELLFLEET_TOKEN: "env:BENCH_TOKEN", BENCH_TOKEN: token },
          "router.started",
        );
        running.push(router);
        return router;
      },
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function finish(client: JsonClient, op: Op): Promise<void> {
  for (let seen = op; seen.state !== "done"; ) {
    if (seen.state === "failed") throw new Error(seen.headline);
    seen = await client.call({
      method: "GET",
      path: `/v1/ops/${op.id}?after=${seen.version}&waitMs=5000`,
      schema: opSchema,
      timeoutMs: 60_000,
    });
  }
}

async function machineToken(client: JsonClient, role: string, subject: string): Promise<string> {
  const { secret } = await client.call({
    method: "POST",
    path: "/v1/tokens",
    body: { name: subject, role, subject },
    schema: createdTokenSchema,
    timeoutMs: 10_000,
  });
  return secret;
}

async function openCells(
  client: JsonClient,
  origin: string,
  options: { readonly cells: number; readonly tenantsPerCellMax: number },
  cells: FakeCell[],
): Promise<void> {
  for (let nth = 1; nth <= options.cells; nth += 1) {
    const id = `cell-0${nth}`;
    const capacity = { tenants: options.tenantsPerCellMax };
    await client.call({
      method: "POST",
      path: "/v1/cells",
      body: { id, provider: "none", capacity },
      schema: acceptedSchema,
      timeoutMs: 10_000,
    });
    const token = await machineToken(client, "agent", id);
    cells.push(await startFakeCell({ origin: () => origin, token, cell: id }));
  }
  for (;;) {
    const { items } = await client.call({
      method: "GET",
      path: "/v1/cells",
      schema: list(cellSchema),
      timeoutMs: 10_000,
    });
    if (items.every(({ state, health }) => state === "active" && health === "healthy")) return;
    await new Promise((done) => setTimeout(done, 100));
  }
}

const startedSchema = z.object({ event: z.string(), listen: z.string(), admin: z.string() });

async function startProcess(
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  startedEvent: string,
): Promise<BenchProcess> {
  const ports = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
  const child = spawn(process.execPath, [entry, ...args, ...ports], {
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const onExit = () => child.kill("SIGKILL");
  process.once("exit", onExit);
  const kill = async () => {
    process.off("exit", onExit);
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((done) => child.once("exit", done));
    child.kill("SIGKILL");
    await ended;
  };
  try {
    const { listen, admin } = await firstWords(child, startedEvent);
    return {
      pid: child.pid ?? 0,
      listen: urlOf(listen),
      admin: urlOf(admin),
      rss: () => readRss(child.pid ?? 0),
      kill,
    };
  } catch (error) {
    await kill();
    throw error;
  }
}

const urlOf = (address: string): string =>
  address.startsWith("http") ? address : `http://${address}`;

/** Also keeps reading what comes later, so that the process never waits for us. */
function firstWords(
  child: ChildProcess,
  startedEvent: string,
): Promise<z.infer<typeof startedSchema>> {
  const { stdout } = child;
  if (stdout === null) throw new Error("no standard output");
  return new Promise((resolveStart, reject) => {
    const late = setTimeout(() => reject(new Error("the process did not start")), startedWithinMs);
    child.once("exit", (code) => reject(new Error(`the process ended with ${code}`)));
    createInterface({ input: stdout }).on("line", (line) => {
      const parsed = startedSchema.safeParse(readJson(line));
      if (parsed.data?.event !== startedEvent) return;
      clearTimeout(late);
      resolveStart(parsed.data);
    });
  });
}

function readJson(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined; // Not a log line: passed over.
  }
}

/** Where the system has /proc; elsewhere 0. */
async function readRss(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
  return Number(/VmRSS:\s+(\d+) kB/.exec(text)?.[1] ?? 0) * 1024;
}

export const mebibytes = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
export const seconds = (ms: number): string => `${(ms / 1000).toFixed(2)} s`;

/** One line per figure: name, value, what it is. */
export function print(name: string, value: string, note: string = ""): void {
  process.stdout.write(
    `${name.padEnd(44)} ${value.padStart(14)}${note === "" ? "" : `  ${note}`}\n`,
  );
}

/** Waits for the process to be ready; how long that took. */
export async function untilReady(one: BenchProcess, sinceMs: number): Promise<number> {
  for (;;) {
    const response = await fetch(`${one.admin}/readyz`).catch(() => undefined);
    await response?.text();
    if (response?.status === 200) return performance.now() - sinceMs;
    await new Promise((done) => setTimeout(done, 10));
  }
}

/** The figures of a machine that does other things at the same time are no better than this. */
export const printLoad = (): void =>
  print(
    "load of the machine, last minute",
    (loadavg()[0] ?? 0).toFixed(1),
    `${cpus().length} processors`,
  );
