/** The control plane as its users meet it: cells and tenants from nothing to retired, over real sockets. */
import pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  acceptedSchema,
  auditEntrySchema,
  auditVerdictSchema,
  cellSchema,
  createdTokenSchema,
  dryRunSchema,
  keyspaceSchema,
  list,
  type Op,
  overrideSchema,
  resolutionSchema,
  routerSchema,
  statusSchema,
  tenantSchema,
} from "../contract/control-api.ts";
import { eventSchema } from "../contract/event-api.ts";
import { explanationSchema } from "../contract/explanation.ts";
import { startTestPostgres, type TestPostgres } from "../tests/postgres.ts";
import { eventually } from "./control.fixture.ts";
import {
  codeOf,
  type FakeProvider,
  type FakeRouter,
  finish,
  type Plane,
  startFakeProvider,
  startFakeRouter,
  startPlane,
} from "./plane.fixture.ts";

let postgres: TestPostgres;
let provider: FakeProvider;
let plane: Plane;
let router: FakeRouter;

const accept = async (path: string, body: unknown = {}): Promise<Op> =>
  (await plane.send("POST", path, body, acceptedSchema)).op;
const succeed = async (path: string, body: unknown = {}): Promise<Op> => {
  const done = await finish(plane, await accept(path, body));
  expect(done.error).toBeNull();
  expect(done.state).toBe("done");
  return done;
};
const cell = (id: string) => plane.get(`/v1/cells/${id}`, cellSchema);

/** Its time is over now, instead of in minutes. */
async function expire(op: string): Promise<void> {
  const db = new pg.Client({ connectionString: postgres.url("plane") });
  await db.connect();
  await db.query("update cellfleet_control.op set deadline_at = now() where id = $1", [op]);
  await db.end();
}

beforeAll(async () => {
  postgres = await startTestPostgres();
  provider = await startFakeProvider(() => plane.url);
  const url = await postgres.createDatabase("plane");
  plane = await startPlane(url, { providerUrl: provider.url });
  const { secret } = await plane.send(
    "POST",
    "/v1/tokens",
    { name: "r1", role: "router", subject: "router-1" },
    createdTokenSchema,
  );
  router = startFakeRouter({ origin: () => plane.url, token: secret, id: "router-1" });
});
afterAll(async () => {
  await router?.stop();
  await provider?.stop();
  await plane?.close();
  await postgres?.stop();
});

describe("a fleet from nothing", () => {
  test("three cells are created, lease and all, and are open for placement", async () => {
    const ops = await Promise.all(
      ["cell-01", "cell-02", "cell-03"].map((id) => succeed("/v1/cells", { id })),
    );
    expect(ops.every(({ step }) => step === "done")).toBe(true);
    expect(ops[0]?.steps.map(({ step }) => step)).toEqual([
      "creating",
      "opening",
      "publishing",
      "done",
    ]);
    const one = await cell("cell-01");
    expect(one).toMatchObject({ state: "active", goal: "active", health: "healthy" });
    expect(one.lease.grant).toBeGreaterThan(0);
    expect(one.lease.outstandingMs).toBeGreaterThan(1_000_000);
    expect(one.services["default"]?.endpoints).toEqual([provider.cells.get("cell-01")?.gate]);
  });

  test("60 tenants are spread 20 to a cell, and every one is served where it is said to be", async () => {
    const ids = Array.from({ length: 60 }, (_, index) => `tenant-${index}`);
    await Promise.all(ids.map((id) => succeed("/v1/tenants", { id })));
    const { items } = await plane.get("/v1/cells", list(cellSchema));
    expect(items.map(({ usage }) => usage.tenants)).toEqual([20, 20, 20]);
    const tenants = await plane.get("/v1/tenants?limit=1000", list(tenantSchema));
    expect(tenants.items).toHaveLength(60);
    expect(tenants.items.every(({ placement }) => placement.state === "active")).toBe(true);
    const first = await plane.get("/v1/tenants/tenant-7", tenantSchema);
    const found = await plane.get("/v1/tenants/tenant-7/placement", resolutionSchema);
    const resolved = await plane.get("/v1/route/resolve?tenant=tenant-7", resolutionSchema);
    expect(found.cell).toBe(first.placement.cell);
    expect(resolved.cell).toBe(first.placement.cell);
    const byHost = await plane.get(
      "/v1/route/resolve?host=tenant-7.localhost:8080",
      resolutionSchema,
    );
    expect(byHost.cell).toBe(first.placement.cell);
  });

  test("lists page through everything exactly once", async () => {
    const seen: string[] = [];
    let cursor = "";
    for (;;) {
      const page = await plane.get(`/v1/tenants?limit=7${cursor}`, list(tenantSchema));
      seen.push(...page.items.map(({ id }) => id));
      if (page.next === null) break;
      cursor = `&cursor=${page.next}`;
    }
    expect(seen).toHaveLength(60);
    expect(new Set(seen).size).toBe(60);
    const inOne = await plane.get("/v1/tenants?cell=cell-02&limit=1000", list(tenantSchema));
    expect(inOne.items).toHaveLength(20);
    const named = await plane.get("/v1/tenants?prefix=tenant-5", list(tenantSchema));
    expect(named.items).toHaveLength(11);
  });

  test("status and routers say how it stands", async () => {
    const status = await eventually(
      () => plane.get("/v1/status", statusSchema),
      ({ routers }) => routers.inSync === 1,
    );
    expect(status).toMatchObject({
      mode: "normal",
      leader: { self: true },
      cells: { total: 3, healthy: 3, down: 0 },
      tenants: 60,
      ops: { running: 0, failed: 0 },
    });
    const routers = await plane.get("/v1/routers", list(routerSchema));
    expect(routers.items).toMatchObject([{ id: "router-1", live: true, behind: 0 }]);
  });
});

