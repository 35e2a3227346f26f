/** Whose PostgreSQL the control plane gets: the user's when it will do, else one of our own. */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { afterAll, afterEach, beforeAll, beforeEach, describe, test } from "vitest";
import { systemClock } from "../runtime/clock.ts";
import { systemRandom } from "../runtime/random.ts";
import { startTestPostgres, type TestPostgres } from "../tests/postgres.ts";
import { type ControlDatabase, openControlDatabase } from "./control-database.ts";
import { openDataFolder } from "./data-folder.ts";
import { findPostgres } from "./postgres/binaries.ts";

let theirs: TestPostgres;
let root: string;
let said: string[];
let opened: ControlDatabase | undefined;

beforeAll(async () => {
  theirs = await startTestPostgres();
});
afterAll(() => theirs?.stop());
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "cellfleet-control-"));
  said = [];
});
afterEach(async () => {
  await opened?.unit?.stop();
  opened = undefined;
  await rm(root, { recursive: true, force: true });
});

async function open(databaseUrl: string | undefined): Promise<string> {
  const installation = await findPostgres({ env: process.env, random: systemRandom });
  opened = await openControlDatabase({
    folder: await openDataFolder(root, installation.runAs, systemRandom),
    tools: { installation, clock: systemClock, random: systemRandom },
    databaseUrl,
    say: (line) => said.push(line),
    onChange: () => {},
  });
  return (await readFile(opened.urlFile, "utf8")).trim();
}

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

describe("the control plane's database", () => {
  test("is its own property, on a server of its own, and there again after a stop", async ({
    expect,
  }) => {
    const url = await open(undefined);
    await query(url, "create schema mine; create table mine.kept as select 1 as value");
    const [role] = await query(url, "select rolsuper from pg_roles where rolname = current_user");
    expect(role).toEqual({ rolsuper: false });
    await opened?.unit?.stop();
    expect(await open(undefined)).toBe(url);
    expect(await query(url, "select value from mine.kept")).toEqual([{ value: 1 }]);
  });

  test("is the one that DATABASE_URL names, when it will do", async ({ expect }) => {
    const url = await theirs.createDatabase("control");
    expect(await open(url)).toBe(url);
    expect(opened?.unit).toBeUndefined();
    expect(said.join()).toContain("the one that DATABASE_URL names");
    expect(said.join()).not.toContain(theirs.password);
  });

  test("is not one that cannot be reached or is not ready for replication", async ({ expect }) => {
    const gone = "postgres://postgres:secret@127.0.0.1:1/postgres";
    expect(await open(gone)).not.toBe(gone);
    expect(said.join()).toMatch(/DATABASE_URL is not used: it cannot be reached .*ECONNREFUSED/);
    expect(said.join()).not.toContain("secret");
    await opened?.unit?.stop();

    const [{ folder } = { folder: "" }] = await query(
      theirs.adminUrl,
      "select current_setting('data_directory') as folder",
    );
    // Read after our own settings, as an administrator's file would be.
    await writeFile(
      join(String(folder), "local.conf"),
      "wal_level = replica\nmax_wal_senders = 0\n",
      {
        mode: 0o644,
      },
    );
    await theirs.restart("fast");
    said = [];
    expect(await open(theirs.adminUrl)).not.toBe(theirs.adminUrl);
    expect(said.join()).toMatch(
      /PostgreSQL 18\S*\) runs with wal_level=replica instead of logical/,
    );
  });
});
