/**
 * A running application becomes a cell: adopted, observed, enforced, and each step back; and what the
 * rest of the fleet may not do meanwhile. Whole control plane, a router, cells' agents over real sockets.
 */
import pg from "pg";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { stageDryRunSchema } from "../contract/adoption-api.ts";
import {
  acceptedSchema,
  auditEntrySchema,
  cellSchema,
  createdTokenSchema,
  dryRunSchema,
  importResultSchema,
  keyspaceSchema,
  list,
  type Op,
  tenantSchema,
} from "../contract/control-api.ts";
import { startTestPostgres, type TestPostgres } from "../tests/postgres.ts";
import { eventually } from "./control.fixture.ts";
import {
  codeOf,
  type FakeCell,
  type FakeRouter,
  finish,
  type Plane,
  startFakeCell,
  startFakeRouter,
  startPlane,
} from "./plane.fixture.ts";

let postgres: TestPostgres;
let plane: Plane;
let router: FakeRouter;
let db: pg.Client;
let agent: FakeCell | undefined;
let round = 0;

const shop = {
  id: "shop-01",
  endpoints: ["http://127.0.0.1:9411"],
  services: { search: { endpoints: ["http://127.0.0.1:9421"] } },
  stores: { default: { database: "env:SHOP_DATABASE", keyColumn: "account_id" } },
};

const accept = async (path: string, body: unknown = {}): Promise<Op> =>
  (await plane.send("POST", path, body, acceptedSchema)).op;
const succeed = async (path: string, body: unknown = {}): Promise<Op> => {
  const done = await finish(plane, await accept(path, body));
  expect(done.error).toBeNull();
  expect(done.state).toBe("done");
  return done;
};
const refused = (path: string, body: unknown = {}) => codeOf(accept(path, body));
const cell = (id = "shop-01") => plane.get(`/v1/cells/${id}`, cellSchema);
const tokenOf = async (role: "agent" | "router", subject: string): Promise<string> => {
  const body = { name: subject, role, subject };
  return (await plane.send("POST", "/v1/tokens", body, createdTokenSchema)).secret;
};
const startAgent = async (id = "shop-01"): Promise<FakeCell> => {
  agent = await startFakeCell({
    origin: () => plane.url,
    token: await tokenOf("agent", id),
    cell: id,
    services: ["search", "default"],
  });
  await eventually(
    () => cell(id),
    ({ health }) => health === "healthy",
  );
  return agent;
};
const quiet = () =>
  db.query(
    "update cellfleet_control.cell set stage_at = stage_at - interval '2 min', would_refuse_at = would_refuse_at - interval '2 min'",
  );
const expire = (op: Op) =>
  db.query("update cellfleet_control.op set deadline_at = now() where id = $1", [op.id]);

beforeAll(async () => {
  postgres = await startTestPostgres();
});
beforeEach(async () => {
  await endRound();
  round += 1;
  const url = await postgres.createDatabase(`adoption_${round}`);
  db = new pg.Client({ connectionString: url });
  await db.connect();
  plane = await startPlane(url);
  router = startFakeRouter({
    origin: () => plane.url,
    token: await tokenOf("router", "router-1"),
    id: "router-1",
  });
  await eventually(
    async () => (await db.query("select 1 from cellfleet_control.router")).rowCount,
    (count) => count === 1,
  );
});
afterAll(async () => {
  await endRound();
  await postgres?.stop();
});

async function endRound(): Promise<void> {
  await agent?.stop();
  agent = undefined;
  await router?.stop();
  await plane?.close();
  await db?.end();
}

/** Adopted, its agent started, a tenant placed, and in stage observe. */
async function observed(): Promise<FakeCell> {
  await succeed("/v1/cells/adopt", shop);
  const running = await startAgent();
  running.guardedTables = 3;
  await succeed("/v1/tenants", { id: "acme" });
  await succeed("/v1/cells/shop-01/stage", { stage: "observe" });
  return running;
}

test("what runs is adopted at once, without an agent, in pass-through, and nothing calls it down", async () => {
  const plan = await plane.send("POST", "/v1/cells/adopt", { ...shop, dryRun: true }, dryRunSchema);
  expect(plan.plan.steps.map(({ action }) => action)).toEqual([
    "register",
    "guard-mode",
    "publish",
  ]);
  const op = await succeed("/v1/cells/adopt", shop);
  expect(op.kind).toBe("cell.adopt");
  expect(op.headline).toContain("1 of 1 live routers");
  expect(await cell()).toMatchObject({
    state: "active",
    goal: "active",
    stage: "pass-through",
    adopted: true,
    provider: "none",
    health: "unknown",
    healthReason: "pass-through: nothing of ours runs there",
    services: { default: { endpoints: shop.endpoints }, search: shop.services.search },
    stores: shop.stores,
  });
  const { items } = await plane.get("/v1/keyspaces", list(keyspaceSchema));
  expect(items).toMatchObject([{ name: "default", guardMode: "row" }]);
  const audit = await plane.get("/v1/audit?limit=100", list(auditEntrySchema));
  expect(audit.items.map(({ action }) => action)).toContain("cell.adopt");
});

test("a reference is stored, never a URL with a password, and it must say where the application listens", async () => {
  const url = { default: { database: "postgres://shop:hunter2@db/shop" } };
  expect(await refused("/v1/cells/adopt", { ...shop, stores: url })).toBe("VALIDATION_FAILED");
  const { rows } = await db.query("select * from cellfleet_control.audit");
  expect(JSON.stringify(rows)).not.toContain("hunter2");
  expect(await refused("/v1/cells/adopt", { id: "shop-01", stores: shop.stores })).toBe(
    "VALIDATION_FAILED",
  );
});

test("pass-through, observe, enforce and back again, each one operation", async () => {
  const running = await observed();
  expect(running.stage()).toBe("observe");
  expect((await cell()).stage).toBe("observe");
  await quiet();
  const inward = await succeed("/v1/cells/shop-01/stage", { stage: "enforce" });
  expect(inward.steps.map(({ step }) => step)).toEqual([
    "starting",
    "agents-inward",
    "routers-inward",
    "done",
  ]);
  expect(running.stage()).toBe("enforce");
  expect(await cell()).toMatchObject({ stage: "enforce", health: "healthy" });
  const outward = await succeed("/v1/cells/shop-01/stage", { stage: "observe" });
  expect(outward.steps.map(({ step }) => step)).toEqual([
    "starting",
    "routers-outward",
    "agents-outward",
    "done",
  ]);
  await succeed("/v1/cells/shop-01/stage", { stage: "pass-through" });
  expect(running.stage()).toBe("pass-through");
  expect((await cell()).stage).toBe("pass-through");
  const audit = await plane.get("/v1/audit?limit=100", list(auditEntrySchema));
  expect(audit.items.filter(({ action }) => action === "cell.stage")).toHaveLength(4);
});