describe("done means that live routers serve it", () => {
  test("an operation waits for the router that lags, and says which", async () => {
    router.acks = false;
    const op = await accept("/v1/tenants", { id: "patient" });
    const waiting = await eventually(
      () => plane.get(`/v1/ops/${op.id}`, acceptedSchema.shape.op),
      ({ headline }) => headline.includes("router-1"),
    );
    expect(waiting).toMatchObject({ state: "running", step: "publishing" });
    const found = await plane.get("/v1/tenants/patient", tenantSchema);
    expect(found.placement.state).toBe("active");
    router.acks = true;
    expect((await finish(plane, op)).state).toBe("done");
  });
});

describe("a cell in trouble", () => {
  test("two cells of three are killed at once: the third stays, whoever asks", async () => {
    const asked = await Promise.allSettled(
      ["cell-01", "cell-02", "cell-03"].map((id) => accept(`/v1/cells/${id}/kill`)),
    );
    const refused = asked.filter(({ status }) => status === "rejected");
    expect(refused).toMatchObject([{ reason: { code: "SAFETY_RULE" } }]);
    for (const one of asked) {
      if (one.status === "fulfilled") expect((await finish(plane, one.value)).state).toBe("done");
    }
    // A report that was on its way when the cell was killed may still count for one look.
    const { items } = await eventually(
      () => plane.get("/v1/cells", list(cellSchema)),
      ({ items: seen }) => seen.filter(({ health }) => health === "down").length === 2,
    );
    const last = items.find(({ health }) => health !== "down");
    expect(await codeOf(accept(`/v1/cells/${last?.id}/stop`))).toBe("SAFETY_RULE");
    for (const { id, health } of items)
      if (health === "down") await succeed(`/v1/cells/${id}/start`);
  });

  test("killed: its health goes down by observation, its tenants stay, no tenant is placed there", async () => {
    const starts = () => provider.asked.filter((one) => one === "start cell-03").length;
    const startsBefore = starts();
    await succeed("/v1/cells/cell-03/kill", { reason: "a drill" });
    const down = await eventually(
      () => cell("cell-03"),
      ({ healthReason }) => healthReason.includes("does not answer"),
    );
    expect(down).toMatchObject({ health: "down", state: "active", goal: "active" });
    const events = await plane.get("/v1/events?limit=50", list(eventSchema));
    const told03 = events.items.filter(({ object }) => object === "cell-03").slice(-2);
    expect(told03.map(({ kind }) => kind)).toEqual(["cell.down", "op.done"]);
    const told = await plane.get("/v1/tenants/nobody-yet/placement/explain", explanationSchema);
    const third = told.candidates.find((one) => one.cell === "cell-03");
    expect(third?.decision).toBe("no");
    expect(told.would_change_if).toContain("cell-03 were healthy");
    expect(await codeOf(accept("/v1/tenants", { id: "x", cell: "cell-03" }))).toBe(
      "CAPACITY_EXHAUSTED",
    );
    // Nobody brings it back silently.
    expect(starts()).toBe(startsBefore);
  });

  test("started again: done only when it serves", async () => {
    const op = await succeed("/v1/cells/cell-03/start");
    expect(op.headline).toContain("serves again");
    expect(await cell("cell-03")).toMatchObject({ health: "healthy" });
  });

  test("a cell that does not apply placements: the tenant is taken back, with what it reserved", async () => {
    const deaf = provider.cells.get("cell-01");
    if (deaf === undefined) throw new Error("no cell-01");
    const before = await cell("cell-01");
    deaf.applies = false;
    const op = await accept("/v1/tenants", {
      id: "unlucky",
      cell: "cell-01",
      size: { bytes: 1000 },
    });
    const reserved = await cell("cell-01");
    expect(reserved.usage.tenants).toBe(before.usage.tenants + 1);
    expect(reserved.usage.bytes).toBe(before.usage.bytes + 1000);
    await expire(op.id);
    const failed = await finish(plane, op);
    expect(failed).toMatchObject({ state: "failed", error: { code: "OP_FAILED" } });
    expect(failed.error?.message).toContain("cell-01");
    expect(await codeOf(plane.get("/v1/tenants/unlucky", tenantSchema))).toBe("TENANT_UNKNOWN");
    expect((await cell("cell-01")).usage).toEqual(before.usage);
    deaf.applies = true;
    // The same id again: the epoch goes on above the tombstone's.
    await succeed("/v1/tenants", { id: "unlucky" });
    const again = await plane.get("/v1/tenants/unlucky", tenantSchema);
    expect(again.placement.epoch).toBe(2);
  });
});

