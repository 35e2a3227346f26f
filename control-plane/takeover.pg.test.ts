/**
 * Two control planes as processes, one database: one leads. kill -9 of the leader, and the other goes on
 * within seconds; a database that goes away and comes back ends neither.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { acceptedSchema, opSchema, statusSchema } from "../contract/control-api.ts";
import { CellError } from "../contract/errors.ts";
import { createJsonClient, type JsonClient } from "../runtime/http-client.ts";
import { startTestPostgres, type TestPostgres } from "../tests/postgres.ts";
import { eventually, fixtureKeys } from "./control.fixture.ts";
import { adminSecret } from "./plane.fixture.ts";

type Process = {
  readonly instance: string;
  readonly child: ChildProcess;
  readonly client: JsonClient;
  readonly admin: string;
  readonly ended: Promise<number | string | null>;
};

let postgres: TestPostgres;
let folder: string;
const processes: Process[] = [];

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === "object" && address !== null ? address.port : 0;
}

async function startProcess(instance: string): Promise<Process> {
  const [port, adminPort] = [await freePort(), await freePort()];
  const flags = {
    "--listen": `127.0.0.1:${port}`,
    "--admin": `127.0.0.1:${adminPort}`,
    "--database-url": `file:${join(folder, "database-url")}`,
    "--signing-key": join(folder, "signing-key"),
    "--bootstrap-token": `file:${join(folder, "token")}`,
  };
  const main = join(import.meta.dirname, "..", "cli", "main.ts");
  const child = spawn(process.execPath, [main, "control-plane", ...Object.entries(flags).flat()], {
    stdio: ["ignore", "ignore", "inherit"],
    env: { ...process.env, CELLFLEET_INSTANCE: instance },
  });
  const ended = new Promise<number | string | null>((resolve) => {
    child.once("exit", (code, signal) => resolve(signal ?? code));
  });
  const client = createJsonClient({
    origin: `http://127.0.0.1:${port}`,
    token: adminSecret,
    unreachable: "CONTROL_PLANE_UNREACHABLE",
  });
  const started = { instance, child, client, ended, admin: `http://127.0.0.1:${adminPort}` };
  processes.push(started);
  return started;
}

const status = (one: Process) =>
  one.client.call({ method: "GET", path: "/v1/status", schema: statusSchema, timeoutMs: 10_000 });
/** Undefined while it does not answer. */
const quietStatus = async (one: Process) => {
  try {
    return await status(one);
  } catch (error) {
    if (error instanceof CellError) return undefined;
    throw error;
  }
};
/** The status in which somebody leads. */
const led = (one: Process) =>
  eventually(
    () => quietStatus(one),
    (now) => now !== undefined && now.leader !== null,
  );

beforeAll(async () => {
  postgres = await startTestPostgres();
  folder = await mkdtemp(join(tmpdir(), "cellfleet-takeover-"));
  await writeFile(join(folder, "database-url"), await postgres.createDatabase("takeover"));
  await writeFile(join(folder, "signing-key"), JSON.stringify(fixtureKeys.privateKey));
  await writeFile(join(folder, "token"), adminSecret);
  // At the same time: both migrate an empty database.
  await Promise.all([startProcess("one"), startProcess("two")]);
});
afterAll(async () => {
  for (const { child, client } of processes) {
    child.kill("SIGKILL");
    await client.close();
  }
  await Promise.all(processes.map(({ ended }) => ended));
  await postgres?.stop();
  if (folder !== undefined) await rm(folder, { recursive: true, force: true });
});

const pick = (self: boolean, said: ReadonlyArray<readonly [Process, boolean]>): Process => {
  const found = said.find(([, is]) => is === self)?.[0];
  if (found === undefined) throw new Error(`no process with self = ${self}`);
  return found;
};

test("one of two leads; kill -9 of it, and the other goes on with what was begun", async () => {
  const [one, two] = processes;
  if (one === undefined || two === undefined) throw new Error("two processes");
  const said = [
    [one, (await led(one))?.leader?.self === true],
    [two, (await led(two))?.leader?.self === true],
  ] as const;
  expect(said.filter(([, self]) => self)).toHaveLength(1);
  const leader = pick(true, said);
  const other = pick(false, said);
  // Recorded by the one that does not lead, begun by the one that does: it waits for an agent.
  const { op } = await other.client.call({
    method: "POST",
    path: "/v1/cells",
    body: { id: "cell-01", provider: "none" },
    schema: acceptedSchema,
    timeoutMs: 10_000,
  });
  const readOp = () =>
    other.client.call({
      method: "GET",
      path: `/v1/ops/${op.id}`,
      schema: opSchema,
      timeoutMs: 10_000,
    });
  await eventually(readOp, ({ step }) => step === "opening");
  const before = await status(other);
  leader.child.kill("SIGKILL");
  expect(await leader.ended).toBe("SIGKILL");
  const after = await eventually(
    () => status(other),
    (now) => now.leader?.self === true,
  );
  expect(after.leader?.term).toBeGreaterThan(before.leader?.term ?? 0);
  const { op: cordon } = await other.client.call({
    method: "POST",
    path: "/v1/keyspaces",
    body: { name: "more", strategy: "directory" },
    schema: acceptedSchema,
    timeoutMs: 10_000,
  });
  const done = await eventually(
    () =>
      other.client.call({
        method: "GET",
        path: `/v1/ops/${cordon.id}`,
        schema: opSchema,
        timeoutMs: 10_000,
      }),
    ({ state }) => state !== "running",
  );
  expect(done.state).toBe("done");
  expect((await readOp()).state).toBe("running");
});

test("a database that crashes and returns ends no control plane; meanwhile the answer says so", async () => {
  const one = await startProcess("three");
  await led(one);
  await postgres.halt("immediate");
  const refused = await eventually(
    async () => {
      try {
        await status(one);
        return "";
      } catch (error) {
        return error instanceof CellError ? error.code : "";
      }
    },
    (code) => code === "CONTROL_PLANE_UNREACHABLE",
  );
  expect(refused).toBe("CONTROL_PLANE_UNREACHABLE");
  expect((await fetch(`${one.admin}/livez`)).status).toBe(200);
  await postgres.restart("immediate");
  const back = await led(one);
  expect(back?.mode).toBe("normal");
  expect(one.child.exitCode).toBeNull();
});

test("without a provider a cell of one is refused at once, with the way out", async () => {
  const last = processes.at(-1);
  if (last === undefined) throw new Error("a process");
  const create = last.client.call({
    method: "POST",
    path: "/v1/cells",
    body: { id: "cell-09" },
    schema: acceptedSchema,
    timeoutMs: 10_000,
  });
  await expect(create).rejects.toMatchObject({
    code: "STATE_CONFLICT",
    nextSteps: [expect.stringContaining("--provider none")],
  });
});

test("told to stop it stops, and the seat is free at once", async () => {
  const last = processes.at(-1);
  if (last === undefined) throw new Error("a process");
  last.child.kill("SIGTERM");
  expect(await last.ended).toBe(0);
});
