/**
 * The end of a tenant, and what comes before it: suspended and resumed at the same epoch, deleted when
 * every cell has confirmed, its id spent for good. Whole control plane, router, provider's cells.
 */
import pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { receiptSchema, tenantExportSchema } from "../contract/adoption-api.ts";
import { type AgentSyncResponse, agentSyncResponseSchema } from "../contract/cell-protocol.ts";
import {
  acceptedSchema,
  auditEntrySchema,
  auditVerdictSchema,
  cellSchema,
  createdTokenSchema,
  dryRunSchema,
  importResultSchema,
  list,
  type Op,
  opSchema,
  tenantSchema,
} from "../contract/control-api.ts";
import { must } from "../runtime/assert.ts";
import { startTestPostgres, type TestPostgres } from "../tests/postgres.ts";
import { agentRequest, eventually } from "./control.fixture.ts";
import {
  codeOf,
  type FakeCell,
  type FakeProvider,
  type FakeRouter,
  finish,
  type Plane,
  startFakeCell,
  startFakeProvider,
  startFakeRouter,
  startPlane,
} from "./plane.fixture.ts";

let postgres: TestPostgres;
let provider: FakeProvider;
let plane: Plane;
let router: FakeRouter;
let db: pg.Client;

const accept = async (path: string, body: unknown = {}): Promise<Op> =>
  (await plane.send("POST", path, body, acceptedSchema)).op;
const succeed = async (op: Promise<Op>): Promise<Op> => {
  const done = await finish(plane, await op);
  expect(done.error).toBeNull();
  expect(done.state).toBe("done");
  return done;
};
const remove = async (id: string): Promise<Op> =>
  (await plane.send("DELETE", `/v1/tenants/${id}`, {}, acceptedSchema)).op;
const tenant = (id: string) => plane.get(`/v1/tenants/${id}`, tenantSchema);
const op = (id: string) => plane.get(`/v1/ops/${id}`, opSchema);
const agentOf = (cell: string): FakeCell => must(provider.cells.get(cell), cell);
const told = (cell: string, id: string) => agentOf(cell).keys.get(`default/tenant/${id}`);
const step = (id: string, wanted: string) =>
  eventually(
    () => op(id),
    (one) => one.step === wanted,
  );
const expire = (id: string) =>
  db.query("update cellfleet_control.op set deadline_at = now() where id = $1", [id]);

/** One call of the cell's agent that presents nothing but how far it has applied. */
async function syncAs(cell: string, appliedRevision: number): Promise<AgentSyncResponse> {
  const token = { name: `${cell} again`, role: "agent", subject: cell };
  const { secret } = await plane.send("POST", "/v1/tokens", token, createdTokenSchema);
  const said = agentRequest(cell, {
    appliedRevision,
    instance: "another",
    database: { grant: 0, reachable: true },
  });
  const init = {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(said),
  };
  const answer = await plane.raw("/v1/machine/agent/sync", init, secret);
  return agentSyncResponseSchema.parse(await answer.json());
}

beforeAll(async () => {
  postgres = await startTestPostgres();
  provider = await startFakeProvider(() => plane.url);
  const url = await postgres.createDatabase("life");
  db = new pg.Client({ connectionString: url });
  await db.connect();
  plane = await startPlane(url, { providerUrl: provider.url });
  const token = { name: "r1", role: "router", subject: "router-1" };
  const { secret } = await plane.send("POST", "/v1/tokens", token, createdTokenSchema);
  router = startFakeRouter({ origin: () => plane.url, token: secret, id: "router-1" });
  for (const id of ["cell-01", "cell-02"]) await succeed(accept("/v1/cells", { id }));
  const ids = ["acme", "globex", "initech", "umbrella", "hooli", "wonka"];
  await Promise.all(ids.map((id) => succeed(accept("/v1/tenants", { id, cell: "cell-01" }))));
});
afterAll(async () => {
  await router?.stop();
  await provider?.stop();
  await plane?.close();
  await db?.end();
  await postgres?.stop();
});

