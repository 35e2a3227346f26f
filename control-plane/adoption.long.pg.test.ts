/**
 * A running application becomes a cell: adopted, observed, enforced, and each step back; and what the
 * rest of the fleet may not do meanwhile. Whole control plane, a router, cells' agents over real sockets.
 */
import pg from "pg";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { stageDryRunSchema } from "../contract/adoption-api.ts";
import type { UnclassedTables } from "../contract/cell-protocol.ts";
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
  opSchema,
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
const cell = () => plane.get("/v1/cells/shop-01", cellSchema);
const tokenOf = async (role: "agent" | "router", subject: string): Promise<string> => {
  const body = { name: subject, role, subject };
  return (await plane.send("POST", "/v1/tokens", body, createdTokenSchema)).secret;
};
const startAgent = async (): Promise<FakeCell> => {
  const id = "shop-01";
  agent = await startFakeCell({
    origin: () => plane.url,
    token: await tokenOf("agent", id),
    cell: id,
    services: ["search", "default"],
  });
  await eventually(cell, ({ health }) => health === "healthy");
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
  await eventually(cell, ({ guardedTables }) => guardedTables === 3);
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

test("enforce is refused while a condition does not hold, and a dry run says how each stands", async () => {
  await succeed("/v1/cells/adopt", shop);
  const running = await startAgent();
  await succeed("/v1/cells/shop-01/stage", { stage: "observe" });
  const look = () =>
    plane.send(
      "POST",
      "/v1/cells/shop-01/stage",
      { stage: "enforce", dryRun: true },
      stageDryRunSchema,
    );
  const verdicts = async () =>
    Object.fromEntries((await look()).conditions.map(({ name, ok }) => [name, ok]));
  expect(await verdicts()).toEqual({
    agent: true,
    guard: false,
    coverage: true,
    placements: false,
    refusals: false,
  });
  expect((await look()).plan.steps.map(({ text }) => text).join("\n")).toContain(
    "NOT MET: no table is under the guard",
  );
  running.guardedTables = 3;
  await eventually(cell, ({ guardedTables }) => guardedTables === 3);
  await succeed("/v1/tenants", { id: "acme" });
  await quiet();
  expect(await verdicts()).toEqual({
    ...{ agent: true, guard: true, coverage: true, placements: true, refusals: true },
  });
  // One request that would have been refused, and the minute begins anew.
  running.wouldRefuse = { CF001: 4 };
  await eventually(cell, ({ wouldRefuse }) => wouldRefuse?.["CF001"] === 4);
  expect(await verdicts()).toMatchObject({ refusals: false });
  expect(await refused("/v1/cells/shop-01/stage", { stage: "enforce" })).toBe("SAFETY_RULE");
  await quiet();
  expect(await verdicts()).toMatchObject({ refusals: true });
  running.wouldRefuse = { CF001: 5 };
  await eventually(cell, ({ wouldRefuse }) => wouldRefuse?.["CF001"] === 5);
  await succeed("/v1/cells/shop-01/stage", { stage: "enforce", acceptRefusals: true });
  expect(running.stage()).toBe("enforce");
});

test("a table that a migration forgot keeps a cell from enforce, by name, and is an event once", async () => {
  const running = await observed();
  await quiet();
  const forgetIn = async (unclassed: UnclassedTables) => {
    running.unclassed = unclassed;
    await eventually(cell, (seen) => JSON.stringify(seen.unclassed) === JSON.stringify(unclassed));
  };
  await forgetIn({ count: 1, names: ["public.notes"] });
  const asked = accept("/v1/cells/shop-01/stage", { stage: "enforce", acceptRefusals: true });
  await expect(asked).rejects.toMatchObject({
    code: "SAFETY_RULE",
    message: expect.stringContaining("(public.notes)"),
    nextSteps: [
      expect.stringContaining("cellctl schema check"),
      expect.stringContaining("cellctl schema install"),
    ],
  });
  expect((await cell()).stage).toBe("observe");
  await forgetIn({ count: 2, names: ["public.logs", "public.notes"] });
  // An agent that could not look takes nothing back.
  running.unclassed = undefined;
  running.guardedTables = 4;
  await eventually(cell, ({ guardedTables }) => guardedTables === 4);
  expect((await cell()).unclassed?.count).toBe(2);
  await forgetIn({ count: 0, names: [] });
  const { rows } = await db.query(
    "select object, text from cellfleet_control.event where kind = 'cell.uncovered'",
  );
  expect(rows).toEqual([
    {
      object: "shop-01",
      text: "shop-01: 1 table is neither guarded nor classed in the manifest (public.notes)",
    },
  ]);
  await quiet();
  await succeed("/v1/cells/shop-01/stage", { stage: "enforce" });
  expect(running.stage()).toBe("enforce");
});

test("a cell whose agent tells nothing of its tables is not taken to enforce", async () => {
  await succeed("/v1/cells/adopt", shop);
  const running = await startAgent();
  running.unclassed = undefined;
  running.guardedTables = 3;
  await succeed("/v1/tenants", { id: "acme" });
  await succeed("/v1/cells/shop-01/stage", { stage: "observe" });
  await eventually(cell, ({ guardedTables }) => guardedTables === 3);
  // As it stands where no agent has ever told it.
  await db.query("update cellfleet_control.cell set unclassed = null");
  await quiet();
  const plan = await plane.send(
    "POST",
    "/v1/cells/shop-01/stage",
    { stage: "enforce", dryRun: true },
    stageDryRunSchema,
  );
  expect(plan.conditions.filter(({ ok }) => !ok).map(({ name }) => name)).toEqual(["coverage"]);
});

test("routers' counters are looked at too, and shown by reason", async () => {
  await observed();
  await quiet();
  await db.query(
    `update cellfleet_control.router set would_refuse = '{"TENANT_MISSING": 2}', would_refuse_at = now()`,
  );
  await router.stop();
  expect((await cell()).wouldRefuse).toEqual({ TENANT_MISSING: 2 });
  expect(await refused("/v1/cells/shop-01/stage", { stage: "enforce" })).toBe("SAFETY_RULE");
});

test("observe needs an agent that serves; without one it is refused, with the command that starts it", async () => {
  await succeed("/v1/cells/adopt", shop);
  const answer = await plane.raw("/v1/cells/shop-01/stage", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ stage: "observe" }),
  });
  const { error } = (await answer.json()) as { error: { code: string; next_steps: string[] } };
  expect(error.code).toBe("SAFETY_RULE");
  expect(error.next_steps.join("\n")).toContain("cellctl agent --cell shop-01");
  expect(await refused("/v1/cells/shop-01/stage", { stage: "enforce" })).toBe("STATE_CONFLICT");
});

