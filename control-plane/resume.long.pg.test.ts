/**
 * Crash anywhere, resume (promise 5): the very transaction that takes an operation one step further also
 * deposes the leader, so that each step is another term's, mostly another process's. The deposed keep
 * running: what they still try must come to nothing.
 */
import pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { receiptSchema } from "../contract/adoption-api.ts";
import {
  acceptedSchema,
  auditVerdictSchema,
  cellSchema,
  createdTokenSchema,
  importResultSchema,
  list,
  type Op,
  tenantSchema,
} from "../contract/control-api.ts";
import { eventSchema } from "../contract/event-api.ts";
import { must } from "../runtime/assert.ts";
import { startTestPostgres, type TestPostgres } from "../tests/postgres.ts";
import { eventually } from "./control.fixture.ts";
import {
  type FakeCell,
  type FakeProvider,
  finish,
  type Plane,
  startFakeCell,
  startFakeProvider,
  startPlane,
} from "./plane.fixture.ts";

let postgres: TestPostgres;
let db: pg.Client;
let provider: FakeProvider;
const planes: Plane[] = [];
const plane = (): Plane => {
  const [first] = planes;
  if (first === undefined) throw new Error("no control plane");
  return first;
};

const deposeAtEachStep = `
  create function depose() returns trigger language plpgsql as $$ begin
    update cellfleet_control.leader set term = term + 1, holder = 'nobody', expires_at = '-infinity';
    return null;
  end $$;
  create trigger depose after update of step on cellfleet_control.op
    for each row when (old.step <> new.step) execute function depose()`;

beforeAll(async () => {
  postgres = await startTestPostgres();
  const url = await postgres.createDatabase("resume");
  provider = await startFakeProvider(() => plane().url);
  for (const instance of ["plane-1", "plane-2", "plane-3"]) {
    planes.push(await startPlane(url, { instance, providerUrl: provider.url }));
  }
  db = new pg.Client({ connectionString: url });
  await db.connect();
  await db.query(deposeAtEachStep);
});
afterAll(async () => {
  await provider?.stop();
  for (const one of planes) await one.close();
  await db?.end();
  await postgres?.stop();
});

let steps = 0;

async function interrupted(
  path: string,
  body: object,
  method: "POST" | "PUT" | "DELETE" = "POST",
): Promise<Op> {
  const accepted = await plane().send(method, path, body, acceptedSchema);
  return end(accepted.op);
}

async function end(accepted: Op): Promise<Op> {
  const op = await finish(plane(), accepted);
  expect(op.error).toBeNull();
  expect(op.state).toBe("done");
  steps += op.steps.length - 1;
  return op;
}

const historyOf = (op: Op): string => op.steps.map(({ step }) => step).join(" ");

test("every operation finishes, though its leader is deposed after each of its steps", async () => {
  const created = await interrupted("/v1/cells", { id: "cell-01" });
  expect(historyOf(created)).toBe("creating opening publishing done");
  expect(historyOf(await interrupted("/v1/cells", { id: "cell-02" }))).toBe(
    "creating opening publishing done",
  );
  const placed = await interrupted("/v1/tenants", { id: "acme", cell: "cell-01" });
  expect(historyOf(placed)).toBe("applying publishing done");
  const keyspace = { name: "users", strategy: "slots", slotCount: 8 };
  expect(historyOf(await interrupted("/v1/keyspaces", keyspace))).toBe("applying publishing done");
  expect(historyOf(await interrupted("/v1/cells/cell-02/cordon", {}))).toBe("marking done");
  expect(historyOf(await interrupted("/v1/cells/cell-02/uncordon", {}))).toBe("marking done");
  for (const action of ["kill", "stop"]) {
    expect(historyOf(await interrupted(`/v1/cells/cell-02/${action}`, {}))).toBe("calling done");
    expect(historyOf(await interrupted("/v1/cells/cell-02/start", {}))).toBe(
      "calling opening done",
    );
  }
  await interrupted("/v1/cells", { id: "cell-03" });
  expect(historyOf(await interrupted("/v1/cells/cell-03/destroy", {}))).toBe(
    "retiring publishing calling done",
  );
});

test("changes of routing, imports and overrides finish so too", async () => {
  const routing = { tenantSources: [{ header: "x-tenant" }], serviceRoutes: [] };
  expect(historyOf(await interrupted("/v1/routing", routing, "PUT"))).toBe("publishing done");
  const loaded = await plane().raw("/v1/tenants/import", {
    method: "POST",
    headers: { "content-type": "application/x-ndjson" },
    body: '{"id":"bulk-1","cell":"cell-01"}\n{"id":"bulk-2","cell":"cell-02"}\n',
  });
  const { op } = importResultSchema.parse(await loaded.json());
  expect(historyOf(await end(must(op, "operation")))).toBe("applying publishing done");
  await interrupted("/v1/tenants", { id: "ada", keyspace: "users" });
  const { cell } = (await plane().get("/v1/tenants/ada", tenantSchema)).placement;
  const override = { keyspace: "users", tenant: "ada", cell };
  expect(historyOf(await interrupted("/v1/overrides", override))).toBe("applying publishing done");
  const path = `/v1/overrides/${encodeURIComponent("users/tenant/ada")}`;
  expect(historyOf(await interrupted(path, {}, "DELETE"))).toBe("dropping publishing done");
});

