/** Finding a PostgreSQL under the conditions that npm and administrators really make. */
import { chmod, cp, lstat, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, test } from "vitest";
import { systemRandom } from "../../runtime/random.ts";
import { type Binaries, findPostgres } from "./binaries.ts";
import { runCommand } from "./command.ts";
import { machineFolder } from "./machine-folder.ts";

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "cellfleet-binaries-"));
  await chmod(folder, 0o755);
});
afterEach(async () => {
  await chmod(folder, 0o755);
  await rm(folder, { recursive: true, force: true });
});

const options = { env: process.env, random: systemRandom };
const binariesIn = (native: string): Binaries => ({
  postgres: join(native, "bin", "postgres"),
  initdb: join(native, "bin", "initdb"),
});

/** The package as npm unpacks it when it may not run scripts: without links. */
async function unlinkedPackage(): Promise<string> {
  const { postgres } = await findPostgres(options);
  const native = join(folder, "native");
  await cp(join(postgres, "..", ".."), native, { recursive: true, verbatimSymlinks: true });
  const links = JSON.parse(await readFile(join(native, "pg-symlinks.json"), "utf8")) as Array<{
    target: string;
  }>;
  for (const { target } of links) await rm(join(folder, target), { force: true });
  return native;
}

const runs = async (program: string) =>
  (await runCommand(program, ["--version"], { runAs: undefined, env: {} })).code === 0;

async function fakePostgres(version: string): Promise<string> {
  const bin = join(folder, "bin");
  await mkdir(bin, { recursive: true });
  for (const name of ["postgres", "initdb"]) {
    await writeFile(join(bin, name), `#!/bin/sh\necho "${name} (PostgreSQL) ${version}"\n`, {
      mode: 0o755,
    });
  }
  return bin;
}

describe("the PostgreSQL that npm brought", () => {
  test("is found and is new enough", async ({ expect }) => {
    const found = await findPostgres(options);
    expect(found.origin).toContain("npm package");
    expect(found.major).toBeGreaterThanOrEqual(18);
    expect(found.runAs === undefined).toBe(process.getuid?.() !== 0);
  });

  test("gets its library links when no script made them", async ({ expect }) => {
    const native = await unlinkedPackage();
    expect(await runs(join(native, "bin", "initdb"))).toBe(false);
    const found = await findPostgres({ ...options, embedded: async () => binariesIn(native) });
    expect(found.postgres).toBe(join(native, "bin", "postgres"));
    expect(await runs(found.initdb)).toBe(true);
  });

  test("is copied to where the server's user can reach it", async ({ expect }) => {
    const native = await unlinkedPackage();
    // Root passes everywhere, the server's user does not; an ordinary user cannot write the links.
    const root = process.getuid?.() === 0;
    if (root) await chmod(folder, 0o700);
    else await chmod(join(native, "lib"), 0o555);
    const found = await findPostgres({ ...options, embedded: async () => binariesIn(native) });
    const cache = await machineFolder(found.runAs);
    expect(found.postgres.startsWith(cache)).toBe(true);
    expect((await lstat(found.postgres)).mode & 0o777).toBe(0o755);
    await chmod(join(native, "lib"), 0o755);
    await rm(join(found.postgres, "..", "..", ".."), { recursive: true });
  });
});

describe("without a package for this platform", () => {
  const none = { ...options, embedded: async () => undefined, places: [] };

  test("a new enough PostgreSQL on the PATH will do", async ({ expect }) => {
    const bin = await fakePostgres("17.2 (Debian 17.2-1)");
    const found = await findPostgres({ ...none, env: { PATH: bin } });
    expect([found.major, found.version, found.origin]).toEqual([17, "17.2", bin]);
  });

  test("an older one is refused by name", async ({ expect }) => {
    const bin = await fakePostgres("15.9");
    const search = findPostgres({ ...none, env: { PATH: bin } });
    await expect(search).rejects.toMatchObject({
      code: "CONFIG_INVALID",
      message: expect.stringContaining(`${bin}: PostgreSQL 15.9 is older than 16`),
    });
  });
});
