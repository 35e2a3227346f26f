/** Commands against a small real HTTP server that speaks the contract: what is sent, printed and returned. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, test, vi } from "vitest";
import { acceptedSchema } from "../contract/control-api.ts";
import { CellError, type ErrorCode, errorCodes, errorTable } from "../contract/errors.ts";
import {
  type Answers,
  cellctl,
  type RunOptions,
  type StubServer,
  startStub,
} from "./cli.fixture.ts";
import {
  createdAt,
  sampleCell,
  sampleEvent,
  sampleOp,
  samplePlan,
  sampleTenant,
  sampleToken,
} from "./samples.fixture.ts";

// Real sockets on a machine that may be busy with other things.
vi.setConfig({ testTimeout: 30_000 });

let stub: StubServer | undefined;
afterEach(async () => {
  await stub?.close();
  stub = undefined;
});

async function against(answers: Answers, args: readonly string[], options: RunOptions = {}) {
  stub = await startStub(answers);
  const ran = await cellctl(args, { ...options, env: { ...stub.env, ...options.env } });
  return { ...ran, asked: stub.asked };
}

const op = sampleOp();
const done = sampleOp({
  state: "done",
  step: "done",
  version: 4,
  headline: "all routers serve revision 43",
});
const accepted = {
  op,
  plan: samplePlan,
  next_steps: [`cellctl op watch ${op.id}`, "cellctl cell ls"],
};
const changing: Answers = {
  "POST /v1/cells/cell-01/cordon": () => ({ status: 202, body: accepted }),
  [`GET /v1/ops/${op.id}`]: () => ({ body: done }),
};

describe("a change", () => {
  test("is sent with reason, key and token, followed to its end, and printed as data", async () => {
    const args = ["cell", "cordon", "cell-01", "--reason", "rack work", "-o", "json"];
    const { code, stdout, stderr, asked } = await against(changing, args);
    expect(code).toBe(0);
    expect(acceptedSchema.parse(JSON.parse(stdout))).toMatchObject({ op: { state: "done" } });
    expect(JSON.parse(asked[0]?.text ?? "")).toEqual({ reason: "rack work" });
    expect(asked[0]?.headers["idempotency-key"]).toMatch(/^[0-9a-f-]{36}$/);
    expect(asked[0]?.headers.authorization).toBe("Bearer secret-of-the-test");
    expect(asked[1]?.query).toMatchObject({ after: "3" });
    // One line per change where nobody looks at a terminal.
    expect(stderr.split("\n").filter((line) => line.startsWith(op.id))).toHaveLength(1);
    expect(stderr).toContain("✔ cell.cordon cell-01: all routers serve revision 43");
    expect(stderr).toContain("Next: cellctl cell ls");
    expect(stderr).not.toContain("op watch");
  });

  test("redraws one line on a terminal, and says nothing with --quiet", async () => {
    const live = await against(changing, ["cell", "cordon", "cell-01"], {
      terminal: true,
      columns: 60,
    });
    expect(live.stderr).toContain("\r\u001b[K");
    for (const line of live.stderr.split("\r\u001b[K")) {
      const [text = ""] = line.split("\n");
      expect(text.length).toBeLessThan(80);
    }
    await stub?.close();
    expect((await against(changing, ["cell", "cordon", "cell-01", "-q"])).stderr).toBe("");
  });

  test("is told once on a terminal; elsewhere its operation is data", async () => {
    const run = async (...more: string[]) => {
      const args = ["cell", "cordon", "cell-01", ...more];
      const ran = await against(changing, args, { terminal: true });
      await stub?.close();
      return ran;
    };
    const said = await run();
    expect(said.stdout).toBe("");
    expect(said.stderr).toContain("cell.cordon cell-01: all routers serve revision 43");
    expect((await run("-q")).stdout).toContain(op.id);
    expect(JSON.parse((await run("-o", "json")).stdout)).toMatchObject({ op: { id: op.id } });
    expect((await run("-o", "name")).stdout).toBe(`${op.id}\n`);
    expect((await against(changing, ["cell", "cordon", "cell-01"])).stdout).toContain(op.id);
  });

  test("is only recorded with --no-wait", async () => {
    const { code, stdout, stderr, asked } = await against(changing, [
      "cell",
      "cordon",
      "cell-01",
      "--no-wait",
      "-o",
      "name",
    ]);
    expect({ code, stdout }).toEqual({ code: 0, stdout: `${op.id}\n` });
    expect(stderr).toContain(`cellctl op watch ${op.id}`);
    expect(asked).toHaveLength(1);
  });

  test("is only planned with --dry-run", async () => {
    const answers: Answers = {
      "POST /v1/cells/cell-01/destroy": () => ({ body: { plan: samplePlan, next_steps: [] } }),
    };
    const { code, stdout, asked } = await against(answers, [
      "cell",
      "destroy",
      "cell-01",
      "--dry-run",
    ]);
    expect(code).toBe(0);
    expect(stdout).toContain("1. cell-01 takes no new tenants");
    expect(stdout).toContain("nothing: this was a dry run");
    expect(JSON.parse(asked[0]?.text ?? "")).toEqual({ dryRun: true });
  });

  test("that fails later says which step, with the code of the failure", async () => {
    const failed = sampleOp({
      state: "failed",
      step: "start",
      error: {
        code: "PROVIDER_FAILED",
        message: "no port is free",
        next_steps: ["look at the log"],
      },
    });
    const { code, stdout, stderr } = await against(
      { ...changing, [`GET /v1/ops/${op.id}`]: () => ({ body: failed }) },
      ["cell", "cordon", "cell-01"],
    );
    expect({ code, stdout }).toEqual({ code: errorTable.PROVIDER_FAILED.exit, stdout: "" });
    expect(stderr).toContain("Error [PROVIDER_FAILED]: no port is free");
    expect(stderr).not.toContain("Nothing was changed");
    expect(stderr).toContain(`cellctl op show ${op.id}`);
  });

  test("that outlasts --timeout ends with 124, and the operation goes on", async () => {
    const { code, stderr } = await against(
      { ...changing, [`GET /v1/ops/${op.id}`]: () => ({ body: op }) },
      ["cell", "cordon", "cell-01", "--timeout", "150ms", "-o", "json"],
    );
    expect(code).toBe(124);
    const lines = stderr.slice(stderr.indexOf("{"));
    expect(JSON.parse(lines)).toMatchObject({
      error: {
        code: "WAIT_TIMEOUT",
        details: { op: op.id },
        next_steps: [`cellctl op watch ${op.id}`],
      },
    });
    expect(JSON.parse(lines).error).not.toHaveProperty("changed");
  });

  test("that is interrupted ends with 130, and names the operation", async () => {
    const interrupt = new AbortController();
    const { code, stderr } = await against(
      {
        ...changing,
        [`GET /v1/ops/${op.id}`]: async () => {
          interrupt.abort();
          return new Promise(() => {}); // A long poll that never answers.
        },
      },
      ["cell", "cordon", "cell-01"],
      { interrupted: interrupt.signal },
    );
    expect(code).toBe(130);
    expect(stderr).toContain(`detached from ${op.id}; the operation goes on`);
    expect(stderr).toContain(`cellctl op watch ${op.id}`);
  });

  test("outlives a control plane that is silent for a moment", async () => {
    let calls = 0;
    const { code } = await against(
      {
        ...changing,
        [`GET /v1/ops/${op.id}`]: () => {
          calls += 1;
          return calls < 3 ? "hang up" : { body: done };
        },
      },
      ["cell", "cordon", "cell-01"],
    );
    expect({ code, calls }).toEqual({ code: 0, calls: 3 });
  });

  test("without an answer is not said to have changed nothing, and can be repeated safely", async () => {
    const { code, stderr } = await against({ "POST /v1/tenants": () => "hang up" }, [
      "tenant",
      "create",
      "acme",
      "--idempotency-key",
      "k-1",
    ]);
    expect(code).toBe(69);
    expect(stderr).not.toContain("Nothing was changed");
    expect(stderr).toContain("repeat with --idempotency-key k-1");
  });
});

describe("what destroys", () => {
  const answers: Answers = {
    "POST /v1/cells/cell-01/kill": () => ({ status: 202, body: { ...accepted, op: done } }),
    "DELETE /v1/tokens/tok_1": () => ({ status: 202, body: { ...accepted, op: done } }),
    "GET /v1/tokens": () => ({
      body: {
        items: [sampleToken("tok_1", "ci"), sampleToken("tok_2", "me"), sampleToken("tok_3", "me")],
        next: null,
      },
    }),
  };
  const changed = (asked: readonly { method: string }[]) =>
    asked.filter(({ method }) => method !== "GET");

  test("is refused where nobody can be asked", async () => {
    for (const args of [
      ["cell", "kill", "cell-01"],
      ["cell", "stop", "cell-01"],
      ["token", "revoke", "tok_1"],
      ["cell", "destroy", "cell-01"],
    ]) {
      const { code, stderr, asked } = await against(answers, args);
      expect(code).toBe(64);
      expect(stderr).toContain("[NOT_CONFIRMED]");
      expect(stderr).toContain("--confirm ");
      expect(changed(asked)).toEqual([]);
      await stub?.close();
    }
  });

  test.each([[["--yes"]], [["-y"]], [["--confirm", "cell-01"]]])(
    "goes on with %j",
    async (more) => {
      expect((await against(answers, ["cell", "kill", "cell-01", ...more])).code).toBe(0);
    },
  );

  test("is a token of this id, or the only one of this name", async () => {
    for (const word of ["tok_1", "ci"]) {
      const { code, asked } = await against(answers, ["token", "revoke", word, "-y"]);
      expect({ code, path: changed(asked)[0] }).toMatchObject({
        code: 0,
        path: { method: "DELETE", path: "/v1/tokens/tok_1" },
      });
      await stub?.close();
    }
    const shared = await against(answers, ["token", "revoke", "me", "-y"]);
    expect({ code: shared.code, changed: changed(shared.asked) }).toEqual({
      code: 64,
      changed: [],
    });
    expect(shared.stderr).toContain("cellctl token revoke tok_2");
    expect(shared.stderr).toContain("cellctl token revoke tok_3");
    await stub?.close();
    // Nobody is asked to confirm what is not there.
    const none = await against(answers, ["token", "revoke", "nobody"]);
    expect({ code: none.code, changed: changed(none.asked) }).toEqual({ code: 5, changed: [] });
    expect(none.stderr).toContain("[TOKEN_UNKNOWN]");
  });

  test("is refused when the name is another", async () => {
    const { code, asked } = await against(answers, [
      "cell",
      "kill",
      "cell-01",
      "--confirm",
      "cell-02",
    ]);
    expect({ code, asked }).toEqual({ code: 64, asked: [] });
  });

  test("asks for the name on a terminal", async () => {
    const terminal = { terminal: true };
    const typed = await against(answers, ["cell", "kill", "cell-01"], {
      ...terminal,
      stdin: "cell-01\n",
    });
    expect(typed.code).toBe(0);
    expect(typed.stderr).toContain("Type cell-01 to go on: ");
    await stub?.close();
    const mistyped = await against(answers, ["cell", "kill", "cell-01"], {
      ...terminal,
      stdin: "y\n",
    });
    expect({ code: mistyped.code, asked: mistyped.asked }).toEqual({ code: 64, asked: [] });
    await stub?.close();
    const silent = await against(answers, ["cell", "kill", "cell-01", "--no-input"], terminal);
    expect({ code: silent.code, asked: silent.asked }).toEqual({ code: 64, asked: [] });
  });
});

describe("refusals", () => {
  /** One is made by the client alone; after the other, nobody may claim that nothing was changed. */
  const apart: readonly ErrorCode[] = ["CONTROL_PLANE_UNREACHABLE", "OP_FAILED"];
  test.each(errorCodes.filter((code) => !apart.includes(code)).map((code) => [code]))(
    "%s ends with its own exit code",
    async (code: ErrorCode) => {
      const refusal = new CellError(code, "said by the server", {
        nextSteps: ["do this"],
        details: { limit: 5 },
      });
      const { exit, retry } = errorTable[code];
      const ran = await against({ "GET /v1/status": () => refusal }, ["status", "-o", "json"]);
      expect({ code: ran.code, stdout: ran.stdout }).toEqual({ code: exit, stdout: "" });
      const { error } = JSON.parse(ran.stderr);
      expect(error).toMatchObject({ code, details: { limit: 5 } });
      expect("changed" in error).toBe(retry !== "idempotent-only");
    },
  );

  test("have the anatomy of an error", async () => {
    const refusal = new CellError("SAFETY_RULE", "2 of 3 cells are down, and the floor is 2", {
      nextSteps: ["cellctl cell ls", "cellctl cell start cell-02"],
    });
    const { stderr } = await against({ "POST /v1/failovers": () => refusal }, [
      "failover",
      "start",
      "cell-01",
      "-y",
    ]);
    expect(stderr).toBe(
      [
        "Error [SAFETY_RULE]: 2 of 3 cells are down, and the floor is 2",
        "  Nothing was changed.",
        "  Next: cellctl cell ls",
        "        cellctl cell start cell-02",
        "  More: cellctl explain SAFETY_RULE",
        "",
      ].join("\n"),
    );
  });

  test("have no stack trace, also with -v, unless the fault is ours", async () => {
    const answers = (code: ErrorCode): Answers => ({
      "GET /v1/status": () => new CellError(code, "said by the server"),
    });
    const refused = await against(answers("SAFETY_RULE"), ["status", "-v"]);
    expect(refused.stderr).toContain("Error [SAFETY_RULE]: said by the server");
    expect(refused.stderr).not.toMatch(/^ +at /m);
    await stub?.close();
    expect((await against(answers("INTERNAL"), ["status", "-v"])).stderr).toMatch(/^ +at /m);
  });

  test("a foreign server at the address is told from a dead one", async () => {
    const { code, stderr } = await against({ "GET /v1/status": () => ({ body: "<html>" }) }, [
      "status",
    ]);
    expect(code).toBe(69);
    expect(stderr).toContain("answers, but not as a control plane");
  });
});