test("the end of a tenant, too: suspended, resumed, deleted with its receipt", async () => {
  const suspended = await interrupted("/v1/tenants/bulk-1/suspend", {});
  expect(historyOf(suspended)).toBe("fencing publishing done");
  expect(historyOf(await interrupted("/v1/tenants/bulk-1/resume", {}))).toBe(
    "opening publishing done",
  );
  const deleted = await interrupted("/v1/tenants/bulk-1", {}, "DELETE");
  expect(historyOf(deleted)).toBe("fencing purging publishing done");
  expect(receiptSchema.parse(deleted.result["receipt"])).toMatchObject({ complete: true });
  const { rows } = await db.query(
    "select count(*)::int as n from cellfleet_control.purge where op = $1 and confirmed_at is null",
    [deleted.id],
  );
  expect(rows).toEqual([{ n: 0 }]);
});

test("what the deposed tried came to nothing: one end per operation, one owner, a whole chain", async () => {
  expect(steps).toBeGreaterThan(20);
  const seat = await db.query("select term::int as term from cellfleet_control.leader");
  expect(seat.rows[0].term).toBeGreaterThanOrEqual(2 * steps);
  const ends = await db.query(`
    select e.object, count(*)::int as n from cellfleet_control.event as e where e.kind = 'op.done'
     group by e.object having count(*) <> (
       select count(*) from cellfleet_control.op as o
        where o.object = e.object and o.state = 'done' and jsonb_array_length(o.steps) > 1)`);
  expect(ends.rows).toEqual([]);
  const acme = await plane().get("/v1/tenants/acme", tenantSchema);
  expect(acme.placement).toMatchObject({ cell: "cell-01", epoch: 1, state: "active" });
  expect((await plane().get("/v1/cells/cell-01", cellSchema)).usage.tenants).toBe(1);
  const verdict = await plane().get("/v1/audit/verify", auditVerdictSchema);
  expect(verdict).toMatchObject({ ok: true });
  const { items } = await plane().get("/v1/events?limit=1000", list(eventSchema));
  const terms = items
    .filter(({ kind }) => kind === "leader.changed")
    .map(({ text }) => Number(/term (\d+)/.exec(text)?.[1]));
  expect(terms).toEqual(terms.toSorted((a, b) => a - b));
  expect(new Set(terms).size).toBe(terms.length);
});

describe("an adoption", () => {
  const shop = {
    id: "shop-01",
    endpoints: ["http://127.0.0.1:9411"],
    stores: { default: { database: "env:SHOP_DATABASE" } },
  };
  const adopting: Plane[] = [];
  let agent: FakeCell | undefined;
  let own: pg.Client;

  beforeAll(async () => {
    const url = await postgres.createDatabase("resume_adoption");
    for (const instance of ["plane-4", "plane-5"])
      adopting.push(await startPlane(url, { instance }));
    own = new pg.Client({ connectionString: url });
    await own.connect();
    await own.query(deposeAtEachStep);
  });
  afterAll(async () => {
    await agent?.stop();
    for (const one of adopting) await one.close();
    await own?.end();
  });

  const first = () => must(adopting[0], "control plane");
  async function stepped(path: string, body: object): Promise<string> {
    const accepted = await first().send("POST", path, body, acceptedSchema);
    const op = await finish(first(), accepted.op);
    expect(op.error).toBeNull();
    return historyOf(op);
  }

  test("goes through every stage and back, though its leader is deposed after each step", async () => {
    const { secret } = await first().send(
      "POST",
      "/v1/tokens",
      { name: "shop", role: "agent", subject: "shop-01" },
      createdTokenSchema,
    );
    agent = await startFakeCell({ origin: () => first().url, token: secret, cell: "shop-01" });
    agent.guardedTables = 3;
    expect(await stepped("/v1/cells/adopt", { ...shop, observe: true })).toBe(
      "publishing agents-inward routers-inward done",
    );
    expect(await stepped("/v1/tenants", { id: "acme" })).toBe("applying publishing done");
    const stage = "/v1/cells/shop-01/stage";
    await eventually(
      () => first().get("/v1/cells/shop-01", cellSchema),
      ({ guardedTables }) => guardedTables === 3,
    );
    expect(await stepped(stage, { stage: "enforce", acceptRefusals: true })).toBe(
      "starting agents-inward routers-inward done",
    );
    expect(agent.stage()).toBe("enforce");
    expect(await stepped(stage, { stage: "pass-through" })).toBe(
      "starting routers-outward agents-outward done",
    );
    expect(agent.stage()).toBe("pass-through");
    expect(await stepped(stage, { stage: "observe" })).toBe(
      "starting agents-inward routers-inward done",
    );
  });
});
