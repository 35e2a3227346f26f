/** Adoption and the end of a tenant from the command line, against a whole control plane. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { receiptSchema } from "../contract/adoption-api.ts";
import { acceptedSchema, cellSchema, dryRunSchema } from "../contract/control-api.ts";
import { eventually } from "../control-plane/control.fixture.ts";
import {
  adminSecret,
  type FakeCell,
  type Plane,
  startFakeCell,
  startPlane,
} from "../control-plane/plane.fixture.ts";
import { startTestPostgres, type TestPostgres } from "../tests/postgres.ts";
import { cellctl, type RunOptions } from "./cli.fixture.ts";

let postgres: TestPostgres;
let plane: Plane;
let agent: FakeCell | undefined;

beforeAll(async () => {
  postgres = await startTestPostgres();
  plane = await startPlane(await postgres.createDatabase("cli_adoption"));
});
afterAll(async () => {
  await agent?.stop();
  await plane?.close();
  await postgres?.stop();
});

const run = (args: readonly string[], options: RunOptions = {}) =>
  cellctl(args, {
    ...options,
    env: { CELLCTL_ADDR: plane.url, CELLCTL_TOKEN: adminSecret, ...options.env },
  });
async function ok(args: readonly string[], options: RunOptions = {}): Promise<string> {
  const { code, stdout, stderr } = await run(args, options);
  expect({ code, stderr: code === 0 ? "" : stderr }).toEqual({ code: 0, stderr: "" });
  return stdout;
}
const cell = () => plane.get("/v1/cells/shop-01", cellSchema);

const adopt = [
  ...["cell", "adopt", "shop-01", "--endpoint", "http://127.0.0.1:9411"],
  ...["--service", "search=http://127.0.0.1:9421", "--service", "search=http://127.0.0.1:9422"],
  ...[
    "--database-url-ref",
    "env:SHOP",
    "--store",
    "events=file:/run/events",
    "--key-column",
    "org",
  ],
  ...["--mover", "env:SHOP_MOVER"],
];

test("a cell is adopted with its services and stores; an address is no reference", async () => {
  const secret = await run([
    "cell",
    "adopt",
    "x-01",
    "--endpoint",
    "http://h:1",
    "--database-url-ref",
    "postgres://u:p@h/d",
  ]);
  expect(secret.code).toBe(64);
  expect(secret.stderr).toContain("env:NAME, file:PATH or exec:COMMAND");
  expect((await run(["cell", "adopt", "x-01", "--database-url-ref", "env:A"])).code).toBe(64);
  const plan = dryRunSchema.parse(JSON.parse(await ok([...adopt, "--dry-run", "-o", "json"])));
  expect(plan.plan.kind).toBe("cell.adopt");
  const done = acceptedSchema.parse(JSON.parse(await ok([...adopt, "-o", "json"])));
  expect(done.op.state).toBe("done");
  expect(done.next_steps).toEqual(["cellctl cell stage shop-01 observe"]);
  expect(await cell()).toMatchObject({
    services: {
      default: { endpoints: ["http://127.0.0.1:9411"] },
      search: { endpoints: ["http://127.0.0.1:9421", "http://127.0.0.1:9422"] },
    },
    stores: {
      default: { database: "env:SHOP", keyColumn: "org", mover: "env:SHOP_MOVER" },
      events: { database: "file:/run/events", keyColumn: "org" },
    },
  });
});

test("how its databases are reached is told later, store by store, and what is not said stays", async () => {
  const set = ["cell", "set", "shop-01"];
  const { default: first, events } = (await cell()).stores;
  expect((await run(set)).code).toBe(64);
  const secret = await run([...set, "--mover", "events=postgres://u:hunter2@h/d"]);
  expect(secret.code).toBe(64);
  expect(secret.stderr).not.toContain("hunter2");
  const plan = dryRunSchema.parse(
    JSON.parse(await ok([...set, "--mover", "events=env:M", "--dry-run", "-o", "json"])),
  );
  expect(plan.plan.steps.map(({ text }) => text)).toEqual(["set mover of the store events"]);
  expect((await cell()).stores).toEqual({ default: first, events });
  const done = acceptedSchema.parse(
    JSON.parse(await ok([...set, "--mover", "events=exec:pass show mover=events", "-o", "json"])),
  );
  expect(done.op.state).toBe("done");
  const withMover = { ...events, mover: "exec:pass show mover=events" };
  expect((await cell()).stores).toEqual({ default: first, events: withMover });
  const unknown = await run([...set, "--mover", "archive=env:M"]);
  expect(unknown.code).toBe(64);
  expect(unknown.stderr).toContain("the cell has no store archive yet");
  await ok([...set, "--store", "archive=env:ARCHIVE", "--mover", "archive=env:M"]);
  expect((await cell()).stores).toEqual({
    default: first,
    events: withMover,
    archive: { database: "env:ARCHIVE", keyColumn: "tenant_id", mover: "env:M" },
  });
});

test("stores that are no databases are told with their hooks, shown, and forgotten", async () => {
  const set = ["cell", "set", "shop-01"];
  const { stores } = await cell();
  for (const [args, text] of [
    [["--hook", "cache"], "must be NAME=URL"],
    [["--hook", "cache=redis:6379"], "http or https"],
    [["--hook-timeout", "5s"], "goes with --hook"],
    [["--hook", "cache=http://h/c", "--hook-timeout", "1h"], "at most 10m"],
    [["--hook", "cache=http://h/c", "--ignore-store", "cache"], "named twice"],
    [["--ignore-store", "events"], "events is a database"],
    [["--forget-store", "cache"], "no external store cache"],
  ] as const) {
    const { code, stderr } = await run([...set, ...args]);
    expect([code, stderr]).toEqual([64, expect.stringContaining(text)]);
  }
  const hooks = ["--hook", "cache=http://h:8080/c", "--hook-command", "files=/opt/files --all"];
  await ok([...set, ...hooks, "--hook-timeout", "30s", "--ignore-store", "sessions"]);
  expect((await cell()).stores).toMatchObject({
    ...stores,
    cache: { kind: "external", hook: { url: "http://h:8080/c", timeoutMs: 30_000 } },
    files: { kind: "external", hook: { command: "/opt/files --all", timeoutMs: 30_000 } },
    sessions: { kind: "external", ignore: true },
  });
  const shown = await ok(["cell", "get", "shop-01"]);
  expect(shown).toMatch(/cache +external +hook http:\/\/h:8080\/c +within 30/);
  expect(shown).toMatch(/sessions +external +stays behind/);
  const forget = ["cache", "files", "sessions"].flatMap((name) => ["--forget-store", name]);
  await ok([...set, ...forget]);
  expect((await cell()).stores).toEqual(stores);
});

test("stages are shown with what would be refused, refused with the next command, and gone through", async () => {
  const early = await run(["cell", "stage", "shop-01", "observe"]);
  expect(early.code).toBe(4);
  expect(early.stderr).toContain("cellctl agent --cell shop-01");
  expect((await run(["cell", "stage", "shop-01", "enforced"])).code).toBe(64);
  const token = JSON.parse(
    await ok(["token", "create", "shop", "--role", "agent", "--subject", "shop-01", "-o", "json"]),
  );
  agent = await startFakeCell({ origin: () => plane.url, token: token.secret, cell: "shop-01" });
  agent.guardedTables = 2;
  await eventually(cell, ({ health }) => health === "healthy");
  await ok(["cell", "stage", "shop-01", "observe"]);
  for (const id of ["acme", "globex"]) await ok(["tenant", "create", id]);
  agent.wouldRefuse = { CF001: 3 };
  await eventually(cell, ({ wouldRefuse }) => wouldRefuse?.["CF001"] === 3);
  const shown = await ok(["cell", "get", "shop-01"]);
  expect(shown).toMatch(/stage: +observe/);
  expect(shown).toMatch(/would refuse: +CF001 3/);
  expect(await ok(["cell", "ls"])).toMatch(/STAGE[\s\S]*observe/);
  const plan = await ok(["cell", "stage", "shop-01", "enforce", "--dry-run"]);
  expect(plan).toContain("NOT MET: the last request that would have been refused");
  const refused = await run(["cell", "stage", "shop-01", "enforce"]);
  expect(refused.code).toBe(4);
  expect(refused.stderr).toContain("--accept-refusals");
  const forced = ["cell", "stage", "shop-01", "enforce", "--accept-refusals"];
  expect((await run(forced)).stderr).toContain("--confirm shop-01");
  await ok([...forced, "--yes"]);
  expect((await cell()).stage).toBe("enforce");
});

test("a tenant is suspended and resumed by name", async () => {
  const unasked = await run(["tenant", "suspend", "acme"]);
  expect(unasked.code).not.toBe(0);
  expect(unasked.stderr).toContain("--confirm acme");
  await ok(["tenant", "suspend", "acme", "--yes"]);
  expect(await ok(["tenant", "get", "acme"])).toMatch(/state: +suspended/);
  await ok(["tenant", "resume", "acme"]);
  expect(await ok(["tenant", "get", "acme"])).toMatch(/state: +active/);
});

test("a tenant is deleted by typing its id; the receipt is printed, and found again", async () => {
  const wrong = await run(["tenant", "delete", "acme"], { terminal: true, stdin: "acne\n" });
  expect(wrong.code).not.toBe(0);
  expect(await ok(["tenant", "get", "acme"])).toMatch(/state: +active/);
  const typed = await ok(["tenant", "delete", "acme", "--color", "never"], {
    terminal: true,
    stdin: "acme\n",
  });
  expect(typed).toMatch(/complete: +yes/);
  expect(typed).toContain("shop-01  no row is left, 3 rows removed");
  expect(typed).toContain("public.orders");
  const again = await run(["tenant", "get", "acme"]);
  expect(again.code).toBe(5);
  expect(again.stderr).toContain("cellctl tenant receipt acme");
  const receipt = receiptSchema.parse(
    JSON.parse(await ok(["tenant", "receipt", "acme", "-o", "json"])),
  );
  expect(receipt.complete).toBe(true);
  const reused = await run(["tenant", "create", "acme"]);
  expect(reused.code).toBe(6);
  expect(reused.stderr).toContain("ids are not used again");
  const scripted = await ok(["tenant", "delete", "globex", "--yes", "-o", "json"]);
  expect(acceptedSchema.parse(JSON.parse(scripted)).op.result).toHaveProperty("receipt");
});