describe("a verb by its other name", () => {
  test.each([
    [["op", "get", op.id], `/v1/ops/${op.id}`],
    [["recovery", "status"], "/v1/recovery"],
  ])("%j", async (args, path) => {
    const { asked } = await against({}, args);
    expect(asked.map((request) => request.path)).toEqual([path]);
  });
});

describe("lists", () => {
  test("are read to their last page", async () => {
    const { code, stdout, asked } = await against(
      {
        "GET /v1/tenants": ({ query }) =>
          query["cursor"] === "two"
            ? { body: { items: [sampleTenant("c")], next: null } }
            : { body: { items: [sampleTenant("a"), sampleTenant("b")], next: "two" } },
      },
      ["tenant", "ls", "--cell", "cell-01", "-o", "name"],
    );
    expect({ code, stdout }).toEqual({ code: 0, stdout: "a\nb\nc\n" });
    expect(asked.map(({ query }) => query)).toEqual([
      { cell: "cell-01", limit: "1000" },
      { cell: "cell-01", limit: "1000", cursor: "two" },
    ]);
  });

  test.each(["json", "yaml", "table", "name"])(
    "of a fleet that does not answer leave standard output empty (%s)",
    async (format) => {
      const answers: Answers = { "GET /v1/cells": () => "hang up" };
      const { code, stdout } = await against(answers, ["cell", "ls", "-o", format]);
      expect({ code, stdout }).toEqual({ code: 69, stdout: "" });
    },
  );

  test("stop at --limit, and keep the cursor", async () => {
    const { stdout, asked } = await against(
      { "GET /v1/tenants": () => ({ body: { items: [sampleTenant("a")], next: "two" } }) },
      ["tenant", "ls", "--limit", "1", "-o", "json"],
    );
    expect(JSON.parse(stdout)).toMatchObject({ items: [{ id: "a" }], next: "two" });
    expect(asked).toHaveLength(1);
  });

  test("what a person typed cannot climb out of its place in the address", async () => {
    const { asked } = await against({}, ["tenant", "get", "../cells/cell-01"]);
    expect(asked[0]?.path).toBe("/v1/tenants/..%2Fcells%2Fcell-01");
  });
});

