/** `claim`, `tenant alias` and `query`, word by word, against a whole control plane over a real database. */
import { sql } from "drizzle-orm";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import {
  claimCheckSchema,
  claimImportResultSchema,
  claimNamespaceSchema,
  claimSchema,
  reservedSchema,
} from "../contract/claims-api.ts";
import { acceptedSchema, dryRunSchema, list, tokenSchema } from "../contract/control-api.ts";
import { callAgent, openCell } from "../control-plane/control.fixture.ts";
import {
  adminSecret,
  type FakeRouter,
  type Plane,
  startFakeRouter,
  startPlane,
} from "../control-plane/plane.fixture.ts";
import { type Database, openDatabase } from "../control-plane/store/database.ts";
import { createJsonClient, type JsonClient } from "../runtime/http-client.ts";
import { startTestPostgres, type TestPostgres } from "../tests/postgres.ts";
import { cellctl, type RunOptions } from "./cli.fixture.ts";
import { mergedSchema } from "./merge-cells.ts";

let postgres: TestPostgres;
let plane: Plane;
let router: FakeRouter;
let database: Database;
const closing: (() => Promise<void>)[] = [];

beforeAll(async () => {
  postgres = await startTestPostgres();
  const url = await postgres.createDatabase("words");
  plane = await startPlane(url);
  database = openDatabase({ url, onConnectionError: () => undefined });
  const token = await tokenFor("router", "router-01");
  router = startFakeRouter({ origin: () => plane.url, token, id: "router-01" });
  for (const cell of ["cell-01", "cell-02"]) await openCell(database, cell);
  for (const [tenant, cell] of [
    ["acme", "cell-01"],
    ["globex", "cell-02"],
  ] as const) {
    await database.read.execute(sql`
      insert into cellfleet_control.placement (key, keyspace, kind, value, cell, epoch, state, revision, op)
      values (${`default/tenant/${tenant}`}, 'default', 'tenant', ${tenant}, ${cell}, 1, 'active', 0, 'op_1')`);
    await database.read.execute(sql`
      insert into cellfleet_control.tenant (id, keyspace, tier, size_bytes, size_rps, labels, placement_key)
      values (${tenant}, 'default', 'standard', 0, 0, '{}', ${`default/tenant/${tenant}`})`);
  }
});
afterAll(async () => {
  for (const close of closing) await close();
  await router?.stop();
  await database?.close();
  await plane?.close();
  await postgres?.stop();
});

async function tokenFor(role: string, subject?: string): Promise<string> {
  const schema = z.object({ token: tokenSchema, secret: z.string() });
  const body = {
    name: `${role} ${subject ?? ""}`,
    role,
    ...(subject === undefined ? {} : { subject }),
  };
  return (await plane.send("POST", "/v1/tokens", body, schema)).secret;
}

const run = (args: readonly string[], options: RunOptions = {}) =>
  cellctl(args, {
    ...options,
    env: { CELLCTL_ADDR: plane.url, CELLCTL_TOKEN: adminSecret, ...options.env },
  });

async function json<T extends z.ZodType>(schema: T, ...args: string[]): Promise<z.output<T>> {
  const { code, stdout, stderr } = await run([...args, "-o", "json"]);
  expect({ code, stderr: code === 0 ? "" : stderr }).toEqual({ code: 0, stderr: "" });
  return schema.parse(JSON.parse(stdout));
}

