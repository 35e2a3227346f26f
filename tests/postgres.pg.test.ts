/** The PostgreSQL of tests cleans up after itself, and after test runs that could not. */
import { spawn } from "node:child_process";
import pg from "pg";
import { afterAll, beforeAll, describe, test } from "vitest";
import { identify } from "../local/process-identity.ts";
import { startTestPostgres, type TestPostgres } from "./postgres.ts";

let server: TestPostgres;
beforeAll(async () => {
  server = await startTestPostgres();
});
afterAll(() => server?.stop());

async function scalar(url: string, text: string): Promise<unknown> {
  const client = new pg.Client(url);
  client.on("error", () => {});
  await client.connect();
  try {
    const { rows } = await client.query<{ value: unknown }>(text);
    return rows[0]?.value;
  } finally {
    await client.end();
  }
}

/** Another test run, which starts a server and says which. */
async function otherRun() {
  const module = new URL("postgres.ts", import.meta.url).href;
  const script = `
    const { startTestPostgres } = await import(${JSON.stringify(module)});
    console.log((await startTestPostgres()).adminUrl);
    setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", script], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const url = await new Promise<string>((resolve) => {
    child.stdout.once("data", (chunk: Buffer) => resolve(chunk.toString("utf8").trim()));
  });
  const postmaster = Number(
    await scalar(
      url,
      "select (regexp_match(pg_read_file('postmaster.pid'), '^[0-9]+'))[1]::int as value",
    ),
  );
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  return { child, ended, postmaster };
}

describe("a test's PostgreSQL", () => {
  test("makes databases, and keeps port and data through a crash", async ({ expect }) => {
    const url = await server.createDatabase("o'clock");
    await scalar(url, "create table t as select 7 as value");
    await server.restart("kill");
    expect(await scalar(url, "select value from t")).toBe(7);
  });

  test("lets a role in by the server's password", async ({ expect }) => {
    await scalar(server.adminUrl, `create role visitor login password '${server.password}'`);
    const url = server.url("postgres", "visitor");
    expect(await scalar(url, "select current_user::text as value")).toBe("visitor");
  });

  test("is gone when its run is interrupted", async ({ expect }) => {
    const { child, ended, postmaster } = await otherRun();
    child.kill("SIGINT");
    await ended;
    while (identify(postmaster) !== undefined) await new Promise((again) => setTimeout(again, 10));
    expect(identify(postmaster)).toBeUndefined();
  });

  test("is removed by the next run when its own was killed", async ({ expect }) => {
    const { child, ended, postmaster } = await otherRun();
    child.kill("SIGKILL");
    await ended;
    expect(identify(postmaster)).toBeDefined();
    const next = await startTestPostgres();
    await next.stop();
    expect(identify(postmaster)).toBeUndefined();
  });
});
