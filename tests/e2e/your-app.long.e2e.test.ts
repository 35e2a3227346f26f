/**
 * docs/your-app-in-15-minutes.md, executed block by block in one shell, against a real PostgreSQL that
 * stands for the reader's own. What is substituted: addresses that the reader has and a test may not
 * take from anybody, and the data folder.
 */
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startFleet, type TestFleet } from "../fleet.ts";
import { freePort } from "../plain-shop.ts";
import { startTestPostgres, type TestPostgres } from "../postgres.ts";
import { missingLine, tourSteps } from "../readme.ts";
import { openTerminal, type Terminal } from "../terminal.ts";

const root = resolve(import.meta.dirname, "../..");
const steps = tourSteps(readFileSync(join(root, "docs/your-app-in-15-minutes.md"), "utf8"));

let fleet: TestFleet;
let postgres: TestPostgres;
let terminal: Terminal;
const ports = new Map<string, string>();

beforeAll(async () => {
  postgres = await startTestPostgres();
  fleet = await startFleet({ cells: 0, flags: ["--app", "examples/shop"] });
  const { router, controlPlane } = await fleet.endpoints();
  ports.set("8080", new URL(router).port).set("8090", new URL(controlPlane).port);
  for (const port of ["9401", "9402", "9411", "9421", "9422"]) {
    ports.set(port, String(await freePort()));
  }
  terminal = openTerminal(root, {
    ...process.env,
    ADMIN_URL: postgres.adminUrl,
    CELLFLEET_DATA: fleet.dataDir,
    NO_COLOR: "1",
    npm_config_update_notifier: "false",
  });
});
afterAll(async () => {
  await terminal?.close();
  await fleet?.stop();
  await postgres?.stop();
});

const substituted = (script: string): string =>
  script
    .replaceAll(/\b(8080|8090|94\d\d)\b/g, (port) => ports.get(port) ?? port)
    .replaceAll(".cellfleet", fleet.dataDir);

describe("your app in 15 minutes", () => {
  test("has a tour", () => {
    expect(steps.length).toBeGreaterThan(10);
  });
  for (const { line, script, shown } of steps) {
    test(`line ${line}: ${script.split("\n")[0]}`, async () => {
      const output = await terminal.run(substituted(script));
      expect(missingLine(output, shown), output).toBeUndefined();
    });
  }
});