describe("claim", () => {
  test("reserve, commit, look up, release", async () => {
    const plan = await json(
      dryRunSchema,
      ...["claim", "reserve", "domain:a.example", "--tenant", "acme", "--dry-run"],
    );
    expect(plan.plan.steps[0]?.action).toBe("reserve");
    const reserve = ["claim", "reserve", "domain:a.example", "--tenant"];
    const { reservation, claim } = await json(reservedSchema, ...reserve, "acme", "--ttl", "1h");
    expect(claim).toMatchObject({ tenant: "acme", state: "reserved" });
    const taken = await run([...reserve, "globex"]);
    expect(taken.code).toBe(6);
    expect(taken.stderr).toContain("[CLAIM_TAKEN]: The name is reserved for the tenant acme.");
    const { op } = await json(acceptedSchema, "claim", "commit", reservation);
    // The router has told that it serves the revision.
    expect(op).toMatchObject({ kind: "claim.change", state: "done" });
    expect(op.headline).toContain("1 of 1 live routers");
    const found = await json(list(claimSchema), "claim", "get", "domain:A.example");
    expect(found.items.map(({ tenant }) => tenant)).toEqual(["acme"]);
    expect(await json(list(claimSchema), "claim", "ls", "--tenant", "acme")).toEqual(found);
    expect(await json(claimCheckSchema, "claim", "check", "domain:a.example")).toMatchObject({
      taken: true,
      tenant: "acme",
    });
    const shown = await run(["claim", "ls"]);
    expect(shown.stdout).toMatch(/^NAMESPACE {2}HASH .* TENANT {2}STATE/);
    expect(shown.stdout).not.toContain("a.example");
    await json(acceptedSchema, "claim", "release", "domain:a.example", "--tenant", "acme");
    const gone = await run(["claim", "get", "domain:a.example"]);
    expect({ code: gone.code, stdout: gone.stdout }).toEqual({ code: 5, stdout: "" });
    expect(gone.stderr).toContain("CLAIM_UNKNOWN");
  });

  test("a name comes from standard input, so that it stands in no history", async () => {
    const reserved = await run(
      ["claim", "reserve", "api-key:-", "--tenant", "acme", "-o", "json"],
      {
        stdin: "sk_live_1\n",
      },
    );
    expect(reserved.code).toBe(0);
    const { reservation } = reservedSchema.parse(JSON.parse(reserved.stdout));
    const checked = await run(["claim", "check", "api-key:-"], { stdin: "sk_live_1" });
    expect(checked.stdout).toContain("reserved");
    await json(acceptedSchema, "claim", "release", "--reservation", reservation);
    expect((await run(["claim", "check", "api-key:sk_live_1"])).stdout).toContain("free");
  });

  test("kinds of names are listed and added", async () => {
    const add = ["claim", "namespaces", "add", "sso", "--cardinality", "many", "--fold"];
    expect((await json(acceptedSchema, ...add)).op.state).toBe("done");
    const { items } = await json(list(claimNamespaceSchema), "claim", "namespaces");
    expect(items.find(({ name }) => name === "sso")).toMatchObject({ fold: true, routed: false });
    const refused = await run(["claim", "namespaces", "add", "x1", "--cardinality", "two"]);
    expect(refused.code).toBe(64);
  });

  test.each([
    [["claim", "check", "a.example"], "a name is NAMESPACE:NAME"],
    [["claim", "check", "Domain:a.example"], "a namespace is 2 to 40 characters"],
    [["claim", "check", "domain: "], "is empty"],
    [["claim", "reserve", "domain:x", "--tenant", "acme", "--ttl", "3d"], "from 1s to 24h"],
    [["claim", "release", "domain:x"], "--tenant says whose"],
    [["claim", "release"], "name what to release"],
  ])("%j is refused", async (args, text) => {
    const { code, stdout, stderr } = await run(args);
    expect({ code, stdout }).toEqual({ code: 64, stdout: "" });
    expect(stderr).toContain(text);
  });
});

