/**
 * Crash anywhere, resume (promise 5): the very transaction that takes an operation one step further also
 * deposes the leader, so that each step is another term's, mostly another process's. The deposed keep
 * running: what they still try must come to nothing.
 */
import pg from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import {
  acceptedSchema,
  auditVerdictSchema,
  cellSchema,
  eventSchema,
  list,
  type Op,
  tenantSchema,
} from "../contract/control-api.ts";
import { startTestPostgres, type TestPostgres } from "../tests/postgres.ts";
import {
  type FakeProvider,
  finish,
  type Plane,
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

async function interrupted(path: string, body: object): Promise<Op> {
  const accepted = await plane().send("POST", path, body, acceptedSchema);
  const op = await finish(plane(), accepted.op);
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
  expect(historyOf(await interrupted("/v1/cells/cell-02/kill", {}))).toBe("calling done");
  expect(historyOf(await interrupted("/v1/cells/cell-02/start", {}))).toBe("calling opening done");
  await interrupted("/v1/cells", { id: "cell-03" });
  expect(historyOf(await interrupted("/v1/cells/cell-03/destroy", {}))).toBe(
    "retiring publishing calling done",
  );
});

test("what the deposed tried came to nothing: one end per operation, one owner, a whole chain", async () => {
  expect(steps).toBeGreaterThan(20);
  const seat = await db.query("select term::int as term from cellfleet_control.leader");
  expect(seat.rows[0].term).toBeGreaterThanOrEqual(2 * steps);
  const ends = await db.query(
    "select object, count(*)::int as n from cellfleet_control.event where kind = 'op.done' group by object, text having count(*) > 1",
  );
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
