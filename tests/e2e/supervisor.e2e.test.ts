/** The supervisor of `cellctl dev` is one process as any other: refused twice, killed, half broken. */
import { readdir, readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { afterEach, describe, test } from "vitest";
import {
  identify,
  isAlive,
  type ProcessIdentity,
  processIdentitySchema,
} from "../../local/process-identity.ts";
import { startFleet, type TestFleet, until } from "../fleet.ts";

let fleet: TestFleet | undefined;
afterEach(async () => {
  await fleet?.stop();
  fleet = undefined;
});

type Process = { id: string; state: string; pid: number | null };

async function processes(of: TestFleet): Promise<Map<string, Process>> {
  const { items } = (await of.cliJson("dev", "ps")) as { items: Process[] };
  return new Map(items.map((one) => [one.id, one]));
}

async function supervisorOf(of: TestFleet): Promise<number> {
  const note = JSON.parse(await readFile(join(of.dataDir, "supervisor.json"), "utf8"));
  return Number((note as { pid: number }).pid);
}

/** A zombie that waits to be reaped is gone, and so is a process whose pid another one has now. */
const isRunning = (process: ProcessIdentity | undefined): boolean =>
  process !== undefined && isAlive(process);

describe("the supervisor", () => {
  test("has its folder alone; killed, its fleet goes on, and the next one takes it over", async ({
    expect,
  }) => {
    fleet = await startFleet({ cells: 1 });
    const { cli, ask, dataDir } = fleet;
    const second = await cli(
      "dev",
      "--port",
      "0",
      "--admin-port",
      "0",
      "--control-plane-port",
      "0",
    );
    expect([second.code, second.stderr]).toEqual([6, expect.stringContaining(dataDir)]);

    const made = await ask("acme", "POST", "/orders", { item: "before", quantity: 1 });
    const old = await processes(fleet);
    const before = new Map([...old].map(([name, { pid }]) => [name, identify(pid ?? 0)]));
    const supervisor = await supervisorOf(fleet);
    const identity = identify(supervisor);
    process.kill(supervisor, "SIGKILL");
    await until("it is gone", () => !isRunning(identity));
    expect((await ask("acme", "GET", "/whoami")).status).toBe(200);

    await fleet.start();
    const listed = await ask("acme", "GET", "/orders");
    expect(listed.json["items"]).toMatchObject([{ id: made.json["id"] }]);
    const now = await processes(fleet);
    expect([...now.values()].map((one) => one.state)).toEqual(Array(old.size).fill("running"));
    // Servers were taken over as they were; what could not be asked any more was ended and begun anew.
    for (const [name, { pid }] of old) {
      if (name.endsWith("-db")) expect([name, now.get(name)?.pid]).toEqual([name, pid]);
      else expect([name, isRunning(before.get(name))]).toEqual([name, false]);
    }
  });

  test("starts control plane and router again when they die, and a cell never", async ({
    expect,
  }) => {
    fleet = await startFleet({ cells: 1 });
    const running = fleet;
    const before = await processes(running);
    for (const name of ["control-plane", "router-01", "cell-01-app"]) {
      process.kill(before.get(name)?.pid ?? 0, "SIGKILL");
    }
    await until("control plane and router run again", async () => {
      const now = await processes(running);
      return ["control-plane", "router-01"].every(
        (name) =>
          now.get(name)?.state === "running" && now.get(name)?.pid !== before.get(name)?.pid,
      );
    });
    expect((await processes(running)).get("cell-01-app")).toMatchObject({ state: "dead" });
  });

  test("brings the others up when one cell's database is broken", async ({ expect }) => {
    fleet = await startFleet({ cells: 2 });
    const { cells } = await fleet.endpoints();
    expect(Object.keys(cells)).toEqual(["cell-01", "cell-02"]);
    await fleet.cliJson("tenant", "create", "lucky", "--cell", "cell-01", "--wait");
    await fleet.shutDown();
    const version = join(fleet.dataDir, "cells", "cell-02", "postgres", "PG_VERSION");
    const right = await readFile(version, "utf8");
    await writeFile(version, "12\n");
    await fleet.start();
    expect((await fleet.ask("lucky", "GET", "/whoami")).json).toMatchObject({ cell: "cell-01" });
    expect((await processes(fleet)).get("cell-02-db")).toMatchObject({ state: "dead" });
    await writeFile(version, right);
    await fleet.cliJson("cell", "start", "cell-02", "--wait");
  });

  test("names the port that is taken, and the flag that chooses another", async ({ expect }) => {
    const other = createServer();
    await new Promise<void>((listening) => other.listen(0, "127.0.0.1", listening));
    const address = other.address();
    const port = typeof address === "object" ? String(address?.port) : "";
    try {
      const start = startFleet({ cells: 1, flags: ["--port", port] });
      await expect(start).rejects.toThrow(new RegExp(`port ${port} \\(--port\\) is taken`));
    } finally {
      await new Promise((closed) => other.close(closed));
    }
  });

  test("ends with its processes while they are still starting", async ({ expect }) => {
    fleet = await startFleet({ cells: 1, flags: ["--no-demo"] });
    await fleet.shutDown();
    const begun = fleet.start().catch((error: unknown) => String(error));
    const running = fleet;
    await until("it has begun", async () => {
      const note = await readFile(join(running.dataDir, "supervisor.json"), "utf8").catch(() => "");
      return note.includes("door");
    });
    const supervisor = identify(await supervisorOf(running));
    await running.shutDown();
    expect(isRunning(supervisor)).toBe(false);
    expect(await begun).toMatch(/ended before it was ready|undefined/);
    const notes = join(running.dataDir, "processes");
    for (const file of (await readdir(notes)).filter((name) => name.endsWith(".json"))) {
      const note: unknown = JSON.parse(await readFile(join(notes, file), "utf8"));
      const { pid, startedAt } = processIdentitySchema.parse(note);
      expect([file, isRunning({ pid, startedAt })]).toEqual([file, false]);
    }
  });
});