describe("claim import", () => {
  const line = (value: string, tenant: string, namespace = "domain") =>
    JSON.stringify({ namespace, value, tenant });
  const send = (stdin: string, ...more: string[]) =>
    run(["claim", "import", "-", "-o", "json", ...more], { stdin });
  const namesOf = async (tenant: string) =>
    (await json(list(claimSchema), "claim", "ls", "--tenant", tenant)).items.length;

  test("commits a file, and does nothing the second time", async () => {
    const before = await namesOf("acme");
    const file = Array.from({ length: 10_500 }, (_, n) =>
      line(`p${n}@example.org`, "acme", "email"),
    );
    const dry = await send(file.join("\n"), "--dry-run");
    expect(claimImportResultSchema.parse(JSON.parse(dry.stdout))).toMatchObject({
      ...{ op: null, committed: 10_500 },
    });
    expect(await namesOf("acme")).toBe(before);
    const first = await send(file.join("\n"));
    expect(first.code).toBe(0);
    const done = claimImportResultSchema.parse(JSON.parse(first.stdout));
    expect(done).toMatchObject({ committed: 10_500, unchanged: 0, op: { state: "done" } });
    expect(done.op?.headline).toContain("1 of 1 live routers");
    const again = await send(`${file.join("\n")}\n`);
    expect(claimImportResultSchema.parse(JSON.parse(again.stdout))).toMatchObject({
      ...{ op: null, committed: 0, unchanged: 10_500 },
    });
    expect(await namesOf("acme")).toBe(before + 10_500);
  }, 60_000);

  test("refuses a file with a bad line whole, names the line and repeats no name", async () => {
    const before = await namesOf("globex");
    await json(acceptedSchema, "tenant", "alias", "add", "acme", "domain:held.example");
    const cases = [
      [line("x.example", "nobody"), "there is no tenant nobody"],
      [line("held.example", "globex"), "the name is committed for the tenant acme"],
      [
        `${line("two.example", "acme")}\n${line("Two.example", "globex")}`,
        "the name stands there for",
      ],
      ['{"namespace":"domain","value":"secret-name"}', "tenant: "],
      ["secret-name", "Invalid input"],
    ] as const;
    for (const [bad, error] of cases) {
      const { code, stdout, stderr } = await send(`\n${line("good.example", "globex")}\n${bad}`);
      expect({ code, stdout }).toEqual({ code: 64, stdout: "" });
      expect(stderr).toContain(error);
      expect(stderr).toContain("line 3");
      expect(stderr).not.toContain("secret-name");
    }
    expect(await namesOf("globex")).toBe(before);
    expect((await run(["claim", "import", "/nowhere.ndjson"])).stderr).toContain("FILE_UNREADABLE");
    const { rows } = await database.read.execute(
      sql`select 1 from cellfleet_control.audit where after::text like '%good.example%'`,
    );
    expect(rows).toEqual([]);
  });
});

describe("tenant alias", () => {
  test("add, list, remove: done when live routers know", async () => {
    const { op } = await json(
      acceptedSchema,
      "tenant",
      "alias",
      "add",
      "globex",
      "domain:b.example",
    );
    expect(op).toMatchObject({ state: "done" });
    expect(op.revision).not.toBeNull();
    await json(acceptedSchema, "claim", "namespaces", "add", "quiet", "--cardinality", "one");
    const { claim } = await json(
      reservedSchema,
      "claim",
      "reserve",
      "quiet:x",
      "--tenant",
      "globex",
    );
    expect(claim.state).toBe("reserved");
    const { items } = await json(list(claimSchema), "tenant", "alias", "ls", "globex");
    expect(items.map(({ namespace }) => namespace)).toEqual(["domain"]);
    const refused = await run(["tenant", "alias", "add", "globex", "quiet:x"]);
    expect(refused.code).toBe(64);
    expect(refused.stderr).toContain("routers are not told names of quiet");
    await json(acceptedSchema, "tenant", "alias", "rm", "globex", "domain:b.example");
    expect((await json(list(claimSchema), "tenant", "alias", "ls", "globex")).items).toEqual([]);
  });
});

/** Agents that answer every question, as they are told to. */
function answering(cell: string, client: JsonClient, reply: (sql: string) => object | "silence") {
  const stop = new AbortController();
  const loop = async () => {
    while (!stop.signal.aborted) {
      const told = await callAgent(client, cell, { waitMs: 300 }, stop.signal).catch(
        () => undefined,
      );
      for (const { id, sql: question } of told?.queries ?? []) {
        const answer = reply(question);
        if (answer === "silence") continue;
        const path = "/v1/machine/agent/query-answers";
        const body = { cell, id, answer };
        await client.call({ method: "POST", path, body, schema: z.any(), timeoutMs: 5000 });
      }
    }
  };
  const running = loop();
  closing.push(async () => {
    stop.abort();
    await running;
    await client.close();
  });
}

