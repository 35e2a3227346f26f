/**
 * The stages of an adopted cell, at the gate of a real agent over a real database: what passes, what is
 * counted, and in which order gate and database change.
 */
import { request } from "undici";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { AgentSyncRequest } from "../../contract/cell-protocol.ts";
import { headers } from "../../contract/headers.ts";
import { headerValues } from "../../contract/raw-headers.ts";
import type { CellStage } from "../../contract/routing-table.ts";
import { must } from "../../runtime/assert.ts";
import { refusalOf } from "../../tests/cell-store.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import { readFacts } from "../store/facts.ts";
import { type AgentBench, acmeKey, openBench, statusOf, until } from "./agent.fixture.ts";
import type { Agent } from "./agent.ts";

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

type Stage = NonNullable<AgentSyncRequest["stage"]>;
const reported = (): Stage | undefined => bench.control.calls.findLast((one) => one.primary)?.stage;
const inDatabase = async () => (await readFacts(bench.store.agent)).stage;

async function goTo(stage: CellStage): Promise<void> {
  bench.control.settings.stage = stage;
  await until(`${stage} is reported`, () => reported()?.applied === stage);
}

/** As any client sends it: nothing of a router's. */
const bare = {
  [headers.tenant]: undefined,
  [headers.keyspace]: undefined,
  [headers.key]: undefined,
  [headers.epoch]: undefined,
  [headers.cell]: undefined,
  [headers.nonce]: undefined,
};
const lastSeen = () => must(bench.app.seen.at(-1), "a request at the application");
const told = (name: string) => headerValues(lastSeen(), name);

describe("in observe", () => {
  let agent: Agent;
  beforeEach(async () => {
    agent = await bench.serving();
    await goTo("observe");
    await until(
      "the gate follows",
      async () => (await bench.ask(agent, { extra: bare })).status === 201,
    );
  });

  test("what names nothing passes, unconfirmed, and is counted", async () => {
    const before = reported()?.wouldRefuse["GATE_HEADERS_MISSING"] ?? 0;
    const answer = await bench.ask(agent, { extra: bare, method: "POST", body: "x" });
    expect(answer).toMatchObject({ status: 201, body: "made" });
    expect(answer.header(headers.confirm)).toBeUndefined();
    expect(told(headers.key)).toEqual([]);
    expect(told(headers.tenant)).toEqual([]);
    expect(told(headers.cell)).toEqual([bench.store.name]);
    await until(
      "the control plane hears of it",
      () => (reported()?.wouldRefuse["GATE_HEADERS_MISSING"] ?? 0) > before,
    );
    const metrics = await (await request(`${agent.admin}/metrics`)).body.text();
    expect(metrics).toMatch(
      /cellfleet_cell_would_refuse_total\{reason="GATE_HEADERS_MISSING"\} [1-9]/,
    );
    expect(metrics).toContain('cellfleet_cell_would_refuse_total{reason="GATE_CLOSED"} 0');
  });

  test.each([
    ["a wrong epoch", { epoch: 9 }, "PLACEMENT_STALE"],
    ["a tenant that is not known here", { tenant: "nobody" }, "PLACEMENT_STALE"],
    ["another cell", { extra: { [headers.cell]: "cell-99" } }, "PLACEMENT_STALE"],
  ])("%s passes without a key that nobody here vouches for", async (_what, more, code) => {
    const answer = await bench.ask(agent, more);
    expect(answer.status).toBe(201);
    expect(told(headers.key)).toEqual([]);
    expect(told(headers.epoch)).toEqual([]);
    // Who the tenant is, the router alone says in every stage.
    expect(told(headers.tenant).length).toBe(1);
    await until("it is counted", () => (reported()?.wouldRefuse[code] ?? 0) > 0);
  });

  test("what is as it should be is confirmed, carries its key, and is not counted", async () => {
    const answer = await bench.ask(agent);
    expect(answer.header(headers.confirm)).toMatch(/;epoch=1;lease=\d+$/);
    expect(told(headers.key)).toEqual([acmeKey]);
    expect(told(headers.epoch)).toEqual(["1"]);
    const metrics = await (await request(`${agent.admin}/metrics`)).body.text();
    expect(metrics).toContain('cellfleet_cell_would_refuse_total{reason="PLACEMENT_STALE"} 0');
  });

  test("an answer whose ownership was lost meanwhile goes out, unconfirmed and counted", async () => {
    const release = bench.app.hold();
    bench.app.seen.length = 0;
    const answer = bench.ask(agent, { method: "POST", body: "x" });
    await until("the application has it", () => bench.app.seen.length === 1);
    await bench.applied(bench.control.own(acmeKey, "fenced"));
    await until("the gate knows", async () => (await statusOf(agent)).keys["fenced"] === 1);
    release();
    expect(await answer).toMatchObject({ status: 201, body: "made" });
    expect((await answer).header(headers.confirm)).toBeUndefined();
    await until("it is counted", () => reported()?.wouldRefuse["OUTCOME_UNKNOWN"] === 1);
  });

  test("a closed gate and an ended lease stop nothing", async () => {
    expect(await agent.gate.close(acmeKey, "test")).toBe("drained");
    expect((await bench.ask(agent)).status).toBe(201);
    bench.control.settings.leaseRefused = "not now";
    await bench.store.admin.query(
      "select cellfleet.expire_lease(max(lease_grant)) from cellfleet.lease",
    );
    await until("the lease is over", async () => !(await statusOf(agent)).lease.live);
    agent.gate.open(acmeKey, "test");
    const answer = await bench.ask(agent);
    expect(answer.status).toBe(201);
    expect(answer.header(headers.confirm)).toBeUndefined();
    expect((await statusOf(agent)).reason).toContain("observe");
    await until("both are counted", () => {
      const counts = reported()?.wouldRefuse ?? {};
      return (counts["GATE_CLOSED"] ?? 0) > 0 && (counts["LEASE_MISSING"] ?? 0) > 0;
    });
  });

  test("counts of a second agent arrive through the primary", async () => {
    const second = await bench.start();
    const counted = () => reported()?.wouldRefuse["GATE_HEADERS_MISSING"] ?? 0;
    await until("it observes too", async () => {
      const answer = await bench.ask(second, { extra: bare });
      return answer.status === 201;
    });
    const before = counted();
    for (let nth = 0; nth < 7; nth += 1) await bench.ask(second, { extra: bare });
    await until("the primary tells of them", () => counted() >= before + 7);
    expect((await statusOf(second)).primary).toBe(false);
  });
});

