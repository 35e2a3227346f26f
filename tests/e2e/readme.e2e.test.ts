/**
 * The README's tour, executed line by line against a fleet that was started for it. One thing is
 * substituted: the address of the router, because a test does not take port 8080 from anybody.
 */
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startFleet, type TestFleet } from "../fleet.ts";
import { missingLine, tourSteps } from "../readme.ts";

const root = resolve(import.meta.dirname, "../..");
const steps = tourSteps(readFileSync(join(root, "README.md"), "utf8"));

let fleet: TestFleet;
let port: string;

beforeAll(async () => {
  fleet = await startFleet({ standbyPartners: 3 });
  port = new URL((await fleet.endpoints()).router).port;
});
afterAll(() => fleet?.stop());

describe("the README's tour", () => {
  for (const { line, script, shown } of steps) {
    test(`line ${line}: ${script.split("\n")[0]}`, async () => {
      const { code, output } = await bash(script.replaceAll("localhost:8080", `localhost:${port}`));
      expect(code, output).toBe(0);
      expect(missingLine(output, shown), output).toBeUndefined();
    });
  }
});

function bash(script: string): Promise<{ readonly code: number; readonly output: string }> {
  return new Promise((done, failed) => {
    const child = spawn("bash", ["-euo", "pipefail", "-c", script], {
      cwd: root,
      stdio: ["ignore", "pipe", "pipe"],
      env: {
        ...process.env,
        CELLFLEET_DATA: fleet.dataDir,
        NO_COLOR: "1",
        npm_config_update_notifier: "false",
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
