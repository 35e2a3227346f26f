/**
 * A local fleet whose control plane stands still where it is told. All processes are those of
 * `cellctl dev`, but for the control plane: it is taken out of the supervisor's hands and started by the
 * harness on the same ports, the same database and with the same flags.
 */
import { type ChildProcess, fork } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import pg from "pg";
import { z } from "zod";
import { childrenOf } from "../../local/process-identity.ts";
import { startFleet, type TestFleet, until } from "../fleet.ts";
import { type Boundary, type Order, reportSchema } from "./boundary.ts";

export type StoppingControlPlane = {
  readonly start: () => Promise<void>;
  readonly kill: () => Promise<void>;
  /** Resolves when it stands at this boundary, for the first time from now on. */
  readonly standAt: (at: Boundary) => Promise<void>;
  readonly goOn: () => void;
  readonly log: () => string;
};

export type StoppingFleet = TestFleet & {
  readonly control: StoppingControlPlane;
  /** SIGKILL to a process of the supervisor's, such as `cell-01-app`. */
  readonly killProcess: (name: string) => Promise<void>;
  /** As the superuser of a cell's database. */
  readonly inCell: <T>(cell: string, work: (client: pg.Client) => Promise<T>) => Promise<T>;
  /** SIGKILL to the postmaster and all of its children: a crash. */
  readonly killDatabase: (cell: string) => Promise<void>;
};

const entry = resolve(import.meta.dirname, "stopping-control-plane.ts");
const noteSchema = z.object({ pid: z.number() });
const standsWithinMs = 120_000;

export async function startStoppingFleet(cells: number): Promise<StoppingFleet> {
  const fleet = await startFleet({ cells, flags: ["--no-demo"] });
  const control = await takeControl(fleet).catch(async (error: unknown) => {
    await fleet.stop();
    throw error;
  });
  const stop = async () => {
    await control.kill();
    await fleet.stop();
  };
  return {
    ...fleet,
    ...{ control, stop },
    inCell: (cell, work) => asSuperuser(fleet, cell, work),
    killProcess: async (name) => {
      process.kill(await pidOf(fleet, name), "SIGKILL");
    },
    killDatabase: (cell) => killServer(join(fleet.dataDir, "cells", cell)),
  };
}

/** The control plane of a fleet that runs, out of its supervisor's hands. Who takes it ends it. */
export async function takeControl(fleet: TestFleet): Promise<StoppingControlPlane> {
  const pid = await pidOf(fleet, "control-plane");
  const words = (await readFile(`/proc/${pid}/cmdline`, "utf8")).split("\0");
  // What Node was told, the program and its command come before.
  const flags = words.slice(words.indexOf("control-plane") + 1).filter((word) => word !== "");
  const control = createControl(flags);
  await fleet.cli("dev", "stop", "control-plane");
  try {
    await control.start();
  } catch (error) {
    await control.kill();
    throw error;
  }
  return control;
}

function createControl(flags: readonly string[]): StoppingControlPlane {
  let child: ChildProcess | undefined;
  let log = "";
  let onStanding: () => void = () => {};
  const tell = (order: Order) => child?.send(order);
  return {
    start: async () => {
      const fresh = fork(entry, flags, { stdio: ["ignore", "pipe", "pipe", "ipc"] });
      child = fresh;
      const note = (chunk: Buffer) => {
        log += chunk.toString("utf8");
      };
      fresh.stdout?.on("data", note);
      fresh.stderr?.on("data", note);
      await new Promise<void>((started, failed) => {
        fresh.once("exit", (code) => failed(new Error(`it ended with ${code}\n${log}`)));
        fresh.on("message", (message) => {
          if (reportSchema.parse(message).kind === "started") started();
          else onStanding();
        });
      });
    },
    kill: async () => {
      const gone = child;
      child = undefined;
      if (gone === undefined || gone.exitCode !== null || gone.signalCode !== null) return;
      const ended = new Promise((done) => gone.once("exit", done));
      gone.kill("SIGKILL");
      await ended;
    },
    standAt: async (at) => {
      let stands = false;
      onStanding = () => {
        stands = true;
      };
      tell({ kind: "stop-at", at });
      await until(`${at.step}, ${at.when}`, () => stands, standsWithinMs);
    },
    goOn: () => tell({ kind: "go-on" }),
    log: () => log,
  };
}

async function pidOf({ dataDir }: TestFleet, name: string): Promise<number> {
  const file = join(dataDir, "processes", `${name}.json`);
  return noteSchema.parse(JSON.parse(await readFile(file, "utf8"))).pid;
}

async function asSuperuser<T>(
  fleet: TestFleet,
  cell: string,
  work: (client: pg.Client) => Promise<T>,
): Promise<T> {
  const { cells } = await fleet.endpoints();
  const url = new URL(cells[cell]?.database ?? "");
  url.username = "postgres";
  url.password = (await readFile(join(fleet.dataDir, "cells", cell, "password"), "utf8")).trim();
  const client = new pg.Client(url.href);
  client.on("error", () => {}); // The query that is under way fails and says so.
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

async function killServer(folder: string): Promise<void> {
  const file = join(folder, "postgres", "postmaster.pid");
  const pid = Number((await readFile(file, "utf8")).split("\n")[0]);
  for (const one of [{ pid }, ...childrenOf(pid)]) {
    try {
      process.kill(one.pid, "SIGKILL");
    } catch {
      // Gone with its postmaster.
    }
  }
}