describe("suspend and resume", () => {
  test("refused by its cell and every router, then served again at the same epoch", async () => {
    const before = await tenant("acme");
    const suspended = await succeed(accept("/v1/tenants/acme/suspend"));
    expect(suspended.steps.map((one) => one.step)).toEqual(["fencing", "publishing", "done"]);
    expect(told("cell-01", "acme")).toMatchObject({ state: "fenced", epoch: 1 });
    expect((await tenant("acme")).placement.state).toBe("suspended");
    expect(await codeOf(accept("/v1/tenants/acme/suspend"))).toBe("STATE_CONFLICT");
    const resumed = await succeed(accept("/v1/tenants/acme/resume"));
    expect(resumed.steps.map((one) => one.step)).toEqual(["opening", "publishing", "done"]);
    expect(told("cell-01", "acme")).toMatchObject({ state: "active", epoch: 1 });
    const after = await tenant("acme");
    expect(after.placement).toMatchObject({ state: "active", epoch: before.placement.epoch });
    expect(await codeOf(accept("/v1/tenants/acme/resume"))).toBe("STATE_CONFLICT");
  });

  test("each word of an operation is above the one before, so that the cell obeys", async () => {
    await succeed(accept("/v1/tenants/acme/suspend"));
    const first = must(told("cell-01", "acme"), "first");
    agentOf("cell-01").applies = false;
    const resume = await accept("/v1/tenants/acme/resume");
    await step(resume.id, "opening");
    await expire(resume.id);
    const late = await finish(plane, resume);
    expect(late).toMatchObject({ state: "failed" });
    expect(late.error?.message).toContain("stays suspended");
    agentOf("cell-01").applies = true;
    const second = await eventually(
      async () => must(told("cell-01", "acme"), "second"),
      // An answer that was on its way may still say what the operation said first.
      ({ op: by, attempt }) => by === resume.id && attempt > 0,
    );
    expect(second).toMatchObject({ state: "fenced", attempt: 1 });
    expect(second.op > first.op).toBe(true);
    expect((await tenant("acme")).placement.state).toBe("suspended");
    await succeed(accept("/v1/tenants/acme/resume"));
  });

  test("is done only when the cell has applied it, and every router serves it", async () => {
    router.acks = false;
    agentOf("cell-01").applies = false;
    const suspending = await accept("/v1/tenants/globex/suspend");
    await eventually(
      () => op(suspending.id),
      ({ headline }) => headline.includes("waiting until cell-01"),
    );
    agentOf("cell-01").applies = true;
    const waiting = await step(suspending.id, "publishing");
    expect(waiting.state).toBe("running");
    router.acks = true;
    expect((await finish(plane, suspending)).state).toBe("done");
    await succeed(accept("/v1/tenants/globex/resume"));
  });

  test("while one runs another is refused, and a dry run changes nothing", async () => {
    agentOf("cell-01").applies = false;
    const suspending = await accept("/v1/tenants/globex/suspend");
    expect(await codeOf(accept("/v1/tenants/globex/resume"))).toBe("STATE_CONFLICT");
    expect(await codeOf(remove("globex"))).toBe("STATE_CONFLICT");
    agentOf("cell-01").applies = true;
    await succeed(Promise.resolve(suspending));
    const dry = await plane.send(
      "POST",
      "/v1/tenants/globex/resume",
      { dryRun: true },
      dryRunSchema,
    );
    expect(dry.plan.kind).toBe("tenant.resume");
    expect((await tenant("globex")).placement.state).toBe("suspended");
    await succeed(accept("/v1/tenants/globex/resume"));
  });
});

