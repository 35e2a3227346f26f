/** The supervisor's door: who may knock, what it refuses, that it acts on what was named. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, test } from "vitest";
import { CellError } from "../contract/errors.ts";
import { systemClock } from "../runtime/clock.ts";
import { systemRandom } from "../runtime/random.ts";
import { openCells } from "./cell-processes.ts";
import { openDataFolder } from "./data-folder.ts";
import { findPostgres } from "./postgres/binaries.ts";
import { type ProviderServer, startProviderServer } from "./provider-server.ts";
import { sampleApplication } from "./sample-application.ts";
import { createUnit, type Unit } from "./unit.ts";

let root: string;
let server: ProviderServer;
let unit: Unit;
const faults: unknown[] = [];
const fault = new Error("relation parcels\nhas no column org");
const refusal = new CellError("PROVIDER_FAILED", "migrate failed:\r\n  line 1\n\n  line 2\n", {
  nextSteps: ["read the log"],
});

const failing = (name: string, error: Error): Unit =>
  createUnit({
    name,
    restart: false,
    clock: systemClock,
    onChange: () => {},
    launch: () => Promise.reject(error),
  });

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "cellfleet-provider-"));
  const installation = await findPostgres({ env: process.env, random: systemRandom });
  const cells = await openCells({
    folder: await openDataFolder(root, installation.runAs, systemRandom),
    tools: { installation, clock: systemClock, random: systemRandom },
    application: await sampleApplication(),
    controlPlaneUrl: "http://127.0.0.1:9",
    env: {},
    onChange: () => {},
  });
  unit = createUnit({
    name: "router-01",
    restart: true,
    clock: systemClock,
    onChange: () => {},
    launch: async () => {
      const { promise, resolve } = Promise.withResolvers<string>();
      const end = async () => resolve("asked");
      return { pid: 4242, gone: promise, stop: end, kill: end };
    },
  });
  server = await startProviderServer({
    port: 0,
    token: "the-token",
    cells,
    units: () => [unit, failing("broken-01", fault), failing("broken-02", refusal)],
    onCells: async () => {},
    onFault: (error) => faults.push(error),
  });
});
afterAll(async () => {
  await server?.close();
  await rm(root, { recursive: true, force: true });
});

async function ask(method: string, path: string, body?: unknown, token = "the-token") {
  const response = await fetch(`http://127.0.0.1:${server.port}${path}`, {
    method,
    headers: {
      ...(token === "" ? {} : { authorization: `Bearer ${token}` }),
      "content-type": "application/json",
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const answer = (await response.json()) as {
    error?: { code: string };
    [name: string]: unknown;
  };
  return { status: response.status, code: answer.error?.code, answer };
}

describe("the supervisor's door", () => {
  test("opens to its token only, on every path", async ({ expect }) => {
    for (const path of ["/v1/processes", "/v1/cells/cell-01", "/nowhere"]) {
      for (const token of ["", "wrong", "the-token2"]) {
        expect(await ask("GET", path, undefined, token)).toMatchObject({
          status: 401,
          code: "UNAUTHENTICATED",
        });
      }
    }
    expect((await ask("POST", "/v1/processes/router-01/kill", {}, "wrong")).status).toBe(401);
  });

  test("refuses ids, actions and bodies that are none", async ({ expect }) => {
    const cases = [
      ["/v1/cells/..%2f..%2fetc/destroy", { op: "" }, "VALIDATION_FAILED"],
      ["/v1/cells/CELL/create", { op: "" }, "VALIDATION_FAILED"],
      ["/v1/cells/cell-01/explode", { op: "" }, "NOT_FOUND"],
      ["/v1/cells/cell-01/create", { operation: "x" }, "VALIDATION_FAILED"],
      ["/v1/cells/cell-01/create", undefined, "VALIDATION_FAILED"],
      ["/v1/cells/cell-01/create", { op: "x".repeat(20_000) }, "BODY_TOO_LARGE"],
      ["/v1/cells/cell-01/kill", { op: "" }, "CELL_UNKNOWN"],
      ["/v1/processes/router-99/kill", {}, "NOT_FOUND"],
      ["/v1/processes/router-01/explode", {}, "NOT_FOUND"],
    ] as const;
    for (const [path, body, code] of cases) {
      expect([path, (await ask("POST", path, body)).code]).toEqual([path, code]);
    }
  });

  test("knows no cell that was not made, and destroying it is done already", async ({ expect }) => {
    expect(await ask("GET", "/v1/cells/cell-07")).toMatchObject({
      status: 200,
      answer: { id: "cell-07", state: "absent" },
    });
    const destroyed = await ask("POST", "/v1/cells/cell-07/destroy", { op: "op" });
    expect(destroyed).toMatchObject({ status: 200, answer: { state: "absent" } });
  });

  test("says in one line why something failed", async ({ expect }) => {
    expect(await ask("POST", "/v1/processes/broken-01/start", {})).toMatchObject({
      code: "INTERNAL",
      answer: {
        error: { message: "a fault in the supervisor: relation parcels | has no column org" },
      },
    });
    // The supervisor tells its own faults; a refusal is the caller's to tell.
    expect(faults).toEqual([fault]);
    expect(await ask("POST", "/v1/processes/broken-02/start", {})).toMatchObject({
      code: "PROVIDER_FAILED",
      answer: {
        error: { message: "migrate failed: | line 1 | line 2", next_steps: ["read the log"] },
      },
    });
  });

  test("starts, kills and stops a process by name", async ({ expect }) => {
    const states = [];
    for (const action of ["start", "kill", "start", "stop"]) {
      const { answer } = await ask("POST", `/v1/processes/router-01/${action}`, {});
      states.push(answer["state"]);
    }
    expect(states).toEqual(["running", "dead", "running", "stopped"]);
    const { answer } = await ask("GET", "/v1/processes");
    expect(answer["items"]).toMatchObject([
      { name: "router-01", state: "stopped", pid: null },
      { name: "broken-01" },
      { name: "broken-02" },
    ]);
  });
});
