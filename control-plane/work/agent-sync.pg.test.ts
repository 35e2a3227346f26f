/** What a cell's agent is given, and when it is given nothing. */
import { sql } from "drizzle-orm";
import { afterAll, beforeAll, expect, test } from "vitest";
import { agentSyncRequestSchema } from "../../contract/cell-protocol.ts";
import { readmittedSchema } from "../../contract/recovery-api.ts";
import type { JsonClient } from "../../runtime/http-client.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import { recoveryEndpoints } from "../api/recovery.ts";
import {
  type AgentChange,
  agentRequest,
  type ControlFixture,
  callAgent,
  eventually,
  openCell,
  soleRow,
  startControl,
} from "../control.fixture.ts";
import { grantLease } from "../store/lease.ts";
import { insertPending } from "../store/placements.ts";
import { changeRouting } from "../store/routing-change.ts";

let postgres: TestPostgres;
let control: ControlFixture;

beforeAll(async () => {
  postgres = await startTestPostgres();
  control = await startControl(await postgres.createDatabase("agents"), (context) =>
    recoveryEndpoints(context),
  );
});
afterAll(async () => {
  await control?.close();
  await postgres?.stop();
});

let cellNumber = 0;
async function newCell(): Promise<{
  cell: string;
  agent: JsonClient;
  call: (change?: AgentChange) => ReturnType<typeof callAgent>;
}> {
  cellNumber += 1;
  const cell = `cell-${cellNumber}`;
  await openCell(control.database, cell);
  const agent = await control.client("agent", cell);
  return { cell, agent, call: (change) => callAgent(agent, cell, change) };
}

const place = (cell: string, tenants: readonly string[]): Promise<number> =>
  control.database.transaction(async (tx) => {
    const revision = await changeRouting(tx, { config: false });
    await insertPending(
      tx,
      tenants.map((value) => ({
        key: `default/tenant/${value}`,
        keyspace: "default",
        kind: "tenant" as const,
        value,
        cell,
        op: "op_0000000001",
        revision,
        epochMin: 1,
      })),
    );
    return revision;
  });

async function cellRow(cell: string): Promise<Record<string, unknown>> {
  const { rows } = await control.database.read.execute(
    sql`select state, lease_ttl_ms, boot_instance, used_rps, used_bytes::float8 as used_bytes
          from cellfleet_control.cell where id = ${cell}`,
  );
  return soleRow(rows);
}

async function states(cell: string): Promise<Record<string, string>> {
  const { rows } = await control.database.read.execute<{ value: string; state: string }>(
    sql`select value, state from cellfleet_control.placement where cell = ${cell} order by key`,
  );
  return Object.fromEntries(rows.map(({ value, state }) => [value, state]));
}

test("a placement becomes active when its cell says that it applied it, not before", async () => {
  const { cell, call } = await newCell();
  await place(cell, ["acme", "globex"]);
  const first = await call();
  expect(first.changes.map(({ key, state, epoch }) => [key, state, epoch])).toEqual([
    ["default/tenant/acme", "active", 1],
    ["default/tenant/globex", "active", 1],
  ]);
  expect(first.keyspaces).toContainEqual({
    name: "default",
    strategy: "directory",
    guardMode: "strict",
  });
  expect(await states(cell)).toEqual({ acme: "pending", globex: "pending" });
  await call({ appliedRevision: first.revision });
  expect(await states(cell)).toEqual({ acme: "active", globex: "active" });
});

test("an agent that waits is told of a change at once", async () => {
  const { cell, call } = await newCell();
  const { revision } = await call();
  const waiting = call({ appliedRevision: revision, waitMs: 30_000 });
  await eventually(
    async () => control.publisher.waiting(),
    (count) => count > 0,
  );
  await place(cell, ["woken"]);
  expect((await waiting).changes.map(({ key }) => key)).toEqual(["default/tenant/woken"]);
});

