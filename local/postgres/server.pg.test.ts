/** A server of its own: what survives a crash, what is adopted, what keeps a start from failing. */
import { spawn } from "node:child_process";
import { chmod, cp, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { afterEach, beforeAll, beforeEach, describe, test } from "vitest";
import { systemClock } from "../../runtime/clock.ts";
import { systemRandom } from "../../runtime/random.ts";
import { childrenOf, identify, isAlive } from "../process-identity.ts";
import { findPostgres, type Installation } from "./binaries.ts";
import { identity } from "./command.ts";
import {
  dataDirOf,
  endServer,
  passwordFileOf,
  type ServerOptions,
  startServer,
  stopModes,
} from "./server.ts";
import { createFromTemplate, renewPassword } from "./template.ts";

const tools = { clock: systemClock, random: systemRandom };
const template = {
  content: "server.pg.test",
  build: async (url: (database?: string) => string) => {
    await query(url(), "create table kept (value text)");
  },
};

let installation: Installation;
let folder: string;
let options: ServerOptions;

beforeAll(async () => {
  installation = await findPostgres({ env: process.env, random: systemRandom });
});
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "cellfleet-server-"));
  await chmod(folder, 0o711);
  options = {
    folder: join(folder, "one"),
    name: "one",
    installation,
    clock: systemClock,
    random: systemRandom,
    logFile: join(folder, "one.log"),
    durable: false,
  };
  await createFromTemplate(options.folder, template, { installation, ...tools });
});
afterEach(async () => {
  await endServer(options.folder, systemClock);
  await rm(folder, { recursive: true, force: true });
});

async function query(url: string, text: string): Promise<Array<Record<string, unknown>>> {
  const client = new pg.Client(url);
  client.on("error", () => {});
  await client.connect();
  try {
    return (await client.query<Record<string, unknown>>(text)).rows;
  } finally {
    await client.end();
  }
}

const kept = (url: string) => query(url, "select value from kept order by value");

describe("a server", () => {
  test.for(stopModes)(
    "keeps its port and what was committed when stopped %s",
    async (mode, { expect }) => {
      const before = await startServer(options);
      await query(before.url(), "insert into kept values ('committed')");
      const children = childrenOf(before.pid);
      expect(children.length).toBeGreaterThan(0);
      await before.stop(mode);
      expect(children.filter(isAlive)).toEqual([]);
      const after = await startServer(options);
      expect([after.port, await kept(after.url())]).toEqual([
        before.port,
        [{ value: "committed" }],
      ]);
    },
  );

  test("lets nobody in without the password, also not for replication", async ({ expect }) => {
    const { port } = await startServer(options);
    for (const parameters of ["", "?replication=database"]) {
      const login = query(
        `postgres://postgres:guess@127.0.0.1:${port}/postgres${parameters}`,
        "select 1",
      );
      await expect(login).rejects.toMatchObject({ code: "28P01" });
    }
  });

  test("has a password of its own once it was renewed", async ({ expect }) => {
    const server = await startServer(options);
    const old = server.url();
    await renewPassword(options.folder, old, systemRandom);
    await expect(query(old, "select 1")).rejects.toMatchObject({ code: "28P01" });
    expect((await stat(passwordFileOf(options.folder))).mode & 0o777).toBe(0o600);
    expect(await kept((await startServer(options)).url())).toEqual([]);
  });

  test("that is running is adopted, not started twice", async ({ expect }) => {
    const first = await startServer(options);
    const again = await startServer(options);
    expect([again.pid, again.port]).toEqual([first.pid, first.port]);
    await again.stop("fast");
    await first.gone();
    expect(identify(first.pid)).toBeUndefined();
  });

  test("takes another port when somebody has its own", async ({ expect }) => {
    const first = await startServer(options);
    await first.stop("fast");
    const thief = createServer();
    await new Promise<void>((done) => thief.listen(first.port, "127.0.0.1", done));
    try {
      const second = await startServer(options);
      expect(second.port).not.toBe(first.port);
      expect(await kept(second.url())).toEqual([]);
    } finally {
      await new Promise((done) => thief.close(done));
    }
  });

  test("starts although a killed one left its file, and the pid is a stranger's now", async ({
    expect,
  }) => {
    const first = await startServer(options);
    const file = join(dataDirOf(options.folder), "postmaster.pid");
    const left = await readFile(file, "utf8");
    await first.stop("kill");
    // A living process of the same user: PostgreSQL itself would refuse to start.
    const stranger = spawn("sleep", ["600"], { stdio: "ignore", ...identity(installation.runAs) });
    try {
      await writeFile(file, left.replace(/^\d+/, String(stranger.pid)));
      const second = await startServer(options);
      expect(await kept(second.url())).toEqual([]);
      expect(stranger.exitCode).toBeNull();
    } finally {
      stranger.kill("SIGKILL");
    }
  });

  test("starts although its postmaster alone was killed and a busy child lives on", async ({
    expect,
  }) => {
    const first = await startServer(options);
    const busy = query(first.url(), "select pg_sleep(0), count(*) from generate_series(1, 1e12)");
    const ended = busy.catch((error: unknown) => error);
    let backend: number | undefined;
    while (backend === undefined) {
      const rows = await query(
        first.url(),
        "select pid from pg_stat_activity where query like '%generate_series%' and pid <> pg_backend_pid()",
      );
      backend = rows[0] === undefined ? undefined : Number(rows[0]["pid"]);
    }
    process.kill(first.pid, "SIGKILL");
    const second = await startServer(options);
    expect(identify(backend)).toBeUndefined();
    expect(await kept(second.url())).toEqual([]);
    expect(await ended).toBeInstanceOf(Error);
  });

  test("starts on files that were set back by a copy", async ({ expect }) => {
    const first = await startServer(options);
    await query(first.url(), "insert into kept values ('old')");
    await first.stop("fast");
    const dataDir = dataDirOf(options.folder);
    await cp(dataDir, `${dataDir}.copy`, { recursive: true, preserveTimestamps: true });
    await rm(dataDir, { recursive: true });
    await cp(`${dataDir}.copy`, dataDir, { recursive: true, preserveTimestamps: true });
    expect(await kept((await startServer(options)).url())).toEqual([{ value: "old" }]);
  });

  test("is another database than its sister from the same template, also after a crash", async ({
    expect,
  }) => {
    const sister = { ...options, folder: join(folder, "two"), logFile: join(folder, "two.log") };
    await createFromTemplate(sister.folder, template, { installation, ...tools });
    try {
      const identifiers: unknown[] = [];
      for (const one of [options, sister]) {
        const server = await startServer(one);
        await query(server.url(), "insert into kept values ('x')");
        await server.stop("immediate");
        const again = await startServer(one);
        expect(await kept(again.url())).toEqual([{ value: "x" }]);
        const [row] = await query(again.url(), "select system_identifier from pg_control_system()");
        identifiers.push(row?.["system_identifier"]);
      }
      expect(new Set(identifiers).size).toBe(2);
    } finally {
      await endServer(sister.folder, systemClock);
    }
  });

  test("says in its error why it did not start", async ({ expect }) => {
    await writeFile(join(dataDirOf(options.folder), "PG_VERSION"), "12\n");
    await expect(startServer(options)).rejects.toMatchObject({
      code: "CONFIG_INVALID",
      details: { log: expect.stringContaining("version 12") },
    });
  });
});
