/** What the figures were measured on. */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { cpus, release, totalmem, type } from "node:os";
import { resolve } from "node:path";
import { z } from "zod";

const firstLine = (command: string, args: readonly string[]): string => {
  const { stdout, stderr, error } = spawnSync(command, args, { encoding: "utf8" });
  if (error !== undefined) return "not installed";
  return `${stdout}${stderr}`.split("\n")[0]?.trim() ?? "";
};

/** Of npm: Node has one of its own inside. */
const undiciVersion = (): string => {
  const file = resolve(import.meta.dirname, "../../node_modules/undici/package.json");
  return z.object({ version: z.string() }).parse(JSON.parse(readFileSync(file, "utf8"))).version;
};

export const describeMachine = (): Record<string, string | number> => ({
  processor: cpus()[0]?.model.trim() ?? "unknown",
  processors: cpus().length,
  memoryGiB: Math.round(totalmem() / 2 ** 30),
  system: `${type()} ${release()}`,
  node: process.version,
  undici: undiciVersion(),
  nginx: firstLine("nginx", ["-v"]),
  haproxy: firstLine("haproxy", ["-v"]),
  wrk: firstLine("wrk", ["-v"]),
});

export const commit = (): string => firstLine("git", ["rev-parse", "--short", "HEAD"]);
