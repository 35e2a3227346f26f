/** Commands against the real control API over a real database: every JSON answer fits the contract. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { z } from "zod";
import {
  acceptedSchema,
  auditEntrySchema,
  auditVerdictSchema,
  cellSchema,
  createdTokenSchema,
  dryRunSchema,
  importResultSchema,
  keyspaceSchema,
  list,
  opSchema,
  overrideSchema,
  resolutionSchema,
  routerSchema,
  statusSchema,
  tenantSchema,
  tokenSchema,
} from "../contract/control-api.ts";
import { eventSchema } from "../contract/event-api.ts";
import { explanationSchema } from "../contract/explanation.ts";
import { recoverySchema } from "../contract/recovery-api.ts";
import { routingSchema } from "../contract/routing-api.ts";
import { auditEndpoints } from "../control-plane/api/audit.ts";
import { cellEndpoints } from "../control-plane/api/cells.ts";
import { failoverEndpoints } from "../control-plane/api/failover.ts";
import { keyspaceEndpoints } from "../control-plane/api/keyspaces.ts";
import { opEndpoints } from "../control-plane/api/ops.ts";
import { overrideEndpoints } from "../control-plane/api/overrides.ts";
import { recoveryEndpoints } from "../control-plane/api/recovery.ts";
import { routingEndpoints } from "../control-plane/api/routing.ts";
import { standbyEndpoints } from "../control-plane/api/standbys.ts";
import { statusEndpoints } from "../control-plane/api/status.ts";
import { tenantImportEndpoints } from "../control-plane/api/tenant-import.ts";
import { tenantEndpoints } from "../control-plane/api/tenants.ts";
import { tokenEndpoints } from "../control-plane/api/tokens.ts";
import {
  type ControlFixture,
  callRouter,
  openCell,
  startControl,
} from "../control-plane/control.fixture.ts";
import { startTestPostgres, type TestPostgres } from "../tests/postgres.ts";
import { cellctl, type RunOptions } from "./cli.fixture.ts";

let postgres: TestPostgres;
let control: ControlFixture;
let env: Record<string, string>;

beforeAll(async () => {
  postgres = await startTestPostgres();
  control = await startControl(await postgres.createDatabase("cli"), (context) => [
    ...statusEndpoints(context),
    ...cellEndpoints(context),
    ...failoverEndpoints(context),
    ...standbyEndpoints(context),
    ...tenantEndpoints(context),
    ...tenantImportEndpoints(context),
    ...keyspaceEndpoints(context),
    ...overrideEndpoints(context),
    ...routingEndpoints(context),
    ...opEndpoints(context),
    ...auditEndpoints(context),
    ...tokenEndpoints(context),
    ...recoveryEndpoints(context),
  ]);
  await openCell(control.database, "cell-01");
  await openCell(control.database, "cell-02", { tenants: 10 });
  env = { CELLCTL_ADDR: control.origin, CELLCTL_TOKEN: await control.token("admin") };
  await callRouter(await control.client("router", "router-01"), "router-01");
});
afterAll(async () => {
  await control?.close();
  await postgres?.stop();
});

const run = (args: readonly string[], options: RunOptions = {}) =>
  cellctl(args, { ...options, env: { ...env, ...options.env } });

async function json<T extends z.ZodType>(schema: T, ...args: string[]): Promise<z.output<T>> {
  const { code, stdout, stderr } = await run([...args, "-o", "json"]);
  expect({ code, stderr: code === 0 ? "" : stderr }).toEqual({ code: 0, stderr: "" });
  return schema.parse(JSON.parse(stdout));
}

describe("reading", () => {
  test("every command prints what the contract says", async () => {
    expect(await json(recoverySchema, "recovery", "show")).toMatchObject({ mode: "normal" });
    expect(await json(statusSchema, "status")).toMatchObject({ cells: { total: 2 } });
    expect((await json(list(cellSchema), "cell", "ls")).items).toHaveLength(2);
    expect(await json(cellSchema, "cell", "get", "cell-01")).toMatchObject({ id: "cell-01" });
    await json(list(tenantSchema), "tenant", "ls", "--cell", "cell-01", "--prefix", "a");
    expect((await json(list(keyspaceSchema), "keyspace", "ls")).items).toMatchObject([
      { name: "default" },
    ]);
    await json(keyspaceSchema, "keyspace", "get", "default");
    await json(list(overrideSchema), "route", "override", "ls");
    await json(routingSchema, "routing", "get");
    expect((await json(list(routerSchema), "router", "ls")).items).toMatchObject([
      { id: "router-01", live: true },
    ]);
    await json(routerSchema, "router", "get", "router-01");
    await json(list(opSchema), "op", "ls", "--state", "running", "--kind", "cell.create");
    await json(list(eventSchema), "events", "--since", "1h");
    await json(list(auditEntrySchema), "audit", "ls", "--since", "1h", "--limit", "5");
    expect(await json(auditVerdictSchema, "audit", "verify")).toMatchObject({ ok: true });
    await json(list(tokenSchema), "token", "ls");
    const what = ["--tier", "gold", "--size", "1GiB", "--rps", "5"];
    expect(await json(explanationSchema, "explain", "placement", "nobody", ...what)).toMatchObject({
      current: null,
      candidates: [{ cell: expect.any(String) }, { cell: expect.any(String) }],
    });
  });

  test("tables are for people: every kind has one, and no header with --no-headers", async () => {
    for (const args of [
      ["cell", "ls"],
      ["keyspace", "ls"],
      ["router", "ls"],
      ["token", "ls"],
    ]) {
      const { code, stdout } = await run(args);
      expect(code).toBe(0);
      expect(stdout).toMatch(/^[A-Z]+ /);
      const bare = (await run([...args, "--no-headers"])).stdout;
      const firstWords = (text: string) => text.split("\n").map((line) => line.split(" ")[0]);
      expect(firstWords(bare)).toEqual(firstWords(stdout).slice(1));
    }
    const nothing = await run(["op", "ls", "--kind", "nothing"]);
    expect(nothing).toEqual({ code: 0, stdout: "", stderr: "Nothing to list.\n" });
    expect((await run(["cell", "ls", "-o", "name"])).stdout).toBe("cell-01\ncell-02\n");
  });
});

describe("changing", () => {
  test("a dry run prints the plan and changes nothing", async () => {
    const plan = await json(
      dryRunSchema,
      "tenant",
      "create",
      "acme",
      "--cell",
      "cell-02",
      "--dry-run",
    );
    expect(plan.plan.steps.length).toBeGreaterThan(0);
    expect((await run(["tenant", "get", "acme"])).code).toBe(5);
  });

  test("a tenant is recorded with its reason, and audited", async () => {
    const args = [
      "tenant",
      "create",
      "acme",
      "--cell",
      "cell-02",
      "--label",
      "plan=gold",
      "--size",
      "10MB",
    ];
    const accepted = await json(acceptedSchema, ...args, "--no-wait", "--reason", "first customer");
    expect(accepted.op).toMatchObject({ kind: "tenant.create", reason: "first customer" });
    expect(await json(tenantSchema, "tenant", "get", "acme")).toMatchObject({
      labels: { plan: "gold" },
      placement: { cell: "cell-02" },
    });
    expect((await json(list(tenantSchema), "tenant", "ls", "-l", "plan=gold")).items).toHaveLength(
      1,
    );
    const located = await json(resolutionSchema, "tenant", "locate", "acme");
    const resolved = await json(resolutionSchema, "route", "resolve", "--tenant", "acme");
    expect([located.cell, located.epoch]).toEqual([resolved.cell, resolved.epoch]);
    expect(await json(explanationSchema, "explain", "placement", "acme")).toMatchObject({
      current: { cell: "cell-02" },
    });
    const entries = await json(list(auditEntrySchema), "audit", "ls", "--action", "tenant.create");
    expect(entries.items).toContainEqual(
      expect.objectContaining({ reason: "first customer", outcome: "accepted" }),
    );
    expect(await json(opSchema, "op", "show", accepted.op.id)).toMatchObject({
      id: accepted.op.id,
    });
    // Nothing decides here, so the operation stays where it is.
    const late = await run(["op", "watch", accepted.op.id, "--timeout", "300ms"]);
    expect(late.code).toBe(124);
    expect(late.stderr).toContain(`cellctl op watch ${accepted.op.id}`);
  });

  test("the same idempotency key is one change", async () => {
    const args = ["tenant", "create", "globex", "--no-wait", "--idempotency-key", "once"];
    const first = await json(acceptedSchema, ...args);
    const again = await json(acceptedSchema, ...args);
    expect(again.op.id).toBe(first.op.id);
    const other = await run([
      "tenant",
      "create",
      "initech",
      "--no-wait",
      "--idempotency-key",
      "once",
    ]);
    expect(other.code).toBe(6);
    expect(other.stderr).toContain("[IDEMPOTENCY_MISMATCH]");
  });

  test("a tenant of slots is located before it is registered", async () => {
    await json(
      acceptedSchema,
      "keyspace",
      "create",
      "users",
      "--strategy",
      "slots",
      "--slots",
      "8",
      "--no-wait",
    );
    const located = await json(resolutionSchema, "tenant", "locate", "u-1", "--keyspace", "users");
    expect(located.key).toMatch(/^users\/slot\/\d+$/);
    const explained = await run([
      "route",
      "resolve",
      "--tenant",
      "u-1",
      "--keyspace",
      "users",
      "--explain",
    ]);
    expect(explained.stdout).toContain("found by:");
  });

  test("a token is made, used, listed without its secret, and revoked", async () => {
    const created = await json(
      createdTokenSchema,
      "token",
      "create",
      "ci",
      "--role",
      "viewer",
      "--ttl",
      "1h",
    );
    const asViewer = { env: { CELLCTL_TOKEN: created.secret } };
    expect((await run(["status"], asViewer)).code).toBe(0);
    const refused = await run(["cell", "cordon", "cell-01"], asViewer);
    expect(refused.code).toBe(77);
    expect(refused.stderr).toContain("[FORBIDDEN]");
    expect((await run(["token", "ls", "-o", "json"])).stdout).not.toContain(created.secret);
    expect((await run(["token", "revoke", created.token.id])).code).toBe(64);
    const revoked = await json(acceptedSchema, "token", "revoke", created.token.id, "--yes");
    expect(revoked.op.state).toBe("done");
    expect((await run(["status"], asViewer)).code).toBe(77);
  });

  test("an override has slashes in its id, and is asked about under that id", async () => {
    const { code, stderr } = await run(["route", "override", "rm", "users/tenant/nobody", "--yes"]);
    expect(code).toBe(5);
    expect(stderr).toContain("users/tenant/nobody");
  });

  test("the routing rules come out as they can go in", async () => {
    const { stdout } = await run(["routing", "get", "-o", "yaml"]);
    const folder = await mkdtemp(join(tmpdir(), "cellctl-routing-"));
    try {
      await writeFile(join(folder, "routing.yaml"), stdout);
      const { code, stdout: plan } = await run(
        ["routing", "set", "-f", "routing.yaml", "--dry-run"],
        { cwd: folder },
      );
      expect({ code, plan }).toEqual({
        code: 0,
        plan: expect.stringContaining("replace the rules"),
      });
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});

describe("tenant import", () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "cellctl-import-"));
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));
  const file = async (name: string, text: string) => {
    await writeFile(join(folder, name), text);
    return join(folder, name);
  };
  const importing = (path: string, ...more: string[]) =>
    run(["tenant", "import", path, "--no-wait", "-o", "json", ...more]);

  test("of CSV and of NDJSON", async () => {
    const csv = await file("one.csv", "id,tier,cell\ncsv-1,gold,cell-01\ncsv-2,standard,\n");
    const first = await importing(csv, "--reason", "move in");
    expect(first.code).toBe(0);
    expect(importResultSchema.parse(JSON.parse(first.stdout))).toMatchObject({
      accepted: 2,
      skipped: 0,
    });
    const ndjson = await file(
      "two.ndjson",
      '{"id":"nd-1","labels":{"plan":"x"}}\n\n{"id":"nd-2"}\n',
    );
    expect(JSON.parse((await importing(ndjson)).stdout)).toMatchObject({ accepted: 2 });
    expect((await run(["tenant", "ls", "--prefix", "csv-", "-o", "name"])).stdout).toBe(
      "csv-1\ncsv-2\n",
    );
  });

  test("with a bad line applies nothing, names the line, and ends with 64", async () => {
    const path = await file("bad.ndjson", '{"id":"good-1"}\n{"id":"no spaces"}\n{"id":\n');
    const { code, stdout, stderr } = await run(["tenant", "import", path]);
    expect({ code, stdout }).toEqual({ code: 64, stdout: "" });
    expect(stderr).toContain("[IMPORT_INVALID]");
    expect(stderr).toContain("Nothing was changed.");
    for (const line of ["line 2: ", "line 3: "]) expect(stderr).toContain(line);
    expect((await run(["tenant", "get", "good-1"])).code).toBe(5);
  });

  test("skips bad lines when told to, and says which", async () => {
    const path = await file("skip.ndjson", '{"id":"good-2"}\n{"id":"no spaces"}\n');
    const { code, stdout, stderr } = await importing(path, "--skip-bad-lines");
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ accepted: 1, skipped: 1, badLines: [{ line: 2 }] });
    expect(stderr).toContain("line 2: ");
    expect((await run(["tenant", "get", "good-2"])).code).toBe(0);
  });

  test("only checks with --dry-run", async () => {
    const path = await file("dry.csv", "id\ndry-1\n");
    expect((await importing(path, "--dry-run")).code).toBe(0);
    expect((await run(["tenant", "get", "dry-1"])).code).toBe(5);
  });

  test("that is refused at once says why, however large the file is", async () => {
    const line = `${JSON.stringify({ id: "x", labels: { filler: "y".repeat(180) } })}\n`;
    const path = await file("large.ndjson", line.repeat(120_000));
    const { code, stderr } = await run(["tenant", "import", path, "-q"], {
      env: { CELLCTL_TOKEN: "nonsense" },
    });
    expect(stderr).toContain("[UNAUTHENTICATED]");
    expect(code).toBe(77);
  });
});

describe("refusals", () => {
  test.each([
    [["cell", "get", "cell-99"], 5, "CELL_UNKNOWN"],
    [["tenant", "get", "nobody"], 5, "TENANT_UNKNOWN"],
    [["tenant", "locate", "nobody"], 5, "TENANT_UNKNOWN"],
    [["op", "show", "op_nothing"], 5, "OP_UNKNOWN"],
    [["keyspace", "get", "nothing"], 5, "KEYSPACE_UNKNOWN"],
    [["router", "get", "nothing"], 5, "NOT_FOUND"],
    [["token", "revoke", "tok-nothing", "-y"], 5, "TOKEN_UNKNOWN"],
    [["recovery", "freeze", "cell-01"], 64, "NOT_CONFIRMED"],
    [["recovery", "freeze", "cell-01", "--yes"], 64, "VALIDATION_FAILED"],
    [["recovery", "freeze", "cell-01", "--yes", "--reason", "it is gone"], 6, "STATE_CONFLICT"],
    [["cell", "create", "cell-01"], 6, "CELL_EXISTS"],
    [["cell", "create", "Cell 1"], 64, "VALIDATION_FAILED"],
    [["tenant", "create", "<script>alert(1)</script>"], 64, "VALIDATION_FAILED"],
    [["tenant", "create", "x'; drop table tenant; --"], 64, "VALIDATION_FAILED"],
    [["tenant", "create", "\u001b[2J"], 64, "VALIDATION_FAILED"],
    [["tenant", "get", "\u001b[2J"], 64, "VALIDATION_FAILED"],
    [["failover", "start", "cell-01", "--yes"], 4, "FAILOVER_BLOCKED"],
    [["failover", "status", "op_nowhere"], 5, "FAILOVER_UNKNOWN"],
    [["tenant", "create", "huge", "--size", "900GiB"], 4, "CAPACITY_EXHAUSTED"],
  ])("%j ends with %i %s, typed and with nothing raw", async (args, exit, code) => {
    const { code: got, stdout, stderr } = await run(args);
    expect({ got, stdout }).toEqual({ got: exit, stdout: "" });
    expect(stderr).toContain(`[${code}]`);
    expect(stderr).not.toContain("\u001b");
  });

  test("a wrong token is 77, and a token that has expired says so", async () => {
    const wrong = await run(["status"], { env: { CELLCTL_TOKEN: "nonsense" } });
    expect(wrong.code).toBe(77);
    expect(wrong.stderr).toContain("[UNAUTHENTICATED]");
  });
});

test("completion offers the fleet's own ids", async () => {
  expect((await run(["__complete", "cell", "get", ""])).stdout).toBe("cell-01\ncell-02\n");
  expect((await run(["__complete", "tenant", "get", "ac"])).stdout).toBe("acme\n");
});