describe("tenant locate", () => {
  const resolution = {
    tenant: "acme",
    keyspace: "users",
    key: "users/slot/7",
    cell: "cell-02",
    epoch: 3,
    state: "active",
    revision: 9,
    trace: ["slot 7 of 16"],
  };

  test("asks the route for a tenant that is not registered", async () => {
    const { code, stdout, asked } = await against(
      {
        "GET /v1/tenants/acme/placement": () => new CellError("TENANT_UNKNOWN", "no such tenant"),
        "GET /v1/route/resolve": () => ({ body: resolution }),
      },
      ["tenant", "locate", "acme", "--keyspace", "users", "-o", "json"],
    );
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toEqual(resolution);
    expect(asked[1]?.query).toEqual({ tenant: "acme", keyspace: "users" });
  });

  test("an unknown tenant of a directory keyspace is 5", async () => {
    const unknown = () => new CellError("TENANT_UNKNOWN", "no such tenant");
    const { code } = await against(
      { "GET /v1/tenants/acme/placement": unknown, "GET /v1/route/resolve": unknown },
      ["tenant", "locate", "acme"],
    );
    expect(code).toBe(5);
  });
});

describe("events", () => {
  test("--watch prints one JSON line per event, and goes on from the last", async () => {
    const interrupt = new AbortController();
    const { code, stdout, asked } = await against(
      {
        "GET /v1/events": ({ query }) => {
          if (query["after"] === undefined)
            return { body: { items: [sampleEvent(4), sampleEvent(5)], next: null } };
          interrupt.abort();
          return { body: { items: [], next: null } };
        },
      },
      ["events", "-w", "-o", "json"],
      { interrupted: interrupt.signal },
    );
    expect(code).toBe(130);
    expect(
      stdout
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line).id),
    ).toEqual([4, 5]);
    expect(asked[1]?.query).toMatchObject({ after: "5", waitMs: "20000" });
  });

  test("--since reads from the beginning when the newest page does not reach back", async () => {
    const all = Array.from({ length: 2500 }, (_, index) => sampleEvent(index + 1));
    const { stdout } = await against(
      {
        "GET /v1/events": ({ query }) => {
          const limit = Number(query["limit"]);
          const items =
            query["after"] === undefined
              ? all.slice(-limit)
              : all.filter(({ id }) => id > Number(query["after"])).slice(0, limit);
          return { body: { items, next: null } };
        },
      },
      ["events", "--since", "2026-11-01", "-o", "name"],
    );
    expect(stdout.trim().split("\n")).toHaveLength(2500);
  });

  test("--since leaves the older ones out", async () => {
    const items = [sampleEvent(1), sampleEvent(2, { at: "2026-11-21T12:00:00.000Z" })];
    const { stdout } = await against(
      { "GET /v1/events": () => ({ body: { items, next: null } }) },
      ["events", "--since", "2026-11-21", "-o", "name"],
    );
    expect(stdout).toBe("2\n");
  });
});