describe("a change of stage", () => {
  test("to enforce is the database's first: while it waits for a writer, the gate lets all pass", async () => {
    const agent = await bench.serving();
    await goTo("observe");
    await until(
      "the gate follows",
      async () => (await bench.ask(agent, { extra: bare })).status === 201,
    );
    // Writes by leave of the stage, and is not done.
    const writer = await bench.store.connect();
    await writer.query("begin");
    await writer.query(
      "insert into orders (tenant_id, item, quantity) values ('nobody', 'tea', 1)",
    );
    bench.control.settings.stage = "enforce";
    // Told again and again meanwhile, and not once does the gate run ahead.
    await until("it was tried three times", async () => {
      expect((await bench.ask(agent, { extra: bare })).status).toBe(201);
      return bench.events("stage.delayed").length >= 3;
    });
    expect(await inDatabase()).toBe("observe");
    await writer.query("commit");
    await until("enforce is reported", () => reported()?.applied === "enforce");
    await until(
      "the gate refuses",
      async () => (await bench.ask(agent, { extra: bare })).status === 403,
    );
    expect((await bench.ask(agent)).status).toBe(201);
  });

  test("away from enforce is every gate's first, also without the primary's help", async () => {
    const agent = await bench.serving();
    const second = await bench.start();
    await until("both refuse", async () => {
      const both = [
        await bench.ask(agent, { extra: bare }),
        await bench.ask(second, { extra: bare }),
      ];
      return both.every(({ code }) => code === "GATE_HEADERS_MISSING");
    });
    // The database cannot follow: the row that says the stage is held.
    await bench.store.admin.query("begin");
    await bench.store.admin.query("select from cellfleet.stage for update");
    bench.control.settings.stage = "observe";
    await until("both gates let it pass", async () => {
      const both = [
        await bench.ask(agent, { extra: bare }),
        await bench.ask(second, { extra: bare }),
      ];
      return both.every(({ status }) => status === 201);
    });
    expect(await inDatabase()).toBe("enforce");
    await bench.store.admin.query("commit");
    await until("observe is reported", () => reported()?.applied === "observe");
    expect(await inDatabase()).toBe("observe");
  });

  test("back and forth costs a tenant's requests nothing", async () => {
    const agent = await bench.serving();
    const statuses = new Map<number, number>();
    let going = true;
    const load = Array.from({ length: 4 }, async () => {
      while (going) {
        const { status } = await bench.ask(agent, { method: "POST", body: "x" });
        statuses.set(status, (statuses.get(status) ?? 0) + 1);
      }
    });
    for (const stage of ["observe", "enforce", "pass-through", "observe", "enforce"] as const) {
      await goTo(stage);
    }
    going = false;
    await Promise.all(load);
    expect([...statuses.keys()]).toEqual([201]);
    expect(statuses.get(201)).toBeGreaterThan(100);
  });

  test("stays without the control plane, and across a restart of the agent", async () => {
    const agent = await bench.serving();
    await goTo("pass-through");
    await agent.close();
    bench.control.settings.silent = true;
    const next = await bench.start();
    await until("it passes", async () => (await bench.ask(next, { extra: bare })).status === 201);
    expect((await statusOf(next)).reason).toContain("pass-through");
  });

  test("reports guarded tables, and what the guard would have refused", async () => {
    await bench.serving();
    await goTo("observe");
    await bench.store.app.query(
      "insert into orders (tenant_id, item, quantity) values ('nobody', 'tea', 1)",
    );
    await until("CF001 is told", () => (reported()?.wouldRefuse["CF001"] ?? 0) > 0);
    expect(reported()?.guardedTables).toBe(1);
    await goTo("enforce");
    const refused = refusalOf(
      bench.store.app.query(
        "insert into orders (tenant_id, item, quantity) values ('nobody', 'tea', 1)",
      ),
    );
    expect(await refused).toMatch(/^CF00/);
  });
});

