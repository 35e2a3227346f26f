/** One agent over two databases on two servers: leased, owned, fenced, purged and numbered as one cell. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { AgentSyncRequest } from "../../../contract/cell-protocol.ts";
import { must } from "../../../runtime/assert.ts";
import {
  type CellStore,
  createCellStore,
  refusalOf,
  storeRoles,
} from "../../../tests/cell-store.ts";
import { startTestPostgres, type TestPostgres } from "../../../tests/postgres.ts";
import { readFacts } from "../../store/facts.ts";
import { type AgentBench, acmeKey, openBench, statusOf, until } from "../agent.fixture.ts";
import type { Agent } from "../agent.ts";

const acme = acmeKey;
let servers: [TestPostgres, TestPostgres];
let bench: AgentBench;
let billing: CellStore;
let cells = 0;

beforeAll(async () => {
  servers = await Promise.all([startTestPostgres(), startTestPostgres()]);
});
afterAll(() => Promise.all(servers.map((server) => server.stop())));
beforeEach(async () => {
  cells += 1;
  bench = await openBench(servers[0], `cell-${cells}`);
  billing = await createCellStore(servers[1], `cell-${cells}`, { mode: "strict" });
});
afterEach(async () => {
  await bench.close();
  await billing.close();
});

const config = { stores: [{ name: "billing", databaseUrl: "env:UNUSED" }] };
const secrets = () => ({
  storeDatabaseUrls: new Map([["billing", servers[1].url(billing.name, storeRoles.agentRole)]]),
});
const start = (): Promise<Agent> => bench.start(config, secrets());
const serving = (): Promise<Agent> => bench.serving(config, secrets());
const factsOf = (store: CellStore) => readFacts(store.agent);
const stateIn = async ({ agent }: CellStore, key = acme): Promise<string | undefined> => {
  const { rows } = await agent.query("select state from cellfleet.ownership where key = $1", [key]);
  return rows[0]?.state;
};
/** As the application writes one, in its own transaction. */
async function order({ app }: CellStore, tenant = "acme", epoch = 1): Promise<void> {
  await app.query("begin");
  try {
    await app.query("select cellfleet.enter($1, $2)", [`default/tenant/${tenant}`, epoch]);
    await app.query("insert into orders (tenant_id, item, quantity) values ($1, 'tea', 1)", [
      tenant,
    ]);
  } finally {
    await app.query("commit");
  }
}
const lastCall = (): AgentSyncRequest => must(bench.control.calls.at(-1), "a call");