describe("delete", () => {
  test("every cell removes its rows and confirms; the receipt says so; the id is spent", async () => {
    await db.query(
      "insert into cellfleet_control.claim_namespace values ('domain', 'one', true, true) on conflict do nothing",
    );
    await db.query(`insert into cellfleet_control.claim (namespace, hash, keyspace, tenant, state, exclusive, revision)
      values ('domain', 'abcdefghijklmnopqrstuv', 'default', 'initech', 'committed', true, 1)`);
    const used = (await plane.get("/v1/cells/cell-01", cellSchema)).usage.tenants;
    const done = await succeed(remove("initech"));
    expect(done.steps.map((one) => one.step)).toEqual(["fencing", "purging", "publishing", "done"]);
    for (const id of ["cell-01", "cell-02"]) {
      expect(told(id, "initech")).toMatchObject({ state: "dropped", op: done.id });
      expect(agentOf(id).purgedKeys).toEqual(["default/tenant/initech"]);
    }
    const receipt = await plane.get("/v1/tenants/initech/receipt", receiptSchema);
    expect(receipt).toMatchObject({
      complete: true,
      op: done.id,
      claims: 1,
      cells: [
        { cell: "cell-01", state: "purged", rows: { "public.orders": 3 } },
        { cell: "cell-02", state: "purged", rows: { "public.orders": 3 } },
      ],
    });
    expect(receiptSchema.parse(done.result["receipt"])).toEqual(receipt);
    const { rows } = await db.query("select state from cellfleet_control.claim");
    expect(rows).toEqual([{ state: "released" }]);
    expect((await plane.get("/v1/cells/cell-01", cellSchema)).usage.tenants).toBe(used - 1);
    expect(await codeOf(tenant("initech"))).toBe("TENANT_UNKNOWN");
    expect(await codeOf(accept("/v1/tenants", { id: "initech" }))).toBe("TENANT_DELETED");
    expect(await codeOf(remove("initech"))).toBe("TENANT_DELETED");
    const loaded = await plane.raw("/v1/tenants/import?skipBadLines=true", {
      method: "POST",
      headers: { "content-type": "application/x-ndjson" },
      body: '{"id":"initech"}\n',
    });
    const { badLines } = importResultSchema.parse(await loaded.json());
    expect(badLines).toEqual([
      { line: 1, error: "a tenant with the id initech was deleted; ids are not used again" },
    ]);
  });

  test("a cell that is down is named and waited for, past every deadline; it goes on when it is back", async () => {
    agentOf("cell-02").purges = false;
    const deleting = await remove("umbrella");
    const waiting = await eventually(
      () => op(deleting.id),
      ({ headline }) => headline.endsWith("is left in cell-02"),
    );
    expect(waiting.step).toBe("purging");
    const receipt = await plane.get("/v1/tenants/umbrella/receipt", receiptSchema);
    expect(receipt).toMatchObject({
      complete: false,
      cells: [
        { cell: "cell-01", state: "purged" },
        { cell: "cell-02", state: "waiting" },
      ],
    });
    const asked = () =>
      agentOf("cell-02").purgedKeys.filter((key) => key === "default/tenant/umbrella").length;
    expect(asked()).toBe(1);
    await expire(deleting.id);
    // Late, and alive: asked once more.
    await eventually(
      async () => asked(),
      (times) => times === 2,
    );
    expect((await op(deleting.id)).state).toBe("running");
    expect(await codeOf(remove("umbrella"))).toBe("STATE_CONFLICT");
    agentOf("cell-02").purges = true;
    await succeed(Promise.resolve(deleting));
  });

  test("a suspended tenant can be deleted", async () => {
    await succeed(accept("/v1/tenants/hooli/suspend"));
    await succeed(remove("hooli"));
    expect(agentOf("cell-01").purgedKeys.at(-1)).toBe("default/tenant/hooli");
  });

  test("an agent that was started again hears of an open purge, and knows the command", async () => {
    await succeed(accept("/v1/tenants", { id: "soylent", cell: "cell-01" }));
    agentOf("cell-02").purges = false;
    const deleting = await remove("soylent");
    const first = await eventually(
      async () => told("cell-02", "soylent"),
      (change) => change?.purge === true,
    );
    // It has applied everything, and remembers no purge.
    const again = (await syncAs("cell-02", agentOf("cell-02").appliedRevision())).changes;
    expect(again).toEqual([first]);
    agentOf("cell-02").purges = true;
    await succeed(Promise.resolve(deleting));
    expect((await syncAs("cell-02", agentOf("cell-02").appliedRevision())).changes).toEqual([]);
  });

  test("after a purge is confirmed nobody is asked to purge again", async () => {
    const { rows } = await db.query(
      "select key from cellfleet_control.placement where value = 'initech' and deleted",
    );
    expect(rows).toHaveLength(1);
    const { changes } = await syncAs("cell-02", 0);
    expect(changes.map(({ key }) => key)).toContain("default/tenant/initech");
    expect(changes.filter(({ purge }) => purge === true)).toEqual([]);
  });

  test("a tenant of slots needs a placement of its own; then it is fenced for good, not dropped", async () => {
    await succeed(accept("/v1/keyspaces", { name: "users", strategy: "slots", slotCount: 4 }));
    await succeed(accept("/v1/tenants", { id: "ada", keyspace: "users" }));
    const { cell } = (await tenant("ada")).placement;
    for (const call of [() => accept("/v1/tenants/ada/suspend"), () => remove("ada")]) {
      expect(await codeOf(call())).toBe("STATE_CONFLICT");
    }
    await succeed(accept("/v1/overrides", { keyspace: "users", tenant: "ada", cell }));
    const done = await succeed(remove("ada"));
    expect(done.result["receipt"]).toMatchObject({ complete: true });
    const key = "users/tenant/ada";
    expect(agentOf(cell).keys.get(key)).toMatchObject({ state: "fenced", op: done.id });
    expect(agentOf(cell).purgedKeys.at(-1)).toBe(key);
    const { rows } = await db.query(
      "select state, deleted from cellfleet_control.placement where key = $1",
      [key],
    );
    expect(rows).toEqual([{ state: "suspended", deleted: false }]);
    const create = accept("/v1/tenants", { id: "ada", keyspace: "users" });
    expect(await codeOf(create)).toBe("TENANT_DELETED");
    // The id alone is spent, in every keyspace and by every way to make a key of it.
    await succeed(accept("/v1/keyspaces", { name: "others", strategy: "slots", slotCount: 4 }));
    for (const keyspace of ["users", "others"]) {
      const override = accept("/v1/overrides", { keyspace, tenant: "ada", cell });
      expect(await codeOf(override)).toBe("TENANT_DELETED");
    }
  });

  test("a cell that never comes back is destroyed, and the deletion ends with it", async () => {
    await succeed(accept("/v1/tenants", { id: "lonely", cell: "cell-01" }));
    await succeed(accept("/v1/cells", { id: "cell-03" }));
    await succeed(accept("/v1/tenants", { id: "stark", cell: "cell-03" }));
    agentOf("cell-03").applies = false;
    const deleting = await remove("stark");
    await eventually(
      () => op(deleting.id),
      ({ headline }) => headline.includes("cell-03"),
    );
    await succeed(accept("/v1/cells/cell-03/destroy"));
    const done = await succeed(Promise.resolve(deleting));
    const { cells, notes } = receiptSchema.parse(done.result["receipt"]);
    expect(cells.map(({ cell, state }) => `${cell} ${state}`)).toEqual([
      "cell-01 purged",
      "cell-02 purged",
      "cell-03 retired",
    ]);
    expect(notes.join("\n")).toContain("Counts of removed rows are at least");
    expect(notes.at(-1)).toContain("before it confirmed; its provider local removes its storage");
  });

  test("a cell without a provider is destroyed only on somebody's word, and the receipt says whose", async () => {
    await succeed(accept("/v1/tenants", { id: "lonely-2", cell: "cell-01" }));
    const made = await accept("/v1/cells", { id: "cell-04", provider: "none" });
    const token = { name: "cell-04", role: "agent", subject: "cell-04" };
    const { secret } = await plane.send("POST", "/v1/tokens", token, createdTokenSchema);
    const agent = await startFakeCell({ origin: () => plane.url, token: secret, cell: "cell-04" });
    try {
      await succeed(Promise.resolve(made));
      await succeed(accept("/v1/tenants", { id: "weyland", cell: "cell-04" }));
      agent.purges = false;
      const deleting = await remove("weyland");
      await step(deleting.id, "purging");
      expect(await codeOf(accept("/v1/cells/cell-04/destroy"))).toBe("SAFETY_RULE");
      expect((await op(deleting.id)).state).toBe("running");
      const said = { storageRemoved: true };
      await succeed(accept("/v1/cells/cell-04/destroy", said));
      const done = await succeed(Promise.resolve(deleting));
      const { cells, notes } = receiptSchema.parse(done.result["receipt"]);
      expect(cells.find(({ cell }) => cell === "cell-04")).toMatchObject({ state: "retired" });
      expect(notes.at(-1)).toMatch(
        /^The storage of cell-04 was not removed by Cellfleet; bootstrap \(\S+\) said on \d{4}-.* that it is gone\.$/,
      );
    } finally {
      await agent.stop();
    }
    const needless = accept("/v1/cells/cell-02/destroy", { storageRemoved: true });
    expect(await codeOf(needless)).toBe("REQUEST_INVALID");
  });
});

test("an export says where the rows stand, and is in the audit log", async () => {
  const body = { reason: "asked by the customer" };
  const where = await plane.send("POST", "/v1/tenants/wonka/export", body, tenantExportSchema);
  expect(where).toMatchObject({ tenant: "wonka", cell: "cell-01", epoch: 1 });
  const audit = await plane.get("/v1/audit?limit=500", list(auditEntrySchema));
  expect(audit.items.find(({ action }) => action === "tenant.export")).toMatchObject({
    object: "wonka",
    reason: "asked by the customer",
  });
  for (const action of ["tenant.suspend", "tenant.resume", "tenant.delete"]) {
    expect(audit.items.map((one) => one.action)).toContain(action);
  }
  expect(await plane.get("/v1/audit/verify", auditVerdictSchema)).toMatchObject({ ok: true });
});
