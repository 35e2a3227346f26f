/** Which fleet is meant: what wins over what, and that an address and a token never come from two places. */
import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { cellctl, startStub } from "./cli.fixture.ts";
import { contextFilePath } from "./contexts.ts";
import { findFleet } from "./fleet.ts";

// Real sockets on a machine that may be busy with other things.
vi.setConfig({ testTimeout: 30_000 });

let home: string;
beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), "cellctl-home-"));
});
afterEach(() => rm(home, { recursive: true, force: true }));

const endpoints = (port: number) => ({
  router: "http://127.0.0.1:1",
  routerAdmin: "http://127.0.0.1:2",
  controlPlane: `http://127.0.0.1:${port}`,
  cells: {},
});

async function folder(name: string, port: number, token?: string): Promise<string> {
  const path = join(home, name);
  await mkdir(join(path, "secrets"), { recursive: true });
  await writeFile(join(path, "endpoints.json"), JSON.stringify(endpoints(port)));
  if (token !== undefined) await writeFile(join(path, "secrets", "cli-token"), `${token}\n`);
  return path;
}

const find = (flags: { context?: string; data?: string } = {}, env: Record<string, string> = {}) =>
  findFleet({ env, home, cwd: home }, flags);

const set = (name: string, port: number, ...more: string[]) =>
  cellctl(["context", "set", name, "--addr", `http://127.0.0.1:${port}`, ...more], {
    home,
    cwd: home,
  });

describe("the order of places", () => {
  test("flags, environment, context, folder: each hides the next", async () => {
    await folder(".cellfleet", 5001, "of-folder");
    expect(await find()).toMatchObject({ origin: "http://127.0.0.1:5001", token: "of-folder" });

    await writeFile(join(home, "token"), "of-context\n");
    await set("prod", 5002, "--token-file", "token");
    expect(await find()).toMatchObject({ origin: "http://127.0.0.1:5002", token: "of-context" });

    const other = await folder("other", 5003, "of-other");
    const env = { CELLFLEET_DATA: other };
    expect(await find({}, env)).toMatchObject({ origin: "http://127.0.0.1:5003" });
    const named = { ...env, CELLCTL_CONTEXT: "prod" };
    expect(await find({}, named)).toMatchObject({ origin: "http://127.0.0.1:5002" });
    const address = { ...named, CELLCTL_ADDR: "http://127.0.0.1:5004/", CELLCTL_TOKEN: "of-env" };
    expect(await find({}, address)).toMatchObject({
      origin: "http://127.0.0.1:5004",
      token: "of-env",
    });
    expect(await find({ data: "other" }, address)).toMatchObject({ token: "of-other" });
    expect(await find({ context: "prod" }, address)).toMatchObject({
      token: "of-context",
    });
  });

  test("a context without a token file takes the token of the environment", async () => {
    await set("bare", 5005);
    expect(await find({}, { CELLCTL_TOKEN: "of-env" })).toMatchObject({ token: "of-env" });
    await expect(find()).rejects.toMatchObject({ code: "TOKEN_MISSING" });
  });

  test("an address without a token does not borrow another fleet's", async () => {
    await folder(".cellfleet", 5001, "of-folder");
    await expect(find({}, { CELLCTL_ADDR: "http://127.0.0.1:9" })).rejects.toMatchObject({
      code: "TOKEN_MISSING",
    });
  });
});

describe("what is missing is said, with the way out", () => {
  test("no fleet at all: exit 69 and two ways", async () => {
    const { code, stdout, stderr } = await cellctl(["status"], { home, cwd: home });
    expect({ code, stdout }).toEqual({ code: 69, stdout: "" });
    expect(stderr).toContain("[FLEET_NOT_FOUND]");
    expect(stderr).toContain("cellctl dev ");
    expect(stderr).toContain("cellctl context set ");
  });

  test("a folder without a token, or with something else in it", async () => {
    await folder("tokenless", 5001);
    await expect(find({ data: "tokenless" })).rejects.toMatchObject({ code: "TOKEN_MISSING" });
    const broken = await folder("broken", 5001, "x");
    await writeFile(join(broken, "endpoints.json"), '{"router": 1}');
    await expect(find({ data: "broken" })).rejects.toMatchObject({ code: "CONFIG_INVALID" });
  });

  test("a fleet whose control plane does not answer: exit 69", async () => {
    const dead = await folder("dead", 9, "x");
    const run = () => cellctl(["status", "--data", "dead"], { home, cwd: home });
    const gone = await run();
    expect(gone.code).toBe(69);
    expect(gone.stderr).toContain(`[CONTROL_PLANE_UNREACHABLE]: no fleet runs in ${dead}`);
    expect(gone.stderr).toContain(`Next: cellctl dev --data ${dead}\n`);
    expect(gone.stderr).not.toContain("serve");

    const supervisor = await startStub({});
    try {
      const note = JSON.stringify({ door: supervisor.origin });
      await writeFile(join(dead, "supervisor.json"), note);
      const { code, stderr } = await run();
      expect(code).toBe(69);
      expect(stderr).toContain("ECONNREFUSED");
      expect(stderr).toContain("routers and cells do not need it to serve");
      expect(stderr).toContain(`Next: cellctl dev start control-plane --data ${dead}\n`);
      expect(stderr).toContain("cellctl dev ps");
      // It would be refused with how to stop the fleet, which is well.
      expect(stderr).not.toContain("cellctl dev --data");
      expect(stderr).toMatch(/cellctl top --router-admin http.*\n/);
    } finally {
      await supervisor.close();
    }
    // The note is still there, and nobody behind it.
    expect((await run()).stderr).toContain(`no fleet runs in ${dead}`);
  });

  test("an address that is none", async () => {
    const env = { CELLCTL_ADDR: "localhost:8090", CELLCTL_TOKEN: "x" };
    expect((await cellctl(["status"], { env, home, cwd: home })).code).toBe(78);
  });
});