describe("a cell with two stores", () => {
  test("has lease and ownership in both before it says so, and then serves both", async () => {
    const agent = await start();
    await until("the lease is held in both", async () => {
      const facts = await Promise.all([factsOf(bench.store), factsOf(billing)]);
      return facts.every(({ lease }) => lease.live) && facts[0].grant === facts[1].grant;
    });
    await bench.applied(bench.control.own(acme, "active"));
    expect([await stateIn(bench.store), await stateIn(billing)]).toEqual(["active", "active"]);
    await until("acme is served", async () => (await bench.ask(agent)).status === 201);
    await order(bench.store);
    await order(billing);
    // A tenant of another cell is refused in both.
    expect(await refusalOf(order(bench.store, "globex"))).toBe("CF001");
    expect(await refusalOf(order(billing, "globex"))).toBe("CF001");
    expect(bench.events("answer.failed")).toEqual([]);
  });

  test("tells a fence as applied only when every store has it", async () => {
    const agent = await serving();
    const writer = await billing.connect();
    await writer.query("begin");
    await writer.query("select cellfleet.enter($1, 1)", [acme]);
    await writer.query("insert into orders (tenant_id, item, quantity) values ('acme', 'tea', 1)");
    const revision = bench.control.own(acme, "fenced");
    await until("the first store is fenced", async () => (await stateIn(bench.store)) === "fenced");
    await until("the gate knows", async () => (await bench.ask(agent)).status === 421);
    await until("the second is asked again", () => bench.events("ownership.delayed").length > 0);
    const at = bench.control.calls.length;
    await until("calls go on", () => bench.control.calls.length > at + 1);
    expect(await stateIn(billing)).toBe("active");
    expect(bench.control.acknowledged()).toBeLessThan(revision);
    await writer.query("commit");
    await bench.applied(revision);
    expect(await stateIn(billing)).toBe("fenced");
    expect(await refusalOf(order(billing))).toBe("CF001");
    expect(bench.events("ownership.delayed")[0]).toMatchObject({ store: "billing" });
  });

  test("does not serve when one of its databases is gone, and is born fenced there", async () => {
    bench.control.settings.ttlMs = 4000;
    const agent = await serving();
    await servers[1].halt("immediate");
    await until("the gate is closed", async () => (await bench.ask(agent)).status === 503);
    await until("it is told", () => !lastCall().database.reachable);
    expect(lastCall()).toMatchObject({ primary: false, wantLease: false });
    bench.control.settings.leaseRefused = "the test says no";
    await servers[1].restart("immediate");
    await until("the agent is back", () => lastCall().database.reachable && lastCall().wantLease);
    // The application's connections died with it.
    const app = await billing.connect();
    expect(await refusalOf(order({ ...billing, app }))).toBe("CF004");
    expect((await bench.ask(agent)).code).toBe("LEASE_MISSING");
    bench.control.settings.leaseRefused = undefined;
    await until("it serves again", async () => (await bench.ask(agent)).status === 201);
    await order({ ...billing, app });
  });

  test("claims nothing while a database was never seen, and says which one it is", async () => {
    const nobody = new Map([["billing", "postgres://nobody@127.0.0.1:9/none"]]);
    const agent = await bench.start(config, { storeDatabaseUrls: nobody });
    const reason = "not serving: out of sight of the cell's databases: billing";
    await until("it says so", async () => (await statusOf(agent)).reason === reason);
    expect((await bench.ask(agent)).code).toBe("GATE_CLOSED");
    expect(bench.control.calls).toEqual([]);
    expect(bench.events("database.lost")[0]).toMatchObject({ store: "billing" });
  });

  test("is leased anew when one store's server was started again under a live lease", async () => {
    const agent = await serving();
    const { grant } = await factsOf(bench.store);
    bench.control.settings.leaseRefused = "the test says no";
    await servers[1].restart("immediate");
    await until("the gate knows", async () => (await bench.ask(agent)).code === "LEASE_MISSING");
    // The first store itself would still take writes: only the cell as a whole is closed.
    expect((await factsOf(bench.store)).lease.live).toBe(true);
    bench.control.settings.leaseRefused = undefined;
    await until("it serves again", async () => (await bench.ask(agent)).status === 201);
    expect((await factsOf(bench.store)).grant).toBeGreaterThan(grant);
  });

  test("leases disjoint ids for both, under names that do not meet", async () => {
    await serving();
    await order(bench.store);
    await order(billing);
    const held = () => lastCall().idRangesHeld ?? [];
    await until("further ranges are held", () => held().every(({ max }) => max > 1_000_000));
    expect(held().map(({ sequence }) => sequence)).toEqual([
      "public.orders_id_seq",
      "billing/public.orders_id_seq",
    ]);
    const [first, second] = await Promise.all(
      [bench.store, billing].map(async ({ agent }) => {
        const { rows } = await agent.query(
          "select lo::float8, hi::float8 from cellfleet.id_range where lo > 1000000",
        );
        return must(rows[0], "a leased range");
      }),
    );
    expect(first?.hi < second?.lo || second?.hi < first?.lo).toBe(true);
  });

  test("removes a deleted tenant's rows from both, and reports once", async () => {
    await serving();
    await order(bench.store);
    await order(billing);
    await order(billing);
    await billing.admin.query("begin");
    await billing.admin.query("lock table orders in share mode");
    bench.control.purge(acme);
    const rowsIn = async ({ admin }: CellStore): Promise<number> =>
      Number((await admin.query("select count(*) as n from orders")).rows[0].n);
    await until("the first is empty", async () => (await rowsIn(bench.store)) === 0);
    const told = () => bench.control.calls.flatMap((call) => call.purged ?? []);
    const at = bench.control.calls.length;
    await until("calls go on", () => bench.control.calls.length > at + 1);
    expect(told()).toEqual([]);
    await billing.admin.query("commit");
    await until("it is reported", () => told().length > 0);
    expect(await rowsIn(billing)).toBe(0);
    expect(told()[0]).toMatchObject({
      key: acme,
      rows: { "public.orders": 1, "billing/public.orders": 2 },
    });
  });

  test("presents the lower grant when one store was set back in time (A14)", async () => {
    await serving();
    bench.control.settings.leaseRefused = "the test says no";
    await billing.admin.query("update cellfleet.grant_seen set lease_grant = 33");
    await bench.store.admin.query("update cellfleet.grant_seen set lease_grant = 100");
    await until("the lower one is told", () => lastCall().database.grant === 33);
    // A store that was never granted anything joins; it was not set back.
    const at = bench.control.calls.length;
    await billing.admin.query("update cellfleet.grant_seen set lease_grant = 0");
    await until("the other one is told", () => lastCall().database.grant === 100);
    expect(bench.control.calls.slice(at).map(({ database }) => database.grant)).not.toContain(0);
  });

  test("brings a store that joins up to what the cell owns", async () => {
    const alone = await bench.serving();
    await bench.applied(bench.control.own("default/tenant/globex", "active", 3));
    await alone.close();
    const agent = await start();
    await until("acme is served", async () => (await bench.ask(agent)).status === 201);
    expect(await stateIn(billing, "default/tenant/globex")).toBe("active");
    expect((await factsOf(billing)).appliedRevision).toBe(
      (await factsOf(bench.store)).appliedRevision,
    );
  });

  test("enters a stage when every store has, and the gate follows the strictest", async () => {
    const agent = await serving();
    await billing.admin.query("begin");
    await billing.admin.query("lock table cellfleet.progress in share mode");
    bench.control.settings.stage = "observe";
    await until("the first store observes", async () => {
      return (await factsOf(bench.store)).stage === "observe";
    });
    const at = bench.control.calls.length;
    await until("calls go on", () => bench.control.calls.length > at + 1);
    expect(lastCall().stage?.applied).toBe("enforce");
    await billing.admin.query("commit");
    await until("both observe", () => lastCall().stage?.applied === "observe");
    expect((await factsOf(billing)).stage).toBe("observe");
    await until(
      "the gate is open",
      async () => (await bench.ask(agent, { epoch: 9 })).status === 201,
    );
    bench.control.settings.stage = "enforce";
    await until("both enforce", () => lastCall().stage?.applied === "enforce");
    await until(
      "the gate is closed",
      async () => (await bench.ask(agent, { epoch: 9 })).status === 421,
    );
  });

  test("reports the tables that no store classes, and keys that stand in one store only", async () => {
    await serving();
    await billing.owner("create table notes (id int primary key, tenant_id text)");
    await until("it is told", () =>
      (lastCall().stage?.unclassed?.names ?? []).some((name) =>
        name.startsWith("billing/public.notes"),
      ),
    );
    await billing.own("default/tenant/only-here", "active", 4);
    bench.control.settings.report = "ownership";
    await until("the report is there", () =>
      bench.control.calls.some((call) => call.ownership?.last === true),
    );
    bench.control.settings.report = "nothing";
    const report = bench.control.calls.find((call) => call.ownership !== undefined)?.ownership;
    expect(report?.entries).toEqual([
      { key: acme, state: "active", epoch: 1 },
      { key: "default/tenant/only-here", state: "active", epoch: 4 },
    ]);
  });

  test("is led by one agent that holds both locks; cut off from one store, it leaves both", async () => {
    const first = await serving();
    const second = await start();
    await until("the second serves too", async () => (await bench.ask(second)).status === 201);
    const leaders = () =>
      new Set(
        bench.control.calls
          .slice(-2)
          .filter((one) => one.primary)
          .map((one) => one.instance),
      );
    expect(leaders().size).toBe(1);
    const held = async ({ admin }: CellStore) => {
      const { rows } = await admin.query(
        `select a.application_name as name from pg_locks l join pg_stat_activity a using (pid)
          where l.locktype = 'advisory' and l.mode = 'ExclusiveLock' and l.granted and a.datname = current_database()
            and a.application_name like 'cellfleet-agent cell%'`,
      );
      return rows.map(({ name }) => String(name));
    };
    const [leader] = await held(billing);
    expect(await held(bench.store)).toEqual([leader]);
    // Only this agent loses its way to the second store, again and again.
    await until("the other one holds both", async () => {
      await billing.admin.query(
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = $1",
        [leader],
      );
      const names = [...(await held(bench.store)), ...(await held(billing))];
      return names.length === 2 && names.every((name) => name !== leader);
    });
    await until("it is served", async () => (await bench.ask(second)).status === 201);
    expect((await bench.ask(first)).status).toBe(201);
  });
});