describe("tenant import", () => {
  const result = {
    op: { ...done, kind: "tenant.import", object: "2 tenants" },
    accepted: 2,
    skipped: 1,
    badLines: [{ line: 3, error: "id: must be short" }],
    perCell: { "cell-01": 2 },
    next_steps: [],
  };
  let folder: string;
  const file = async (name: string, text: string) => {
    folder = await mkdtemp(join(tmpdir(), "cellctl-import-"));
    await writeFile(join(folder, name), text);
    return join(folder, name);
  };
  afterEach(() => rm(folder, { recursive: true, force: true }));

  test("streams the file with its type, and prints bad lines with their numbers", async () => {
    const path = await file("tenants.ndjson", '{"id":"a"}\n{"id":"b"}\n{"id":""}\n');
    const { code, stdout, stderr, asked } = await against(
      { "POST /v1/tenants/import": () => ({ status: 202, body: result }) },
      ["tenant", "import", path, "--skip-bad-lines", "--reason", "move in", "-o", "json"],
    );
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ accepted: 2, badLines: [{ line: 3 }] });
    expect(stderr).toContain("line 3: id: must be short");
    expect(asked[0]).toMatchObject({
      text: '{"id":"a"}\n{"id":"b"}\n{"id":""}\n',
      query: { skipBadLines: "true", reason: "move in" },
      headers: { "content-type": "application/x-ndjson", "transfer-encoding": "chunked" },
    });
  });

  test("reads standard input as -", async () => {
    folder = await mkdtemp(join(tmpdir(), "cellctl-import-"));
    const { code, stdout, stderr, asked } = await against(
      { "POST /v1/tenants/import": () => ({ status: 202, body: result }) },
      ["tenant", "import", "-", "--format", "csv"],
      { stdin: "id\na\nb\n" },
    );
    expect(code).toBe(0);
    expect(`${stdout}${stderr}`.split("line 3: id: must be short")).toHaveLength(2);
    expect(asked[0]).toMatchObject({ text: "id\na\nb\n", headers: { "content-type": "text/csv" } });
  });

  test("with bad lines applies nothing and says which", async () => {
    const path = await file("tenants.csv", "id\n\n");
    const refusal = new CellError("IMPORT_INVALID", "line 2: id is empty; nothing was applied", {
      details: { badLines: [{ line: 2, error: "id is empty" }] },
    });
    const { code, stderr } = await against({ "POST /v1/tenants/import": () => refusal }, [
      "tenant",
      "import",
      path,
    ]);
    expect(code).toBe(64);
    expect(stderr.split("line 2: id is empty")).toHaveLength(2);
    expect(stderr).toContain("Nothing was changed.");
  });

  test("of a file that is not there asks nobody", async () => {
    folder = await mkdtemp(join(tmpdir(), "cellctl-import-"));
    const { code, stderr, asked } = await against({}, [
      "tenant",
      "import",
      join(folder, "none.csv"),
    ]);
    expect({ code, asked }).toEqual({ code: 64, asked: [] });
    expect(stderr).toContain("[FILE_UNREADABLE]");
    expect(stderr).toContain(`ls -l ${folder}`);
  });
});

