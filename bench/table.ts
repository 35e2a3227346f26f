/**
 * The routing table alone, at 10 thousand, 1 million and 10 million tenants: made, read from the signed
 * snapshot, read from its image, asked. Each step is a process of its own, so that its memory is its own.
 * With `--fleet` a real control plane and router instead (`table-fleet.ts`).
 */
import { spawnSync } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { print, printLoad } from "./fleet-processes.ts";

const sizes = ["10000", "1000000", "10000000"];
const usage = "usage: table [--uuid] [TENANTS...]  |  table --fleet [TENANTS]";

export async function run(args: readonly string[]): Promise<void> {
  if (args[0] === "--fleet") {
    await (await import("./table-fleet.ts")).run(args.slice(1));
    return;
  }
  const asked = args.filter((arg) => arg !== "--uuid");
  if (asked.some((arg) => !/^[1-9]\d{0,8}$/.test(arg))) throw new Error(usage);
  const ids = args.includes("--uuid") ? "uuid" : "short";
  for (const tenants of asked.length === 0 ? sizes : asked) await measure(tenants, ids);
  printLoad();
}

async function measure(tenants: string, ids: string): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "cellfleet-bench-table-"));
  try {
    print("tenants", Number(tenants).toLocaleString("en"), `${ids} ids`);
    for (const step of ["make", "read", "serve"]) {
      const script = resolve(import.meta.dirname, "table-step.ts");
      const args = ["--expose-gc", script, step, folder, tenants, ids];
      const { status } = spawnSync(process.execPath, args, { stdio: "inherit" });
      if (status !== 0) throw new Error(`table-step ${step} ended with ${status}`);
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
