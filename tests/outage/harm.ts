/**
 * What is done to a local fleet without its control plane's help, and as no provider would do it: SIGKILL
 * to all that a cell is, servers stopped and started by name, data folders set back.
 */
import { cp, readdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { childrenOf } from "../../local/process-identity.ts";
import { systemClock } from "../../runtime/clock.ts";
import { type TestFleet, until } from "../fleet.ts";

const noteSchema = z.object({ pid: z.number() });
const serverNames = { "control-plane": "control-plane-db" } as Readonly<Record<string, string>>;
const answersWithinMs = 60_000;

/** By name, as `cellctl dev ps` shows it; it needs no control plane. */
export async function dev(
  fleet: TestFleet,
  action: "start" | "stop" | "kill",
  ...names: readonly string[]
): Promise<void> {
  for (const name of names) {
    const { code, stderr } = await fleet.cli("dev", action, name);
    if (code !== 0) throw new Error(`cellctl dev ${action} ${name} ended with ${code}: ${stderr}`);
  }
}

export const stopControlPlane = (fleet: TestFleet): Promise<void> =>
  dev(fleet, "stop", "control-plane", "control-plane-db");

export async function startControlPlane(fleet: TestFleet): Promise<void> {
  await dev(fleet, "start", "control-plane-db", "control-plane");
  const answers = async () => (await fleet.cli("status")).code === 0;
  await until("the control plane answers", answers, answersWithinMs);
}

/** SIGKILL to everything of a cell: application, agent, those of the annexes in it, PostgreSQL with all backends. */
export async function killCell({ dataDir }: TestFleet, cell: string): Promise<void> {
  const notes = join(dataDir, "processes");
  const mine = (name: string) => name.startsWith(`${cell}-`) || isOfAnnexIn(name, cell);
  const pids: number[] = [];
  for (const name of (await readdir(notes)).filter(mine)) {
    pids.push(noteSchema.parse(JSON.parse(await readFile(join(notes, name), "utf8"))).pid);
  }
  const file = join(dataDir, "cells", cell, "postgres", "postmaster.pid");
  const postmaster = Number((await readFile(file, "utf8")).split("\n")[0]);
  pids.push(postmaster, ...childrenOf(postmaster).map(({ pid }) => pid));
  for (const pid of pids) {
    try {
      process.kill(pid, "SIGKILL");
    } catch {
      // Gone with its parent.
    }
  }
}

/** `sb-ORIGIN-HOST-agent.json` lies in HOST. */
const isOfAnnexIn = (name: string, cell: string): boolean =>
  name.startsWith("sb-") && new RegExp(`-${cell}(-\\d+)?-[^-]+\\.json$`).test(name);

/** Clients are led to the other routers, then it is killed, started again from its disk, and takes its turn. */
export async function restartRouter(
  fleet: TestFleet,
  routers: string[],
  {
    name,
    origin,
    tenant,
  }: { readonly name: string; readonly origin: string; readonly tenant: string },
): Promise<void> {
  routers.splice(routers.indexOf(origin), 1);
  await systemClock.sleep(2000); // What it was given is answered.
  await dev(fleet, "kill", name);
  await dev(fleet, "start", name);
  const serves = async () => {
    const answer = await fetch(`${origin}/whoami`, { headers: { "x-tenant-id": tenant } }).catch(
      () => undefined, // Not listening yet.
    );
    await answer?.body?.cancel();
    return answer?.status === 200;
  };
  await until(`${name} serves`, serves, answersWithinMs);
  routers.push(origin);
}

const folderOf = ({ dataDir }: TestFleet, of: string): string =>
  of === "control-plane" ? join(dataDir, of, "postgres") : join(dataDir, "cells", of, "postgres");
const olderOf = ({ dataDir }: TestFleet, of: string): string => join(dataDir, `older-${of}`);
const serverOf = (of: string): string => serverNames[of] ?? `${of}-db`;

/** Of the control plane or a cell, whose server is stopped for it. */
export async function copyDatabase(fleet: TestFleet, of: string): Promise<void> {
  await dev(fleet, "stop", serverOf(of));
  const how = { recursive: true, preserveTimestamps: true };
  await cp(folderOf(fleet, of), olderOf(fleet, of), how);
  await dev(fleet, "start", serverOf(of));
}

/** As it was when it was copied; its server is stopped meanwhile, and started again. */
export async function setBack(fleet: TestFleet, of: string): Promise<void> {
  await dev(fleet, "stop", serverOf(of));
  await rm(folderOf(fleet, of), { recursive: true });
  await rename(olderOf(fleet, of), folderOf(fleet, of));
  await dev(fleet, "start", serverOf(of));
}