describe("intent for a cell", () => {
  test("cordoned, it keeps its tenants and takes no new ones; uncordoned, it does", async () => {
    await succeed("/v1/cells/cell-02/cordon", { reason: "maintenance" });
    expect(await cell("cell-02")).toMatchObject({ state: "cordoned", goal: "cordoned" });
    expect(await codeOf(accept("/v1/tenants", { id: "y", cell: "cell-02" }))).toBe(
      "CAPACITY_EXHAUSTED",
    );
    expect(await codeOf(accept("/v1/cells/cell-02/cordon"))).toBe("STATE_CONFLICT");
    await succeed("/v1/cells/cell-02/uncordon");
    expect(await cell("cell-02")).toMatchObject({ state: "active" });
  });

  test("a cell that owns anything is not destroyed; an empty one is, and its id is spent", async () => {
    expect(await codeOf(accept("/v1/cells/cell-01/destroy"))).toBe("SAFETY_RULE");
    await succeed("/v1/cells", { id: "cell-04" });
    await succeed("/v1/cells/cell-04/destroy");
    expect(await cell("cell-04")).toMatchObject({ state: "retired", goal: "retired" });
    expect(provider.asked).toContain("destroy cell-04");
    expect(await codeOf(accept("/v1/cells", { id: "cell-04" }))).toBe("CELL_EXISTS");
    expect(await codeOf(accept("/v1/cells/cell-04/start"))).toBe("STATE_CONFLICT");
  });

  test("a provider that fails for a while only delays a cell", async () => {
    provider.failures = 2;
    await succeed("/v1/cells", { id: "cell-05" });
    await succeed("/v1/cells/cell-05/destroy");
  });

  test("a creation that failed leaves the cell provisioning; creating it again goes on, or it is cleared away", async () => {
    provider.failures = Number.POSITIVE_INFINITY;
    const op = await accept("/v1/cells", { id: "cell-06" });
    await eventually(
      () => plane.get(`/v1/ops/${op.id}`, acceptedSchema.shape.op),
      ({ headline }) => headline.includes("the provider failed"),
    );
    expect(await codeOf(accept("/v1/cells", { id: "cell-06" }))).toBe("CELL_EXISTS");
    await expire(op.id);
    const failed = await finish(plane, op);
    expect(failed.error).toMatchObject({ code: "PROVIDER_FAILED" });
    expect(failed.error?.next_steps.join()).toContain("cellctl cell create cell-06");
    expect(await cell("cell-06")).toMatchObject({ state: "provisioning" });
    expect(await codeOf(accept("/v1/cells/cell-06/cordon"))).toBe("STATE_CONFLICT");
    provider.failures = 0;
    await succeed("/v1/cells", { id: "cell-06" });
    expect(await cell("cell-06")).toMatchObject({ state: "active", health: "healthy" });
    await succeed("/v1/cells/cell-06/destroy");
  });

  test("a dry run plans what would be done and changes nothing, not even the audit log", async () => {
    const before = await plane.get("/v1/audit/verify", auditVerdictSchema);
    const ask = (path: string, body: object) =>
      plane.send("POST", path, { ...body, dryRun: true }, dryRunSchema);
    const tenant = await ask("/v1/tenants", { id: "imagined" });
    expect(tenant.plan.steps.map(({ action }) => action)).toEqual(["place", "publish"]);
    const killing = await ask("/v1/cells/cell-01/kill", {});
    expect(killing.plan.kind).toBe("cell.kill");
    await ask("/v1/cells", { id: "cell-99" });
    expect(await codeOf(ask("/v1/cells/cell-01/destroy", {}))).toBe("SAFETY_RULE");
    expect(await codeOf(cell("cell-99"))).toBe("CELL_UNKNOWN");
    expect(await plane.get("/v1/audit/verify", auditVerdictSchema)).toEqual(before);
  });

  test("failover is refused while leases are long, with the numbers", async () => {
    const refused = plane.send("POST", "/v1/failovers", { cell: "cell-01" }, acceptedSchema);
    await expect(refused).rejects.toMatchObject({
      code: "LEASE_TOO_LONG",
      details: { leaseLeftMsMax: 60_000 },
    });
  });
});

