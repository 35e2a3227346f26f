/**
 * `postmaster.pid`: what a running server says about itself, and what a killed one leaves behind.
 *
 * PostgreSQL refuses to start while the file's pid belongs to any living process of its user, also
 * to a stranger that got the same number. We look closer (start time, data folder), remove a file
 * that is certainly stale, and end the children that a killed postmaster left.
 */
import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../../runtime/clock.ts";
import {
  commandLine,
  identify,
  type ProcessIdentity,
  processesIn,
  signalProcess,
} from "../process-identity.ts";

export type Running = { readonly identity: ProcessIdentity; readonly port: number };

/** The live postmaster of this data folder, whoever started it. */
export async function findRunning(dataDir: string): Promise<Running | undefined> {
  const text = await readFile(join(dataDir, "postmaster.pid"), "utf8").catch(() => "");
  const [pid, folder, , port] = text.split("\n");
  const identity = Number(pid) > 1 ? identify(Number(pid)) : undefined;
  if (identity === undefined || folder !== dataDir || Number(port) < 1) return undefined;
  // Our servers are started as `postgres -D FOLDER`; a stranger with the same pid is not.
  const ours = commandLine(identity.pid).endsWith(`-D ${dataDir}`);
  return ours ? { identity, port: Number(port) } : undefined;
}

/** For a folder without a live postmaster: leaves nothing that would keep a new one from starting. */
export async function clearRemains(dataDir: string, clock: Clock): Promise<void> {
  for (let round = 0; round < 100; round += 1) {
    const orphans = processesIn(dataDir);
    if (orphans.length === 0) break;
    for (const orphan of orphans) signalProcess(orphan, "SIGKILL");
    await clock.sleep(20);
  }
  await rm(join(dataDir, "postmaster.pid"), { force: true });
}