test("many changes come in pages that end between two revisions", async () => {
  const { cell, call } = await newCell();
  const names = (from: number) => Array.from({ length: 4000 }, (_, at) => `p${from + at}`);
  for (const from of [0, 4000, 8000, 12_000]) await place(cell, names(from));
  const seen = new Set<string>();
  let applied = 0;
  for (let more = true; more; ) {
    const page = await call({ appliedRevision: applied });
    expect(page.changes.length).toBeLessThanOrEqual(10_000);
    // What a call acknowledges becomes active: that must not be more than the cell was told before.
    const active = Object.entries(await states(cell)).filter(([, state]) => state === "active");
    expect(active.filter(([value]) => !seen.has(`default/tenant/${value}`))).toEqual([]);
    for (const { key } of page.changes) seen.add(key);
    applied = page.revision;
    more = page.more;
  }
  expect(seen.size).toBe(16_000);
});

test("each lease has its own number, and who granted it for how long is on record", async () => {
  const { cell, call } = await newCell();
  const first = await call({ wantLease: true });
  expect(first.lease).toEqual({ grant: 1, ttlMs: 1_200_000 });
  const second = await call({ wantLease: true, database: { grant: 1 } });
  expect(second.lease?.grant).toBe(2);
  expect(await cellRow(cell)).toMatchObject({
    lease_ttl_ms: 1_200_000,
    boot_instance: `${cell}-agent-1`,
  });
});

test.each([
  ["revoking", sql`revoking = true`],
  ["quarantined", sql`state = 'quarantined'`],
])("a cell that is %s gets no lease", async (_name, change) => {
  const { cell, call } = await newCell();
  await control.database.read.execute(
    sql`update cellfleet_control.cell set ${change} where id = ${cell}`,
  );
  const answer = await call({ wantLease: true });
  expect(answer.lease).toBeUndefined();
  expect(answer.leaseRefused).toBeTypeOf("string");
});

test("only the primary agent gets the lease, and only of a database that answers", async () => {
  const { call } = await newCell();
  expect((await call({ wantLease: true, primary: false })).leaseRefused).toContain("primary");
  expect((await call({ wantLease: true, database: { reachable: false } })).leaseRefused).toContain(
    "database",
  );
});

test("a cell whose database forgot a grant is quarantined, after it said so twice", async () => {
  const { cell, call } = await newCell();
  await call({ wantLease: true });
  await call({ wantLease: true, database: { grant: 1 } });
  await call({ database: { grant: 2 } });
  const once = await call({ wantLease: true, database: { grant: 1 } });
  expect(once.leaseRefused).toContain("TIME_TRAVEL");
  expect(await cellRow(cell)).toMatchObject({ state: "active" });
  await call({ wantLease: true, database: { grant: 1 } });
  expect(await cellRow(cell)).toMatchObject({ state: "quarantined" });
  expect((await call({ wantLease: true, database: { grant: 2 } })).lease).toBeUndefined();
  // A person looks, and vouches for the database as it is.
  const admin = await control.client("admin");
  const readmit = () =>
    admin.call({
      method: "POST",
      path: `/v1/cells/${cell}/readmit`,
      body: { reason: "restored on purpose" },
      schema: readmittedSchema,
      timeoutMs: 10_000,
    });
  await expect(readmit()).rejects.toMatchObject({ code: "SAFETY_RULE" });
  await control.database.read.execute(sql`
    update cellfleet_control.cell set lease_granted_at = lease_granted_at - interval '1 day'
     where id = ${cell}`);
  expect((await readmit()).state).toBe("cordoned");
  const lease = (await call({ wantLease: true, database: { grant: 1 } })).lease;
  // Above every grant that was ever made, also those that this database forgot.
  expect(lease?.grant).toBeGreaterThan(2);
});

test("a grant that was judged before a newer one was seen is not made", async () => {
  const { cell, call } = await newCell();
  await call({ wantLease: true });
  await call({ database: { grant: 1 } });
  const stale = agentSyncRequestSchema.parse(agentRequest(cell, { database: { grant: 0 } }));
  expect(await grantLease(control.database.read, stale, 1000)).toBeUndefined();
  const foreign = { ...stale, database: { ...stale.database, systemIdentifier: "1", grant: 1 } };
  expect(await grantLease(control.database.read, foreign, 1000)).toBeUndefined();
});

