/**
 * One PostgreSQL server in a folder of its own: start (or adopt what runs), stop, crash.
 *
 * What must always be true: at most one postmaster per data folder; "ready" means that somebody has
 * logged in; the server outlives us if we are killed (its output goes to a file, it is in a session
 * of its own), and is found again by the next start.
 *
 *   FOLDER/postgres        the data folder, 0700, of the user who runs the server
 *   FOLDER/postgres.json   port and name
 *   FOLDER/password        of the superuser, 0600, ours
 */
import { spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { chown, lchown, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import pg from "pg";
import { z } from "zod";
import { CellError } from "../../contract/errors.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { Random } from "../../runtime/random.ts";
import { rotate } from "../log-file.ts";
import {
  childrenOf,
  identify,
  isAlive,
  type ProcessIdentity,
  signalProcess,
} from "../process-identity.ts";
import type { Installation } from "./binaries.ts";
import { identity as userOf } from "./command.ts";
import { choosePort } from "./port.ts";
import { clearRemains, findRunning } from "./postmaster-file.ts";
import { hostAccessText, settingsText } from "./settings.ts";

export const superuser = "postgres";

/**
 * `fast`: orderly, connections are cut. `immediate`: SIGQUIT, a crash of all its processes at once.
 * `kill`: SIGKILL to the postmaster and every child; a busy child of a postmaster killed alone would
 * live on and could still commit.
 */
export const stopModes = ["fast", "immediate", "kill"] as const;
export type StopMode = (typeof stopModes)[number];

export type ServerOptions = {
  readonly folder: string;
  /** Shown in the process list; at most 63 bytes. */
  readonly name: string;
  readonly installation: Installation;
  readonly clock: Clock;
  readonly random: Random;
  readonly logFile: string;
  readonly durable: boolean;
};

export type PostgresServer = {
  readonly port: number;
  readonly pid: number;
  readonly dataDir: string;
  /** As superuser. */
  readonly url: (database?: string) => string;
  readonly stop: (mode: StopMode) => Promise<void>;
  /** Resolves when the postmaster is gone, for whatever reason; watching begins with the call. */
  readonly gone: () => Promise<void>;
};

export const dataDirOf = (folder: string): string => join(folder, "postgres");
export const passwordFileOf = (folder: string): string => join(folder, "password");
export const stateFileOf = (folder: string): string => join(folder, "postgres.json");

const stateSchema = z.object({ port: z.number().int().min(1).max(65_535) });
const readyWithinMs = 60_000;
const stopWithinMs = 30_000;
const portAttemptsMax = 3;
const logCharsShown = 2000;

/** Starts the server of an initialised folder. A live one is adopted as it is. */
export async function startServer(options: ServerOptions): Promise<PostgresServer> {
  const dataDir = dataDirOf(options.folder);
  const password = (await readFile(passwordFileOf(options.folder), "utf8")).trim();
  const running = await findRunning(dataDir);
  if (running !== undefined) {
    const { identity, port } = running;
    try {
      await waitReady(port, password, () => isAlive(identity), options);
      return describeServer(options, identity, port, password);
    } catch (error) {
      // Killed a moment ago and seen while it was dying: then it is started like any dead one.
      if (isAlive(identity)) throw error;
    }
  }
  await clearRemains(dataDir, options.clock);
  await rotate(options.logFile);
  await takeOwnership(dataDir, options.installation);
  for (let attempt = 1; ; attempt += 1) {
    const logBefore = await sizeOf(options.logFile);
    const wanted = attempt === 1 ? await rememberedPort(options.folder) : undefined;
    const port = await choosePort(wanted, options.random);
    const started = await launch(options, port);
    try {
      await waitReady(port, password, () => isAlive(started), options);
      await writeFile(stateFileOf(options.folder), `${JSON.stringify({ port })}\n`);
      return describeServer(options, started, port, password);
    } catch (error) {
      await endPostmaster(started, "immediate", dataDir, options.clock);
      const taken = (await textAfter(options.logFile, logBefore)).includes("could not bind");
      if (!taken || attempt >= portAttemptsMax) throw error;
    }
  }
}

/** Crashes whatever server still runs in a folder that is to be removed or made anew. */
export async function endServer(folder: string, clock: Clock): Promise<void> {
  const running = await findRunning(dataDirOf(folder));
  if (running !== undefined) {
    await endPostmaster(running.identity, "immediate", dataDirOf(folder), clock);
  }
}

export const urlFor = (login: {
  readonly port: number;
  readonly user: string;
  readonly password: string;
  readonly database: string;
}): string =>
  `postgres://${encodeURIComponent(login.user)}:${encodeURIComponent(login.password)}@127.0.0.1:${login.port}/${encodeURIComponent(login.database)}`;

async function rememberedPort(folder: string): Promise<number | undefined> {
  const text = await readFile(stateFileOf(folder), "utf8").catch(() => undefined);
  if (text === undefined) return undefined;
  try {
    return stateSchema.parse(JSON.parse(text)).port;
  } catch {
    return undefined; // Half written by a killed process: another port does as well.
  }
}

function describeServer(
  options: ServerOptions,
  postmaster: ProcessIdentity,
  port: number,
  password: string,
): PostgresServer {
  const dataDir = dataDirOf(options.folder);
  return {
    port,
    pid: postmaster.pid,
    dataDir,
    url: (database = "postgres") => urlFor({ port, user: superuser, password, database }),
    stop: (mode) => endPostmaster(postmaster, mode, dataDir, options.clock),
    gone: async () => {
      await waitGone(postmaster, options.clock, undefined);
    },
  };
}

async function launch(options: ServerOptions, port: number): Promise<ProcessIdentity> {
  const { installation, name, durable } = options;
  const dataDir = dataDirOf(options.folder);
  const settings = settingsText({ name, port, major: installation.major, durable });
  await writeServerFile(join(dataDir, "postgresql.conf"), settings, installation);
  await writeServerFile(join(dataDir, "pg_hba.conf"), hostAccessText, installation);
  const log = openSync(options.logFile, "a", 0o600);
  const child = spawn(installation.postgres, ["-D", dataDir], {
    cwd: "/",
    env: { ...installation.env },
    stdio: ["ignore", log, log],
    // Ctrl-C reaches every process of our session: then the database would be gone before its users.
    detached: true,
    ...userOf(installation.runAs),
  });
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  child.once("error", reject);
  child.once("spawn", () => resolve(child.pid ?? 0));
  const pid = await promise.finally(() => closeSync(log));
  child.unref();
  return identify(pid) ?? { pid, startedAt: "ended at once" };
}

async function waitReady(
  port: number,
  password: string,
  alive: () => boolean,
  options: ServerOptions,
): Promise<void> {
  const deadline = options.clock.monotonicMs() + readyWithinMs;
  for (;;) {
    const trouble = await tryLogin(port, password);
    if (trouble === undefined) return;
    const late = options.clock.monotonicMs() > deadline;
    // 28P01: the password is wrong, and waiting does not mend that.
    if (late || !alive() || trouble.code === "28P01") {
      const log = (await textAfter(options.logFile, 0)).slice(-logCharsShown);
      throw new CellError(
        "CONFIG_INVALID",
        `PostgreSQL of ${options.name} did not become ready: ${trouble.message}`,
        { nextSteps: [`read ${options.logFile}`], details: { log }, cause: trouble },
      );
    }
    await options.clock.sleep(15);
  }
}

async function tryLogin(
  port: number,
  password: string,
): Promise<(Error & { readonly code?: string }) | undefined> {
  const client = new pg.Client({
    host: "127.0.0.1",
    port,
    user: superuser,
    password,
    database: "postgres",
    connectionTimeoutMillis: 5000,
  });
  client.on("error", () => {}); // The server may die between login and end.
  try {
    await client.connect();
    await client.query("select 1");
    return undefined;
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  } finally {
    await client.end().catch(() => {}); // Never connected: nothing to end.
  }
}

async function endPostmaster(
  postmaster: ProcessIdentity,
  mode: StopMode,
  dataDir: string,
  clock: Clock,
): Promise<void> {
  if (mode === "kill") {
    // The children are listed first: once their parent is gone nobody can tell whose they were.
    const children = childrenOf(postmaster.pid);
    for (const one of [postmaster, ...children]) signalProcess(one, "SIGKILL");
  } else {
    signalProcess(postmaster, mode === "fast" ? "SIGINT" : "SIGQUIT");
  }
  if (!(await waitGone(postmaster, clock, stopWithinMs))) signalProcess(postmaster, "SIGKILL");
  await waitGone(postmaster, clock, stopWithinMs);
  // Whatever mode it was: after this no process of this server can commit any more.
  if (mode !== "fast") await clearRemains(dataDir, clock);
}

/** Polled, because a server adopted from a killed supervisor is not our child. */
async function waitGone(
  postmaster: ProcessIdentity,
  clock: Clock,
  withinMs: number | undefined,
): Promise<boolean> {
  const start = clock.monotonicMs();
  for (let pauseMs = 5; isAlive(postmaster); pauseMs = Math.min(pauseMs * 1.5, 250)) {
    if (withinMs !== undefined && clock.monotonicMs() - start > withinMs) return false;
    // Watching a server for its whole life must not keep us alive; waiting for a stop must.
    const background = withinMs === undefined;
    await new Promise<void>((resolve) => clock.after(pauseMs, resolve, { background }));
  }
  return true;
}

/** What root copied or restored belongs to root: give it to the server's user. Others' data is not ours. */
async function takeOwnership(dataDir: string, installation: Installation): Promise<void> {
  const user = installation.runAs?.uid ?? process.getuid?.();
  const owner = (await stat(dataDir)).uid;
  if (owner === user) return;
  if (owner !== 0 || installation.runAs === undefined) {
    throw new CellError("CONFIG_INVALID", `${dataDir} belongs to the user with uid ${owner}`, {
      nextSteps: ["run the same command as that user", "cellctl dev --data OTHER-FOLDER"],
    });
  }
  const { uid, gid } = installation.runAs;
  const entries = await readdir(dataDir, { recursive: true });
  for (const entry of entries) await lchown(join(dataDir, entry), uid, gid);
  await chown(dataDir, uid, gid);
}

async function writeServerFile(
  path: string,
  text: string,
  installation: Installation,
): Promise<void> {
  await writeFile(path, text, { mode: 0o600 });
  const { runAs } = installation;
  if (runAs !== undefined) await chown(path, runAs.uid, runAs.gid);
}

const sizeOf = (file: string): Promise<number> =>
  stat(file).then(
    ({ size }) => size,
    () => 0,
  );

const textAfter = async (file: string, offset: number): Promise<string> =>
  (await readFile(file).catch(() => Buffer.alloc(0))).subarray(offset).toString("utf8");
