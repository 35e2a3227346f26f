/** What TAB offers: verbs, options, live ids; and silence when there is no fleet. */
import { spawnSync } from "node:child_process";
import { afterEach, describe, expect, test, vi } from "vitest";
import { cellctl, type StubServer, startStub } from "./cli.fixture.ts";
import { nouns } from "./program.ts";
import { sampleCell, sampleTenant } from "./samples.fixture.ts";

// Real sockets on a machine that may be busy with other things.
vi.setConfig({ testTimeout: 30_000 });

let stub: StubServer | undefined;
afterEach(async () => {
  await stub?.close();
  stub = undefined;
});

const offered = async (words: readonly string[], env: Readonly<Record<string, string>> = {}) => {
  const { code, stdout, stderr } = await cellctl(["__complete", ...words], { env });
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  return stdout.split("\n").filter((line) => line !== "");
};

describe("words", () => {
  test("nouns, verbs, verbs below verbs", async () => {
    expect(await offered([""])).toEqual(nouns.map(({ name }) => name));
    expect(await offered(["ce"])).toEqual(["cell"]);
    expect(await offered(["-o", "json", "cell", "c"])).toEqual(["create", "cordon"]);
    expect(await offered(["route", "override", ""])).toEqual(["ls", "add", "rm"]);
    expect(await offered(["dev", ""])).toEqual(["ps", "start", "stop", "kill"]);
  });

  test("options of the verb and of the tool, and their values", async () => {
    expect(await offered(["cell", "kill", "--co"])).toEqual(["--confirm", "--color", "--context"]);
    expect(await offered(["cell", "ls", "-o", "j"])).toEqual(["json"]);
    expect(await offered(["token", "create", "x", "--role", "a"])).toEqual(["admin", "agent"]);
    expect(await offered(["tenant", "import", ""])).toEqual([":file"]);
    expect(await offered(["explain", "CELL_UN"])).toEqual(["CELL_UNREACHABLE", "CELL_UNKNOWN"]);
  });

  test("nothing where nothing can follow, and nothing without a fleet", async () => {
    expect(await offered(["cell", "get", "cell-01", ""])).toEqual([]);
    expect(await offered(["cell", "get", ""])).toEqual([]);
    expect(await offered(["nonsense", ""])).toEqual([]);
  });
});

describe("live ids", () => {
  test("of cells, also as the value of an option", async () => {
    stub = await startStub({
      "GET /v1/cells": () => ({
        body: {
          items: [sampleCell("cell-01"), sampleCell("cell-02"), sampleCell("other")],
          next: null,
        },
      }),
    });
    expect(await offered(["cell", "cordon", "cell-"], stub.env)).toEqual(["cell-01", "cell-02"]);
    expect(await offered(["tenant", "create", "x", "--cell", "o"], stub.env)).toEqual(["other"]);
  });

  test("of tenants, narrowed by the API", async () => {
    stub = await startStub({
      "GET /v1/tenants": ({ query }) => ({
        body: { items: [sampleTenant(`${query["prefix"]}me`)], next: "more" },
      }),
    });
    expect(await offered(["tenant", "get", "ac"], stub.env)).toEqual(["acme"]);
    expect(stub.asked).toHaveLength(1);
  });
});

describe("scripts", () => {
  test.each(["bash", "zsh", "fish"])("for %s", async (shell) => {
    const { code, stdout } = await cellctl(["completion", shell]);
    expect(code).toBe(0);
    expect(stdout).toMatchSnapshot();
  });

  test("bash takes its script and completes by it", async () => {
    const { stdout: script } = await cellctl(["completion", "bash"]);
    const session = `${script}
cellctl() { [ "$1 $2 $3" = "__complete cell co" ] && printf 'cordon\\ncool down\\n'; }
COMP_WORDS=(cellctl cell co); COMP_CWORD=2; _cellctl
printf '[%s]' "\${COMPREPLY[@]}"`;
    const { stdout, stderr } = spawnSync("bash", ["-c", session], { encoding: "utf8" });
    expect({ stdout, stderr }).toEqual({ stdout: "[cordon][cool down]", stderr: "" });
  });
});