describe("query", () => {
  const rows = (columns: string[], values: (string | null)[][], truncated = false) => ({
    ...{ kind: "rows", columns, rows: values, truncated },
  });

  const both = (cell: string) =>
    rows(
      ["n", "word"],
      [
        [cell, "a\u001b[31m"],
        [null, ""],
      ],
    );
  const replies: Readonly<Record<string, Readonly<Record<string, object | "silence">>>> = {
    "cell-01": { "select both": both("cell-01"), "select columns": rows(["a"], [["1"]]) },
    "cell-02": {
      "select both": both("cell-02"),
      "select columns": rows(["b"], [["1"]]),
      "select error": { kind: "error", code: "42P01", message: "no such table" },
      "select silent": "silence",
      "select more": rows(["n"], [["1"]], true),
    },
  };

  test("merges cells into one table, and names every cell that is missing", async () => {
    for (const cell of ["cell-01", "cell-02"]) {
      const token = await tokenFor("agent", cell);
      const client = createJsonClient({
        ...{ origin: plane.url, token, unreachable: "CONTROL_PLANE_UNREACHABLE" as const },
      });
      answering(cell, client, (question) => replies[cell]?.[question] ?? rows(["n"], [["1"]]));
    }
    const both = await run(["query", "select both", "--all-cells"]);
    expect(both).toMatchObject({ code: 0 });
    expect(both.stdout.split("\n").slice(0, 5)).toEqual([
      "CELL     n        word",
      "cell-01  cell-01  a\\x1b[31m",
      "cell-01  -        -",
      "cell-02  cell-02  a\\x1b[31m",
      "cell-02  -        -",
    ]);
    const one = await json(mergedSchema, "query", "select\n 1", "--cell", "cell-02");
    expect(one).toEqual({
      ...{ columns: ["n"], missing: [], truncated: [] },
      items: [{ cell: "cell-02", values: ["1"] }],
    });

    const failed = await run(["query", "select error", "--all-cells", "-o", "json"]);
    expect(failed.code).toBe(1);
    const partly = mergedSchema.parse(JSON.parse(failed.stdout));
    expect(partly.items).toHaveLength(1);
    expect(partly.missing).toEqual([{ cell: "cell-02", reason: "42P01: no such table" }]);
    expect(failed.stderr).toContain("QUERY_INCOMPLETE");

    const silent = await run(["query", "select silent", "--all-cells", "--within", "300ms"]);
    expect(silent.code).toBe(1);
    expect(silent.stderr).toContain("cell-02 is missing: it did not answer within 300 ms");
    const partial = ["query", "select silent", "--all-cells", "--within", "300ms", "--partial"];
    const accepted = await run(partial);
    expect(accepted.code).toBe(0);
    expect(accepted.stderr).toContain("cell-02 is missing");

    const cut = await run(["query", "select more", "--all-cells"]);
    expect(cut.code).toBe(1);
    expect(cut.stderr).toContain("cell-02 has more rows than these");
    const mixed = await run(["query", "select columns", "--all-cells"]);
    expect(mixed.code).toBe(1);
    expect(mixed.stderr).toContain("cell-02 is missing: its columns are others: b");
  });

  test.each([
    [["query", "select 1"], "say whom to ask"],
    [["query", "select 1", "--all-cells", "--cell", "cell-01"], "say whom to ask"],
    [["query", "--all-cells"], "a question is missing"],
    [["query", "select 1", "--all-cells", "--rows", "0"], "--rows"],
    [["query", "select 1", "--all-cells", "--within", "1h"], "--within"],
    [["query", "select 1", "--cell", "Cell 1"], "cells"],
  ])("%j is refused", async (args, text) => {
    const { code, stdout, stderr } = await run(args);
    expect({ code, stdout }).toEqual({ code: 64, stdout: "" });
    expect(stderr).toContain(text);
  });
});
