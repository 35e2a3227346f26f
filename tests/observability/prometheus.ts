/** A real Prometheus for the check of observability/: in a folder of its own, on a port that the system chose. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { copyFile, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import { until } from "../fleet.ts";

export type Target = { readonly job: string; readonly address: string };

export type Prometheus = {
  /** Undefined: it was evaluated; else what Prometheus says against it. */
  readonly query: (expr: string) => Promise<string | undefined>;
  /** As many targets as are up. */
  readonly up: () => Promise<number>;
  readonly close: () => Promise<void>;
};

/** Is there such a program? */
export const hasTool = (name: string): boolean => spawnSync(name, ["--version"]).status === 0;

/** What `promtool` finds wrong; undefined: nothing. */
export function promtool(args: readonly string[], input?: string): string | undefined {
  const ran = spawnSync("promtool", [...args], {
    encoding: "utf8",
    ...(input === undefined ? {} : { input }),
  });
  return ran.status === 0 ? undefined : `${ran.stdout}${ran.stderr}`.trim();
}

const answerSchema = z.object({
  status: z.string(),
  error: z.string().optional(),
  data: z.object({ result: z.array(z.unknown()) }).optional(),
});

export async function startPrometheus(
  targets: readonly Target[],
  rulesFile: string,
): Promise<Prometheus> {
  const folder = await mkdtemp(join(tmpdir(), "cellfleet-prometheus-"));
  const port = await freePort();
  await copyFile(rulesFile, join(folder, "alerts.yml"));
  await writeFile(join(folder, "prometheus.yml"), configOf(targets));
  const child = spawn(
    "prometheus",
    [
      `--config.file=${join(folder, "prometheus.yml")}`,
      `--storage.tsdb.path=${join(folder, "data")}`,
      `--web.listen-address=127.0.0.1:${port}`,
      "--log.level=error",
    ],
    { stdio: ["ignore", "ignore", "inherit"], cwd: folder },
  );
  const origin = `http://127.0.0.1:${port}`;
  const ask = async (expr: string) => {
    const url = `${origin}/api/v1/query?query=${encodeURIComponent(expr)}`;
    return answerSchema.parse(await (await fetch(url)).json());
  };
  const close = async () => {
    await end(child);
    await rm(folder, { recursive: true, force: true });
  };
  try {
    await until("prometheus is ready", () => isReady(origin, child));
  } catch (error) {
    await close();
    throw error;
  }
  return {
    query: async (expr) => {
      const { status, error } = await ask(expr);
      return status === "success" ? undefined : (error ?? "no success");
    },
    up: async () => (await ask("up == 1")).data?.result.length ?? 0,
    close,
  };
}

/** JSON is YAML. */
function configOf(targets: readonly Target[]): string {
  const jobs = [...new Set(targets.map(({ job }) => job))];
  return JSON.stringify({
    global: { scrape_interval: "1s", evaluation_interval: "1s" },
    rule_files: ["alerts.yml"],
    scrape_configs: jobs.map((job) => ({
      job_name: job,
      static_configs: [
        { targets: targets.filter((one) => one.job === job).map(({ address }) => address) },
      ],
    })),
  });
}

async function isReady(origin: string, child: ChildProcess): Promise<boolean> {
  if (child.exitCode !== null) throw new Error(`prometheus ended with ${child.exitCode}`);
  const answer = await fetch(`${origin}/-/ready`).catch(() => undefined);
  return answer?.ok === true;
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null) return;
  const gone = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGTERM");
  await gone;
}

const freePort = (): Promise<number> =>
  new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" ? (address?.port ?? 0) : 0));
    });
  });