describe("check", () => {
  const status = {
    fleet: "f",
    mode: "normal",
    modeReason: "",
    revision: 43,
    leader: { holder: "cp-1", term: 2, self: true },
    cells: { total: 1, healthy: 1, down: 0 },
    tenants: 3,
    routers: { live: 1, inSync: 1 },
    ops: { running: 0, failed: 0 },
    release: "0.1.0",
  };
  const router = {
    id: "router-01",
    instance: "i",
    admin: "http://127.0.0.1:1",
    revision: 43,
    behind: 0,
    live: true,
    seenMs: 20,
    release: "0.1.0",
  };
  const answers = (more: { status?: object; cells?: unknown[]; routers?: unknown[] }): Answers => ({
    "GET /v1/status": () => ({ body: { ...status, ...more.status } }),
    "GET /v1/cells": () => ({ body: { items: more.cells ?? [sampleCell("cell-01")], next: null } }),
    "GET /v1/routers": () => ({ body: { items: more.routers ?? [router], next: null } }),
    "GET /livez": () => ({ body: "ok" }),
  });

  test("is content with a healthy fleet", async () => {
    const { code, stdout } = await against(answers({}), ["check", "-o", "json"]);
    const { items } = JSON.parse(stdout);
    expect({ code, bad: items.filter(({ state }: { state: string }) => state !== "ok") }).toEqual({
      code: 0,
      bad: [],
    });
    expect(items.map(({ id }: { id: string }) => id)).toEqual([
      "node",
      "postgresql",
      "control-plane",
      "clock",
      "leader",
      "mode",
      "release",
      "routers",
      "cells",
      "leases",
      "tables",
      "operations",
    ]);
  });

  test.each([
    ["leader", answers({ status: { leader: null } })],
    ["routers", answers({ routers: [] })],
    ["routers", answers({ routers: [{ ...router, behind: 2 }] })],
    [
      "cells",
      answers({
        cells: [sampleCell("cell-01", { health: "down", healthReason: "silent for 20 s" })],
      }),
    ],
    [
      "leases",
      answers({ cells: [sampleCell("cell-01", { lease: { grant: 1, outstandingMs: 0 } })] }),
    ],
  ])("finds bad %s, says how to mend it, and fails", async (id, stubbed) => {
    const { code, stdout, stderr } = await against(stubbed, ["check", "-o", "json"]);
    expect(code).toBe(1);
    const found = JSON.parse(stdout).items.find((item: { id: string }) => item.id === id);
    expect(found).toMatchObject({ state: "failed", fix: expect.stringContaining("cellctl ") });
    expect(JSON.parse(stderr)).toMatchObject({ error: { code: "CHECK_FAILED" } });
  });

  test("warns of tables that no manifest classes, and does not fail", async () => {
    const unclassed = { count: 2, names: ["public.logs", "public.notes"] };
    const cells = [sampleCell("cell-01"), sampleCell("cell-02", { unclassed })];
    const { code, stdout } = await against(answers({ cells }), ["check", "-o", "json"]);
    expect(code).toBe(0);
    const found = JSON.parse(stdout).items.find((item: { id: string }) => item.id === "tables");
    expect(found).toMatchObject({ state: "warn", fix: "cellctl schema check" });
    expect(found.text).toContain("cell-02 has 2: public.logs, public.notes");
    expect(found.text).not.toContain("cell-01");
  });

  test("cell get names the tables that no manifest classes", async () => {
    const shown = async (more: object) => {
      const cell = { body: sampleCell("cell-01", more) };
      return (await against({ "GET /v1/cells/cell-01": () => cell }, ["cell", "get", "cell-01"]))
        .stdout;
    };
    const unclassed = { count: 3, names: ["public.logs", "public.no\u001b[31mtes"] };
    const hostile = await shown({ unclassed });
    expect(hostile).toMatch(
      /unclassed: +3 tables; cellctl schema check\n +public\.logs\n +public\.no.*tes\n +and 1 more/,
    );
    expect(hostile).not.toContain("\u001b[31m");
    expect(await shown({ adopted: true, unclassed: { count: 0, names: [] } })).toMatch(
      /unclassed: +no table\n/,
    );
    expect(await shown({ adopted: true })).toMatch(/unclassed: +not told by its agent yet\n/);
    expect(await shown({})).not.toContain("unclassed");
  });

  test("without a control plane looks at what it can", async () => {
    const env = { CELLCTL_ADDR: "http://127.0.0.1:9", CELLCTL_TOKEN: "x" };
    const { code, stdout } = await cellctl(["check"], { env });
    expect(code).toBe(1);
    expect(stdout).toMatch(/√ +node/);
    expect(stdout).toMatch(/× +control-plane/);
    expect(stdout).toMatch(/- +cells/);
  });
});

test("a token's secret is shown once, on standard output alone", async () => {
  const created = {
    token: { id: "tok_1", name: "ci", role: "operator", subject: null, expiresAt: null, createdAt },
    secret: "cf_abc",
  };
  const { code, stdout, stderr, asked } = await against(
    { "POST /v1/tokens": () => ({ status: 201, body: created }) },
    ["token", "create", "ci", "--role", "operator", "--ttl", "90d", "-o", "json"],
  );
  expect(code).toBe(0);
  expect(JSON.parse(stdout)).toEqual(created);
  expect(stderr).not.toContain("cf_abc");
  expect(JSON.parse(asked[0]?.text ?? "")).toEqual({
    name: "ci",
    role: "operator",
    ttlSeconds: 7_776_000,
  });
});