test("adopt with observe waits for the agent, and is one operation", async () => {
  const op = await accept("/v1/cells/adopt", { ...shop, observe: true });
  await eventually(
    () => plane.get(`/v1/ops/${op.id}`, opSchema),
    ({ step }) => step === "agents-inward",
  );
  expect((await cell()).stage).toBe("pass-through");
  const running = await startAgent();
  const done = await finish(plane, op);
  expect(done).toMatchObject({ state: "done", error: null });
  expect(running.stage()).toBe("observe");
  expect((await cell()).stage).toBe("observe");
});

test("an agent that does not obey in time: back to the former stage, with the reason", async () => {
  const running = await observed();
  await quiet();
  running.obeysStage = false;
  const op = await accept("/v1/cells/shop-01/stage", { stage: "enforce" });
  await eventually(
    () => plane.get(`/v1/ops/${op.id}`, opSchema),
    ({ step }) => step === "agents-inward",
  );
  await expire(op);
  const done = await finish(plane, op);
  expect(done).toMatchObject({ state: "failed", step: "failed" });
  expect(done.error?.message).toContain("back in stage observe");
  const { rows } = await db.query("select stage, stage_goal from cellfleet_control.cell");
  expect(rows).toEqual([{ stage: "observe", stage_goal: "observe" }]);
  running.obeysStage = true;
  await quiet();
  await succeed("/v1/cells/shop-01/stage", { stage: "enforce" });
});

test("a condition that breaks between plan and commit takes the agents back", async () => {
  const running = await observed();
  await quiet();
  running.obeysStage = false;
  const op = await accept("/v1/cells/shop-01/stage", { stage: "enforce" });
  await eventually(
    () => plane.get(`/v1/ops/${op.id}`, opSchema),
    ({ step }) => step === "agents-inward",
  );
  running.wouldRefuse = { CF001: 1 };
  await eventually(cell, ({ wouldRefuse }) => wouldRefuse?.["CF001"] === 1);
  running.obeysStage = true;
  const done = await finish(plane, op);
  expect(done.state).toBe("failed");
  expect(done.error?.message).toContain("would have been refused");
  await eventually(
    async () => running.stage(),
    (stage) => stage === "observe",
  );
  expect((await cell()).stage).toBe("observe");
});

test("a router that does not hear of it keeps the cell in its stage on the way out", async () => {
  await observed();
  await quiet();
  await succeed("/v1/cells/shop-01/stage", { stage: "enforce" });
  router.acks = false;
  const op = await accept("/v1/cells/shop-01/stage", { stage: "pass-through" });
  await eventually(
    () => plane.get(`/v1/ops/${op.id}`, opSchema),
    ({ step }) => step === "routers-outward",
  );
  expect(agent?.stage()).toBe("enforce");
  await expire(op);
  const done = await finish(plane, op);
  expect(done.state).toBe("failed");
  expect(done.error?.message).toContain("router-1");
  expect((await cell()).stage).toBe("enforce");
});

