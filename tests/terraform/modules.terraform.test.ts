/** Every module and example: formatted, valid, tested, and applied to a running fleet until nothing is left to do. */
import { readdirSync } from "node:fs";
import { resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startFleet, type TestFleet } from "../fleet.ts";
import { cellctl, copyForTerraform, type Terraform } from "./terraform.ts";

const source = resolve(import.meta.dirname, "../../terraform");
const folders = ["modules", "examples"].flatMap((kind) =>
  readdirSync(resolve(source, kind)).map((name) => `${kind}/${name}`),
);
const example = "examples/local-cells";

let terraform: Terraform;
beforeAll(async () => {
  terraform = await copyForTerraform();
});
afterAll(() => terraform?.close());

describe("every folder", () => {
  test("is formatted", async () => {
    expect((await terraform.run(".", "fmt", "-check", "-recursive")).output).toBe("");
  });

  for (const folder of folders) {
    test(`${folder} is valid and its own tests pass`, async () => {
      await terraform.must(folder, "init", "-input=false", "-no-color");
      expect(await terraform.must(folder, "validate", "-no-color")).toContain("Success!");
      const tested = await terraform.must(folder, "test", "-no-color");
      expect(tested).toMatch(
        folder.startsWith("modules/") ? /Success! [1-9]\d* passed, 0 failed/ : /0 failed/,
      );
    });
  }
});

describe("applied to a fleet", () => {
  let fleet: TestFleet;
  beforeAll(async () => {
    fleet = await startFleet({ cells: 1 });
    await terraform.must(example, "init", "-input=false", "-no-color");
  });
  afterAll(() => fleet?.stop());

  const change = (command: "apply" | "destroy", cells: Readonly<Record<string, number>>) =>
    terraform.run(
      example,
      command,
      "-auto-approve",
      "-input=false",
      "-no-color",
      ...variables(cells),
    );
  const variables = (cells: Readonly<Record<string, number>>) => [
    `-var=data_dir=${fleet.dataDir}`,
    `-var=cellctl=${cellctl}`,
    `-var=cells=${JSON.stringify(cells)}`,
  ];

  test("cells come up, open for tenants, with the capacity that was asked for", async () => {
    const applied = await change("apply", { "cell-04": 5, "cell-05": 7 });
    expect(applied).toMatchObject({ code: 0 });
    for (const [cell, tenants] of Object.entries({ "cell-04": 5, "cell-05": 7 })) {
      const seen = await fleet.cliJson("cell", "get", cell);
      expect(seen).toMatchObject({ state: "active", capacity: { tenants } });
    }
    await fleet.cliJson("tenant", "create", "resident", "--cell", "cell-04", "--wait");
    expect((await fleet.ask("resident", "GET", "/whoami")).json).toMatchObject({ cell: "cell-04" });
  });

  test("nothing is left to do", async () => {
    const args = ["-detailed-exitcode", "-input=false", "-no-color"];
    const again = variables({ "cell-04": 5, "cell-05": 7 });
    expect(await terraform.run(example, "plan", ...args, ...again)).toMatchObject({ code: 0 });
  });

  test("a changed setting is refused when it is planned, and nothing is touched", async () => {
    const changed = await change("apply", { "cell-04": 5, "cell-05": 8 });
    expect(changed.code).toBe(1);
    expect(changed.output).toContain("a cell is not changed in place");
    const seen = await fleet.cliJson("cell", "get", "cell-05");
    expect(seen).toMatchObject({ state: "active", capacity: { tenants: 7 } });
    const plan = ["-detailed-exitcode", "-input=false", "-no-color"];
    const back = variables({ "cell-04": 5, "cell-05": 7 });
    expect(await terraform.run(example, "plan", ...plan, ...back)).toMatchObject({ code: 0 });
  });

  test("an empty cell is destroyed, one with a tenant is not", async () => {
    const destroyed = await change("destroy", { "cell-04": 5, "cell-05": 7 });
    expect(destroyed.code).toBe(1);
    expect(destroyed.output).toContain("SAFETY_RULE");
    expect(await fleet.cliJson("cell", "get", "cell-05")).toMatchObject({ state: "retired" });
    expect((await fleet.ask("resident", "GET", "/whoami")).status).toBe(200);
  });
});
