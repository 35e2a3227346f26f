/** Processes that are ended by somebody who has nothing else left to do: a supervisor on its way out. */
import { execFile } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { getPriority, tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { systemClock } from "../runtime/clock.ts";
import { launchNode } from "./node-process.ts";

const at = (file: string) => JSON.stringify(pathToFileURL(join(import.meta.dirname, file)).href);

/** Starts one, kills it, and says so. */
const script = (folder: string) => `
  const { launchNode } = await import(${at("node-process.ts")});
  const { systemClock } = await import(${at("../runtime/clock.ts")});
  const child = await launchNode({
    name: "idle", args: ["-e", "setInterval(() => {}, 1000)"], env: {}, clock: systemClock, graceMs: 1000,
    folders: { logs: ${JSON.stringify(folder)}, notes: ${JSON.stringify(folder)} },
    isReady: async () => true,
  });
  await child.kill();
  console.log("killed " + await child.gone);
`;

test("whoever kills the last process that it waits for hears that it is gone", async () => {
  const folder = await mkdtemp(join(tmpdir(), "cellfleet-process-"));
  try {
    const args = ["--input-type=module", "-e", script(folder)];
    // Ended before its time it would say nothing, and end with 13.
    const { stdout } = await promisify(execFile)(process.execPath, args);
    expect(stdout).toBe("killed signal SIGKILL\n");
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

test("one that yields is nice towards other sessions, too", async () => {
  const folder = await mkdtemp(join(tmpdir(), "cellfleet-process-"));
  const child = await launchNode({
    ...{ name: "idle", args: ["-e", "setInterval(() => {}, 1000)"], env: {}, clock: systemClock },
    ...{ folders: { logs: folder, notes: folder }, graceMs: 1000, yields: true },
    isReady: async () => true,
  });
  try {
    expect(getPriority(child.pid)).toBe(2);
    // Only where Linux groups by session.
    const group = `/proc/${child.pid}/autogroup`;
    const said = existsSync(group) ? readFileSync(group, "utf8").trim() : "nice 2";
    expect(said).toMatch(/nice 2$/);
  } finally {
    await child.kill();
    await rm(folder, { recursive: true, force: true });
  }
});