test("pass-through is reached though no agent runs any more; its database refused nothing", async () => {
  const running = await observed();
  await running.stop();
  agent = undefined;
  await db.query("update cellfleet_control.agent set seen_at = now() - interval '1 hour'");
  const done = await succeed("/v1/cells/shop-01/stage", { stage: "pass-through" });
  expect(done.headline).toContain("no agent runs there");
  await eventually(cell, ({ health }) => health === "unknown");
});

test("while a cell does not enforce, no other cell takes tenants", async () => {
  await observed();
  const rule = async (path: string, body: object) => {
    const answer = await plane.raw(path, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    const { error } = (await answer.json()) as {
      error: { code: string; next_steps: string[]; details?: { rule?: string } };
    };
    return [error.code, error.details?.rule, error.next_steps.at(-1)];
  };
  const refusal = ["SAFETY_RULE", "one-adopted-cell", "cellctl cell stage shop-01 enforce"];
  const second = { id: "cell-02", provider: "none", endpoints: ["http://127.0.0.1:9555"] };
  expect(await rule("/v1/cells", second)).toEqual(refusal);
  const other = { ...shop, id: "shop-02" };
  expect(await rule("/v1/cells/adopt", other)).toEqual(refusal);
  await db.query(`insert into cellfleet_control.cell
    select (jsonb_populate_record(c, '{"id": "cell-09", "adopted": false, "stage": "enforce",
      "stage_goal": "enforce", "health": "healthy"}')).* from cellfleet_control.cell as c`);
  expect(await rule("/v1/tenants", { id: "globex", cell: "cell-09" })).toEqual(refusal);
  await db.query("update cellfleet_control.cell set state = 'cordoned' where id = 'cell-09'");
  expect(await rule("/v1/cells/cell-09/uncordon", {})).toEqual(refusal);
  await db.query("update cellfleet_control.cell set state = 'active' where id = 'cell-09'");
  // Nothing named: it goes where it may.
  await succeed("/v1/tenants", { id: "globex" });
  expect((await plane.get("/v1/tenants/globex", tenantSchema)).placement.cell).toBe("shop-01");
  const slots = await succeed("/v1/keyspaces", {
    name: "users",
    strategy: "slots",
    slotCount: 8,
  });
  expect(slots.state).toBe("done");
  const { rows } = await db.query("select distinct cell from cellfleet_control.placement");
  expect(rows).toEqual([{ cell: "shop-01" }]);
});

test("tenants are imported in pass-through when an agent is there to place them, not before", async () => {
  await succeed("/v1/cells/adopt", shop);
  const load = (body: string) =>
    plane.raw("/v1/tenants/import", {
      method: "POST",
      headers: { "content-type": "application/x-ndjson" },
      body,
    });
  const early = await load('{"id":"acme"}\n');
  expect(early.status).toBe(409);
  expect(JSON.stringify(await early.json())).toContain("no agent of it serves yet");
  await startAgent();
  const loaded = importResultSchema.parse(await (await load('{"id":"acme"}\n')).json());
  expect(loaded.perCell).toEqual({ "shop-01": 1 });
  if (loaded.op === null) throw new Error("no operation");
  expect((await finish(plane, loaded.op)).state).toBe("done");
  expect((await cell()).stage).toBe("pass-through");
});

test("a fleet that owns something adopts nothing, and a cell goes back only while it owns all", async () => {
  await observed();
  await quiet();
  await succeed("/v1/cells/shop-01/stage", { stage: "enforce" });
  await db.query(`insert into cellfleet_control.cell
    select (jsonb_populate_record(c, '{"id": "cell-09", "adopted": false, "stage": "enforce",
      "stage_goal": "enforce", "health": "healthy"}')).* from cellfleet_control.cell as c`);
  await db.query(`insert into cellfleet_control.placement
    (key, keyspace, kind, value, cell, epoch, state, revision, op)
    values ('default/tenant/globex', 'default', 'tenant', 'globex', 'cell-09', 1, 'active', 1, 'op_1')`);
  expect(await refused("/v1/cells/shop-01/stage", { stage: "observe" })).toBe("SAFETY_RULE");
  expect(await refused("/v1/cells/adopt", { ...shop, id: "shop-02" })).toBe("SAFETY_RULE");
  await db.query("update cellfleet_control.placement set deleted = true where cell = 'cell-09'");
  await succeed("/v1/cells/shop-01/stage", { stage: "observe" });
});

test("the way back of an adoption: in pass-through the cell leaves the fleet, and only our books with it", async () => {
  const running = await observed();
  expect(await refused("/v1/cells/shop-01/destroy")).toBe("SAFETY_RULE");
  await succeed("/v1/cells/shop-01/stage", { stage: "pass-through" });
  await succeed("/v1/cells/shop-01/destroy");
  expect(await codeOf(plane.get("/v1/tenants/acme", tenantSchema))).toBe("TENANT_UNKNOWN");
  // No row was asked to go.
  expect(running.purgedKeys).toEqual([]);
  // Another try, under another name, with the same tenants: their ids are not spent.
  await running.stop();
  agent = undefined;
  await succeed("/v1/cells/adopt", { ...shop, id: "shop-02" });
});

test("a cell that was not adopted has no stages", async () => {
  await succeed("/v1/cells/adopt", shop);
  await db.query(
    "update cellfleet_control.cell set adopted = false, stage = 'enforce', stage_goal = 'enforce'",
  );
  expect(await refused("/v1/cells/shop-01/stage", { stage: "observe" })).toBe("STATE_CONFLICT");
});

test("which services an agent stands in front of is recorded, and a change is told to the routers", async () => {
  await succeed("/v1/cells/adopt", shop);
  await startAgent();
  const { rows } = await db.query("select services from cellfleet_control.agent");
  expect(rows).toEqual([{ services: ["default", "search"] }]);
});

/** Observed, enforced, and quiet: what the way back begins with. */
async function enforced(): Promise<FakeCell> {
  const running = await observed();
  await quiet();
  await succeed("/v1/cells/shop-01/stage", { stage: "enforce" });
  return running;
}

test("nobody leaves enforce while somebody is suspended or being deleted, and nobody is suspended on the way", async () => {
  const running = await enforced();
  await succeed("/v1/tenants/acme/suspend");
  const back = { stage: "observe" };
  const dry = () =>
    plane.send("POST", "/v1/cells/shop-01/stage", { ...back, dryRun: true }, stageDryRunSchema);
  expect((await dry()).next_steps).toContain("cellctl tenant resume ID");
  expect(await refused("/v1/cells/shop-01/stage", back)).toBe("SAFETY_RULE");
  await succeed("/v1/tenants/acme/resume");
  // A deletion whose cell has not confirmed.
  await succeed("/v1/tenants", { id: "globex" });
  running.purges = false;
  const deletion = (await plane.send("DELETE", "/v1/tenants/globex", {}, acceptedSchema)).op;
  const named = (await dry()).conditions.filter(({ ok }) => !ok).map(({ name }) => name);
  expect(named).toEqual(["deletions"]);
  expect(await refused("/v1/cells/shop-01/stage", back)).toBe("SAFETY_RULE");
  running.purges = true;
  expect((await finish(plane, deletion)).state).toBe("done");
  router.acks = false;
  const op = await accept("/v1/cells/shop-01/stage", back);
  expect(await refused("/v1/tenants/acme/suspend")).toBe("STATE_CONFLICT");
  router.acks = true;
  expect((await finish(plane, op)).state).toBe("done");
});

test("a cell whose database still enforces is not destroyed, and no other cell takes tenants while one does not", async () => {
  const running = await enforced();
  running.obeysStage = false;
  const op = await accept("/v1/cells/shop-01/stage", { stage: "pass-through" });
  await eventually(
    () => plane.get(`/v1/ops/${op.id}`, opSchema),
    ({ step }) => step === "agents-outward",
  );
  await expire(op);
  expect((await finish(plane, op)).state).toBe("failed");
  expect(await refused("/v1/cells/shop-01/destroy")).toBe("SAFETY_RULE");
  running.obeysStage = true;
  await eventually(
    () => db.query("select stage_applied from cellfleet_control.cell"),
    ({ rows }) => rows[0]?.stage_applied === "pass-through",
  );
  await succeed("/v1/cells/shop-01/destroy");
});

test("a database in enforce by an earlier change than the last keeps the cell adopting", async () => {
  const running = await enforced();
  running.obeysStage = false;
  await db.query("update cellfleet_control.cell set stage_number = stage_number + 2");
  const other = { id: "cell-02", provider: "none", endpoints: ["http://127.0.0.1:9555"] };
  // An answer of the change in between may be under way to it.
  expect(await refused("/v1/cells", other)).toBe("SAFETY_RULE");
  running.obeysStage = true;
  await eventually(
    () =>
      db.query("select stage_applied_number - stage_number as late from cellfleet_control.cell"),
    ({ rows }) => Number(rows[0]?.late) === 0,
  );
  await accept("/v1/cells", other);
});