test("an answer of an earlier change of stage moves neither the database nor a gate", async () => {
  const agent = await bench.serving();
  const second = await bench.start();
  await goTo("observe");
  await goTo("enforce");
  const { stageNumber } = await readFacts(bench.store.agent);
  await until("both refuse", async () => {
    const both = [
      await bench.ask(agent, { extra: bare }),
      await bench.ask(second, { extra: bare }),
    ];
    return both.every(({ status }) => status === 403);
  });
  bench.control.settings.stageNumber = stageNumber - 1;
  bench.control.settings.stage = "observe";
  await until("it was refused, and refused again", async () => {
    const both = [
      await bench.ask(agent, { extra: bare }),
      await bench.ask(second, { extra: bare }),
    ];
    expect(both.map(({ status }) => status)).toEqual([403, 403]);
    return bench.events("stage.refused").length >= 2;
  });
  expect(await inDatabase()).toBe("enforce");
  expect(reported()?.number).toBe(stageNumber);
  bench.control.settings.stageNumber = stageNumber + 1;
  await until("a later one is obeyed", () => reported()?.applied === "observe");
});

test("reports tables that a migration added and nobody classed, until they are", async () => {
  await bench.serving();
  await until("no table", () => reported()?.unclassed?.count === 0);
  await bench.store.owner("create table notes (id integer, tenant_id text)");
  await until("the table is told", () => reported()?.unclassed?.names.join() === "public.notes");
  expect(reported()?.unclassed).toEqual({ count: 1, names: ["public.notes"] });
  await bench.store.owner(
    `select cellfleet.record_manifest('[{"schema": "public", "table": "notes", "class": "cell-local"}]')`,
  );
  await until("it is classed", () => reported()?.unclassed?.count === 0);
});

test("serves, and says nothing of tables, where the database's pack cannot tell", async () => {
  await bench.store.admin.query("drop function cellfleet.unclassed_tables()");
  const agent = await bench.serving();
  await until("it is told of guarded tables", () => reported()?.guardedTables === 1);
  expect(reported()?.unclassed).toBeUndefined();
  expect((await bench.ask(agent, { method: "POST", body: "x" })).status).toBe(201);
});

describe("a fan-out", () => {
  const fanOut = (more: Readonly<Record<string, string | undefined>> = {}) => ({
    ...bare,
    [headers.routeClass]: "fan-out",
    [headers.cell]: bench.store.name,
    [headers.nonce]: "nonce-9",
    ...more,
  });

  test("is admitted to the cell it means, confirmed without an epoch", async () => {
    const agent = await bench.serving();
    const answer = await bench.ask(agent, { extra: fanOut() });
    expect(answer.status).toBe(201);
    expect(answer.header(headers.confirm)).toMatch(
      new RegExp(`^cell=${bench.store.name};epoch=0;lease=\\d+$`),
    );
    expect(told(headers.routeClass)).toEqual(["fan-out"]);
    expect(told(headers.cell)).toEqual([bench.store.name]);
    expect(told(headers.tenant)).toEqual([]);
  });

  test("is refused to another cell, with a method that writes, and without a lease", async () => {
    const agent = await bench.serving();
    const other = await bench.ask(agent, { extra: fanOut({ [headers.cell]: "cell-99" }) });
    expect(other).toMatchObject({ status: 421, code: "PLACEMENT_STALE" });
    expect(other.header(headers.notAdmitted)).toBe("nonce-9");
    const post = await bench.ask(agent, { extra: fanOut(), method: "POST", body: "x" });
    expect(post).toMatchObject({ status: 405, code: "METHOD_NOT_ALLOWED" });
    const half = await bench.ask(agent, { extra: fanOut({ [headers.tenant]: "acme" }) });
    expect(half.code).toBe("GATE_HEADERS_MISSING");
    bench.control.settings.leaseRefused = "not now";
    await bench.store.admin.query(
      "select cellfleet.expire_lease(max(lease_grant)) from cellfleet.lease",
    );
    await until("the lease is over", async () => !(await statusOf(agent)).lease.live);
    expect((await bench.ask(agent, { extra: fanOut() })).code).toBe("LEASE_MISSING");
    expect(bench.app.seen).toEqual([]);
  });
});