test("a token that would travel in the clear is warned about, once, and not on this machine", async () => {
  const over = async (addr: string) => {
    const env = { CELLCTL_ADDR: addr, CELLCTL_TOKEN: "x" };
    const ended = new AbortController();
    ended.abort(); // Nothing is sent: only the warning counts.
    const { stderr } = await cellctl(["status"], {
      env,
      home,
      cwd: home,
      interrupted: ended.signal,
    });
    return stderr.split("in the clear").length - 1;
  };
  expect(await over("http://control.example")).toBe(1);
  for (const addr of [
    "https://control.example",
    "http://127.0.0.1:9",
    "http://localhost:9",
    "http://[::1]:9",
  ]) {
    expect(await over(addr)).toBe(0);
  }
});

describe("contexts", () => {
  test("are listed, used, forgotten; the first becomes current", async () => {
    await set("one", 5001);
    await set("two", 5002, "--token-file", "/t");
    const list = async () =>
      JSON.parse((await cellctl(["context", "ls", "-o", "json"], { home, cwd: home })).stdout);
    expect(await list()).toEqual({
      items: [
        { id: "one", addr: "http://127.0.0.1:5001", tokenFile: null, current: true },
        { id: "two", addr: "http://127.0.0.1:5002", tokenFile: "/t", current: false },
      ],
      next: null,
    });
    expect((await cellctl(["context", "use", "two"], { home, cwd: home })).code).toBe(0);
    expect((await cellctl(["context", "rm", "one"], { home, cwd: home })).code).toBe(0);
    expect((await list()).items).toMatchObject([{ id: "two", current: true }]);
    const unknown = await cellctl(["context", "use", "thre"], { home, cwd: home });
    expect(unknown.code).toBe(78);
    expect(unknown.stderr).toContain("cellctl context use two");
  });

  test("keep a token from standard input in a file of its own, for its owner alone", async () => {
    const options = { home, cwd: home, stdin: "s3cret\n" };
    const args = ["context", "set", "prod", "--addr", "http://127.0.0.1:5001", "--token-stdin"];
    expect((await cellctl(args, options)).code).toBe(0);
    const config = contextFilePath({ env: {}, home });
    expect(await readFile(config, "utf8")).not.toContain("s3cret");
    expect((await stat(config)).mode & 0o777).toBe(0o600);
    const token = join(home, ".config", "cellctl", "tokens", "prod");
    expect((await stat(token)).mode & 0o777).toBe(0o600);
    expect(await find()).toMatchObject({ token: "s3cret" });
  });

  test("refuse a name that is a path, and a file that is broken", async () => {
    expect((await set("../evil", 5001)).code).toBe(64);
    await mkdir(join(home, ".config", "cellctl"), { recursive: true });
    await writeFile(join(home, ".config", "cellctl", "config.yaml"), "contexts: [1, 2]\n");
    expect((await cellctl(["context", "ls"], { home, cwd: home })).code).toBe(78);
  });

  test("lie where XDG and CELLCTL_CONFIG say", () => {
    expect(contextFilePath({ env: { XDG_CONFIG_HOME: "/x" }, home: "/h" })).toBe(
      "/x/cellctl/config.yaml",
    );
    expect(contextFilePath({ env: { XDG_CONFIG_HOME: "relative" }, home: "/h" })).toBe(
      "/h/.config/cellctl/config.yaml",
    );
    expect(contextFilePath({ env: { CELLCTL_CONFIG: "/c.yaml" }, home: "/h" })).toBe("/c.yaml");
  });
});