describe("keyspaces and overrides", () => {
  test("slots are spread over the cells; a tenant belongs to its slot, registered or not", async () => {
    const op = await succeed("/v1/keyspaces", { name: "users", strategy: "slots", slotCount: 64 });
    expect(op.step).toBe("done");
    const anybody = await plane.get(
      "/v1/route/resolve?tenant=alice&keyspace=users",
      resolutionSchema,
    );
    expect(anybody.key).toMatch(/^users\/slot\/\d+$/);
    await succeed("/v1/tenants", { id: "alice", keyspace: "users" });
    const alice = await plane.get("/v1/tenants/alice", tenantSchema);
    expect(alice.placement).toMatchObject({ key: anybody.key, cell: anybody.cell });
  });

  test("ranges begin where they are split, in byte order", async () => {
    await succeed("/v1/keyspaces", { name: "logs", strategy: "range", splitAt: ["m", "Z"] });
    const made = await plane.get("/v1/keyspaces/logs", keyspaceSchema);
    expect(made.ranges).toEqual(["", "Z", "m"]);
    const keyOf = async (tenant: string) =>
      (await plane.get(`/v1/route/resolve?tenant=${tenant}&keyspace=logs`, resolutionSchema)).key;
    expect(await keyOf("A")).toBe("logs/range/");
    expect(await keyOf("Z")).toBe("logs/range/Z");
    expect(await keyOf("a")).toBe("logs/range/Z");
    expect(await keyOf("zoe")).toBe("logs/range/m");
  });

  test("an override splits a tenant off in its container's cell, above the container's epoch, and back", async () => {
    const alice = await plane.get("/v1/tenants/alice", tenantSchema);
    const { cell: home, key: container } = alice.placement;
    const wanted = { keyspace: "users", tenant: "alice", cell: home };
    const other = home === "cell-01" ? "cell-02" : "cell-01";
    expect(await codeOf(accept("/v1/overrides", { ...wanted, cell: other }))).toBe(
      "STATE_CONFLICT",
    );
    await succeed("/v1/overrides", wanted);
    const split = await plane.get("/v1/tenants/alice", tenantSchema);
    expect(split.placement).toMatchObject({
      key: "users/tenant/alice",
      cell: home,
      epoch: 2,
      state: "active",
    });
    const { items } = await plane.get("/v1/overrides", list(overrideSchema));
    expect(items).toMatchObject([{ id: "users/tenant/alice", container, cell: home }]);
    expect(await codeOf(accept("/v1/overrides", wanted))).toBe("STATE_CONFLICT");
    const id = encodeURIComponent("users/tenant/alice");
    const back = await plane.send("DELETE", `/v1/overrides/${id}`, {}, acceptedSchema);
    expect((await finish(plane, back.op)).state).toBe("done");
    const again = await plane.get("/v1/tenants/alice", tenantSchema);
    expect(again.placement.key).toBe(container);
  });
});

test("everything above is in the audit log, refusals too, and the chain holds", async () => {
  const verdict = await plane.get("/v1/audit/verify", auditVerdictSchema);
  expect(verdict.ok).toBe(true);
  const { items } = await plane.get("/v1/audit?limit=1000", list(auditEntrySchema));
  expect(items.map(({ id }) => id)).toEqual(
    Array.from({ length: verdict.entries }, (_, index) => verdict.entries - index),
  );
  const outcomes = new Set(items.map(({ action, outcome }) => `${action} ${outcome}`));
  for (const expected of [
    "cell.create accepted",
    "cell.kill accepted",
    "cell.destroy SAFETY_RULE",
    "tenant.create accepted",
    "tenant.create CAPACITY_EXHAUSTED",
    "failover.start LEASE_TOO_LONG",
    "override.create STATE_CONFLICT",
  ]) {
    expect(outcomes).toContain(expected);
  }
  const kill = items.find(({ action }) => action === "cell.kill");
  expect(kill).toMatchObject({ object: "cell-03", reason: "a drill", role: "admin" });
  expect(JSON.stringify(items)).not.toContain("cft_");
});
