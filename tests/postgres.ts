/**
 * A real PostgreSQL for one test file: a copy of a prepared server, in a temporary folder, on a port
 * the system chose, at rest in well under a second. `stop()` leaves neither process nor folder; a
 * test run that is interrupted cleans up as it goes, and what a `kill -9` left is removed by the
 * next test file that starts one.
 */
import { readFileSync, rmSync } from "node:fs";
import { mkdir, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import pg from "pg";
import { findPostgres } from "../local/postgres/binaries.ts";
import { machineFolder } from "../local/postgres/machine-folder.ts";
import {
  endServer,
  passwordFileOf,
  type ServerOptions,
  type StopMode,
  startServer,
  superuser,
  urlFor,
} from "../local/postgres/server.ts";
import { createFromTemplate } from "../local/postgres/template.ts";
import { identify, isAlive, processIdentitySchema } from "../local/process-identity.ts";
import { systemClock } from "../runtime/clock.ts";
import { systemRandom } from "../runtime/random.ts";

export type TestPostgres = {
  /** The same after every restart. */
  readonly port: number;
  /** Of the superuser; give it to the roles you create, then `url(database, role)` logs in. */
  readonly password: string;
  /** The superuser's, into the database `postgres`. */
  readonly adminUrl: string;
  readonly url: (database: string, user?: string) => string;
  /** A new database; returns the superuser's URL of it. */
  readonly createDatabase: (name: string) => Promise<string>;
  /** `fast` is orderly; `immediate` and `kill` are crashes. Committed work survives all three. */
  readonly restart: (mode: StopMode) => Promise<void>;
  /** As `restart`, without the second half. `restart` brings it back. */
  readonly halt: (mode: StopMode) => Promise<void>;
  readonly stop: () => Promise<void>;
};

const empty = { content: "empty", build: async () => {} };

export async function startTestPostgres(): Promise<TestPostgres> {
  const installation = await findPostgres({ env: process.env, random: systemRandom });
  const tools = { installation, clock: systemClock, random: systemRandom };
  const parent = join(await machineFolder(installation.runAs), "tests");
  await mkdir(parent, { recursive: true, mode: 0o711 });
  const folder = join(parent, `pg-${process.pid}-${systemRandom.hex(4)}`);
  const options: ServerOptions = {
    folder,
    name: "test",
    installation,
    clock: systemClock,
    random: systemRandom,
    logFile: join(folder, "postgres.log"),
    durable: false,
  };
  await removeLeftovers(parent, options);
  const forget = cleanUpOnExit(folder);
  await createFromTemplate(folder, empty, tools);
  await writeFile(ownerFileOf(folder), JSON.stringify(identify(process.pid)));
  let server = await startServer(options);
  const { port } = server;
  const password = readFileSync(passwordFileOf(folder), "utf8").trim();
  const url = (database: string, user = superuser) => urlFor({ port, user, password, database });
  return {
    port,
    password,
    adminUrl: url("postgres"),
    url,
    createDatabase: async (name) => {
      await query(url("postgres"), `create database ${pg.escapeIdentifier(name)}`);
      return url(name);
    },
    halt: (mode) => server.stop(mode),
    restart: async (mode) => {
      await server.stop(mode);
      server = await startServer(options);
      if (server.port !== port) throw new Error(`port ${port} was taken meanwhile`);
    },
    stop: async () => {
      await server.stop("immediate");
      await rm(folder, { recursive: true, force: true });
      forget();
    },
  };
}

async function query(url: string, text: string): Promise<void> {
  const client = new pg.Client(url);
  await client.connect();
  try {
    await client.query(text);
  } finally {
    await client.end();
  }
}

const ownerFileOf = (folder: string): string => join(folder, "owner.json");

/** Servers whose test process is gone: it was killed before it could clean up. */
async function removeLeftovers(parent: string, options: ServerOptions): Promise<void> {
  for (const name of await readdir(parent)) {
    const folder = join(parent, name);
    if (!name.startsWith("pg-") || isOwned(folder, name)) continue;
    await endServer(folder, options.clock);
    await rm(folder, { recursive: true, force: true });
  }
}

function isOwned(folder: string, name: string): boolean {
  try {
    return isAlive(
      processIdentitySchema.parse(JSON.parse(readFileSync(ownerFileOf(folder), "utf8"))),
    );
  } catch {
    // Still being created: the name says by whom.
    return identify(Number(name.split("-")[1])) !== undefined;
  }
}

/** Nothing may be awaited in an exit handler, so this is the blunt form of `stop`. */
function cleanUpOnExit(folder: string): () => void {
  const onExit = () => {
    try {
      process.kill(
        Number(readFileSync(join(folder, "postgres", "postmaster.pid"), "utf8").split("\n")[0]),
        "SIGQUIT",
      );
    } catch {
      // Not started, or gone already.
    }
    rmSync(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 });
  };
  const onSignal = (signal: NodeJS.Signals) => {
    onExit();
    process.kill(process.pid, signal);
  };
  process.once("exit", onExit);
  process.once("SIGINT", onSignal);
  process.once("SIGTERM", onSignal);
  return () => {
    process.off("exit", onExit);
    process.off("SIGINT", onSignal);
    process.off("SIGTERM", onSignal);
  };
}
