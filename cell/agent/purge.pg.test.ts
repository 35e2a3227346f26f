/** A deleted tenant's rows, removed by a real agent from a real database. */
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import { type AgentBench, acmeKey, openBench, until } from "./agent.fixture.ts";
import type { Purged } from "./purger.ts";

let server: TestPostgres;
let bench: AgentBench;
let cells = 0;

beforeAll(async () => {
  server = await startTestPostgres();
});
afterAll(() => server.stop());
beforeEach(async () => {
  cells += 1;
  bench = await openBench(server, `cell-${cells}`);
});
afterEach(() => bench.close());

const told = (): Purged[] => bench.control.calls.flatMap((call) => call.purged ?? []);
const rowsOf = async (tenant: string): Promise<number> => {
  const { rows } = await bench.store.admin.query(
    "select count(*) as count from orders where tenant_id = $1",
    [tenant],
  );
  return Number(rows[0].count);
};
/** Past the guard, as an import would. */
async function fill(tenant: string, count: number): Promise<void> {
  await bench.store.admin.query("set session_replication_role = replica");
  await bench.store.admin.query(
    "insert into orders (id, tenant_id, item, quantity) select 500000 + n, $1, 'tea', 1 from generate_series(1, $2) n",
    [tenant, count],
  );
  await bench.store.admin.query("set session_replication_role = origin");
}

test("every row goes, nobody else's, and the report says how many were there", async () => {
  await bench.serving();
  await bench.applied(bench.control.own("default/tenant/globex", "active"));
  await fill("acme", 12_000);
  await fill("globex", 10);
  bench.control.purge(acmeKey);
  await until("it is reported", () => told().length > 0);
  expect(await rowsOf("acme")).toBe(0);
  expect(await rowsOf("globex")).toBe(10);
  expect(told()[0]).toMatchObject({ key: acmeKey, rows: { "public.orders": 12_000 } });
  // Answered, it is not repeated.
  const at = bench.control.calls.length;
  await until("calls go on", () => bench.control.calls.length > at + 1);
  expect(told().length).toBe(1);
});

test("a cell that never held the tenant reports at once that nothing was there", async () => {
  await bench.serving();
  bench.control.purge("default/tenant/stranger", 7);
  await until("it is reported", () => told().length > 0);
  expect(told()[0]).toMatchObject({ key: "default/tenant/stranger", rows: {} });
});

test("it is not reported while a row is left, and the control plane is not called in circles", async () => {
  await bench.serving();
  await fill("acme", 5);
  // A row that the purge cannot get at: another transaction holds it.
  const holder = await bench.store.connect("postgres");
  await holder.query("begin");
  await holder.query("select from orders where tenant_id = 'acme' limit 1 for update");
  bench.control.purge(acmeKey);
  const { rows } = await bench.store.admin.query("select 1 as one");
  expect(rows.length).toBe(1);
  await until("the key is dropped here", async () => {
    const owned = await bench.store.agent.query(
      "select state from cellfleet.ownership where key = $1",
      [acmeKey],
    );
    return owned.rows[0]?.state === "dropped";
  });
  const at = bench.control.calls.length;
  const sinceMs = performance.now();
  await until("calls go on", () => bench.control.calls.length > at + 3);
  // Each repetition comes at the loop's pace of half a second, not as fast as the network.
  expect(performance.now() - sinceMs).toBeGreaterThan(3 * 400);
  expect(told()).toEqual([]);
  await holder.query("commit");
  await until("it is reported", () => told().length > 0);
  expect(await rowsOf("acme")).toBe(0);
});

test("it goes on after a restart of the agent, because it is asked again", async () => {
  const agent = await bench.serving();
  await fill("acme", 5);
  const holder = await bench.store.connect("postgres");
  await holder.query("begin");
  await holder.query("select from orders where tenant_id = 'acme' limit 1 for update");
  bench.control.purge(acmeKey);
  await until("it has begun", async () => {
    const busy = await bench.store.admin.query(
      "select 1 from pg_stat_activity where application_name = 'cellfleet-agent purge'",
    );
    return busy.rows.length > 0;
  });
  await agent.close();
  expect(told()).toEqual([]);
  await holder.query("commit");
  await bench.start();
  await until("it is reported", () => told().length > 0);
  expect(await rowsOf("acme")).toBe(0);
});

test("rows that stay whatever is deleted are not reported as gone", async () => {
  await bench.serving();
  await fill("acme", 3);
  await bench.store.admin.query(
    `create function keep() returns trigger language plpgsql as 'begin return null; end';
     create trigger keep before delete on orders for each row execute function keep()`,
  );
  bench.control.purge(acmeKey);
  await until("it is said", () => bench.events("purge.failed").length > 0);
  expect(bench.events("purge.failed")[0]?.["error"]).toContain("3 in public.orders");
  expect(told()).toEqual([]);
  await bench.store.admin.query("drop trigger keep on orders");
  await until("it is reported", () => told().length > 0);
  expect(await rowsOf("acme")).toBe(0);
});

test("what the cell refused, because it knows something newer, is not purged", async () => {
  await bench.serving();
  await bench.store.own(acmeKey, "fenced", 9);
  await fill("acme", 3);
  bench.control.purge(acmeKey, 1);
  await until("the refusal is told", () =>
    bench.control.calls.some((call) => call.refused.some((one) => one.epoch === 9)),
  );
  const at = bench.control.calls.length;
  await until("it was asked again", () => bench.control.calls.length > at + 3);
  expect(told()).toEqual([]);
  expect(await rowsOf("acme")).toBe(3);
});
