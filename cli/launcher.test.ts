/** The launcher as a user starts it: by an old Node, from elsewhere, interrupted, and without any Node that fits. */
import { spawn, spawnSync } from "node:child_process";
import { copyFile, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";

const launcher = resolve(import.meta.dirname, "..", "bin", "cellctl.js");
/** This Node says that it is an old one, before the launcher is loaded. */
const old = [
  "--import",
  "data:text/javascript,Object.defineProperty(process,'version',{value:'v20.20.2'})",
];
let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "cellctl-launcher-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const start = (nodeArgs: readonly string[], file: string, ...args: readonly string[]) =>
  spawnSync(process.execPath, [...nodeArgs, file, ...args], { cwd: folder, encoding: "utf8" });

// Each starts one to three processes, on a machine that may be busy with others.
describe("bin/cellctl.js", { timeout: 60_000 }, () => {
  test.each([
    ["a new Node", []],
    ["an old Node", old],
  ])("started by %s, from another folder: same output, same exit code", (_name, nodeArgs) => {
    const version = start(nodeArgs, launcher, "version", "--client", "-o", "json");
    expect({ status: version.status, stderr: version.stderr }).toEqual({ status: 0, stderr: "" });
    expect(JSON.parse(version.stdout)).toMatchObject({ contract: expect.any(Number) });
    const missing = start(nodeArgs, launcher, "explain", "nonsense");
    expect(missing.status).toBe(5);
    expect(missing.stderr).toContain("[KIND_UNKNOWN]");
  });

  test("without a Node that fits says so, and what to do", async () => {
    await mkdir(join(folder, "bin"));
    const copy = join(folder, "bin", "cellctl.js");
    await copyFile(launcher, copy);
    await writeFile(join(folder, "package.json"), '{"type":"module"}');
    const { status, stdout, stderr } = start(old, copy, "status");
    expect({ status, stdout }).toEqual({ status: 78, stdout: "" });
    expect(stderr).toContain("needs Node 24.18.0 or newer; this is v20.20.2");
    expect(stderr).toContain("npm ci");
  });

  test("passes a signal on, and keeps the exit code that follows from it", async () => {
    await mkdir(join(folder, "bin"));
    await mkdir(join(folder, "cli"));
    await mkdir(join(folder, "node_modules", "node", "bin"), { recursive: true });
    const copy = join(folder, "bin", "cellctl.js");
    await copyFile(launcher, copy);
    await writeFile(join(folder, "package.json"), '{"type":"module"}');
    await writeFile(join(folder, "node_modules", "node", "package.json"), '{"name":"node"}');
    const { symlink } = await import("node:fs/promises");
    await symlink(process.execPath, join(folder, "node_modules", "node", "bin", "node"));
    await writeFile(
      join(folder, "cli", "main.ts"),
      "process.on('SIGTERM', () => process.exit(43)); setInterval(() => {}, 1000); console.log('up');",
    );
    const child = spawn(process.execPath, [...old, copy], {
      cwd: folder,
      stdio: ["ignore", "pipe", "inherit"],
    });
    const ended = new Promise((gone) => child.once("exit", (code) => gone(code)));
    await new Promise((up) => child.stdout.once("data", up));
    child.kill("SIGTERM");
    expect(await ended).toBe(43);
  });

  test("a reader that goes away is no error", () => {
    const { status, stdout } = spawnSync(
      "bash",
      ["-c", `set -o pipefail; "${process.execPath}" "${launcher}" --help | head -n 1`],
      { encoding: "utf8" },
    );
    expect({ status, stdout }).toEqual({ status: 0, stdout: expect.stringContaining("Usage") });
  });
});
