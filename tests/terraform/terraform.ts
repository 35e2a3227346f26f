/**
 * Runs terraform on a copy of the folder `terraform/`, so that no state and no lock file is left in the tree.
 * Nothing is downloaded: the modules use built-in providers only.
 */
import { spawn } from "node:child_process";
import { cp, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

/** The cellctl of this checkout, which the copy cannot find beside itself. */
export const cellctl = resolve(import.meta.dirname, "../../bin/cellctl.js");

const root = resolve(import.meta.dirname, "../..");

export type TerraformResult = { readonly code: number; readonly output: string };

export type Terraform = {
  /** `terraform …` in a folder below `terraform/`. */
  readonly run: (folder: string, ...args: readonly string[]) => Promise<TerraformResult>;
  /** As `run`, and throws with the output unless the exit code is 0. */
  readonly must: (folder: string, ...args: readonly string[]) => Promise<string>;
  readonly close: () => Promise<void>;
};

export async function copyForTerraform(): Promise<Terraform> {
  const scratch = await mkdtemp(join(tmpdir(), "cellfleet-terraform-"));
  await cp(join(root, "terraform"), join(scratch, "terraform"), { recursive: true });

  const run = (folder: string, ...args: readonly string[]) =>
    start(join(scratch, "terraform", folder), args);
  return {
    run,
    must: async (folder, ...args) => {
      const { code, output } = await run(folder, ...args);
      if (code !== 0) throw new Error(`terraform ${args.join(" ")} ended with ${code}\n${output}`);
      return output;
    },
    close: () => rm(scratch, { recursive: true, force: true }),
  };
}

function start(cwd: string, args: readonly string[]): Promise<TerraformResult> {
  return new Promise((done, failed) => {
    const child = spawn("terraform", args, {
      cwd,
      stdio: ["ignore", "pipe", "pipe"],
      env: {
        ...process.env,
        TF_CLI_CONFIG_FILE: "/dev/null",
        TF_IN_AUTOMATION: "1",
        CHECKPOINT_DISABLE: "1",
        NO_COLOR: "1",
      },
    });
    let output = "";
    const collect = (chunk: Buffer) => {
      output += chunk.toString("utf8");
    };
    child.stdout.on("data", collect);
    child.stderr.on("data", collect);
    child.once("error", failed);
    child.once("close", (code) => done({ code: code ?? 255, output }));
  });
}