test("a call that was delayed behind a newer one does not quarantine the cell", async () => {
  const { cell, call } = await newCell();
  await call({ wantLease: true });
  await call({ database: { grant: 1 } });
  await call({ wantLease: true, database: { grant: 0 } });
  await call({ database: { grant: 1 } });
  await call({ wantLease: true, database: { grant: 0 } });
  expect(await cellRow(cell)).toMatchObject({ state: "active" });
});

test("id ranges of all cells are disjoint, also when two ask at the same moment", async () => {
  const [one, two] = [await newCell(), await newCell()];
  const want = { wantIdRanges: [{ sequence: "public.orders_id_seq", floor: 41 }] };
  const answers = await Promise.all([one, two, one, two].map(({ call }) => call(want)));
  const ranges = answers.flatMap(({ idRanges }) => idRanges).toSorted((a, b) => a.lo - b.lo);
  expect(ranges).toHaveLength(8);
  expect(ranges[0]?.lo).toBe(42);
  for (const [at, range] of ranges.entries()) {
    expect(range.hi - range.lo + 1).toBe(1_000_000);
    if (at > 0) expect(range.lo).toBeGreaterThan(ranges[at - 1]?.hi ?? Number.MAX_VALUE);
  }
});

test("ids that a cell holds already are handed to nobody", async () => {
  const { call } = await newCell();
  const { idRanges } = await call({
    wantIdRanges: [{ sequence: "public.held_seq", floor: 0 }],
    idRangesHeld: [{ sequence: "public.held_seq", max: 7_000_000 }],
  });
  expect(idRanges[0]?.lo).toBe(7_000_001);
});

test("measured sizes count for the tenant's cell, and only that cell may report them", async () => {
  const [home, other] = [await newCell(), await newCell()];
  await place(home.cell, ["sized"]);
  await control.database.read.execute(sql`
    insert into cellfleet_control.tenant (id, keyspace, tier, size_bytes, size_rps, labels, placement_key)
    values ('sized', 'default', 'standard', 100, 0, '{}', 'default/tenant/sized')`);
  await control.database.read.execute(
    sql`update cellfleet_control.cell set used_bytes = 100 where id = ${home.cell}`,
  );
  const stats = [{ keyspace: "default", tenant: "sized", rows: 5, bytes: 1000, rps: 2 }];
  await other.call({ stats });
  expect(await cellRow(home.cell)).toMatchObject({ used_bytes: 100 });
  await home.call({ stats });
  await home.call({ stats });
  expect(await cellRow(home.cell)).toMatchObject({ used_bytes: 1000, used_rps: 2 });
});

test("a token speaks for one cell, and a cell of another fleet is refused", async () => {
  const [one, two] = [await newCell(), await newCell()];
  await expect(callAgent(one.agent, two.cell)).rejects.toMatchObject({ code: "FORBIDDEN" });
  await expect(one.call({ fleet: "another" })).rejects.toMatchObject({ code: "STATE_CONFLICT" });
});

test("a cell gets its lease while somebody holds the fleet's lock; what it applied follows later", async () => {
  const { cell, call } = await newCell();
  await place(cell, ["patient"]);
  const { revision } = await call();
  const holder = await control.database.pool.connect();
  try {
    await holder.query("begin");
    await holder.query("select 1 from cellfleet_control.fleet for update");
    const answer = await call({ appliedRevision: revision, wantLease: true });
    expect(answer.lease?.grant).toBe(1);
    expect(await states(cell)).toEqual({ patient: "pending" });
  } finally {
    await holder.query("rollback");
    holder.release();
  }
  await call({ appliedRevision: revision, database: { grant: 1 } });
  expect(await states(cell)).toEqual({ patient: "active" });
});
