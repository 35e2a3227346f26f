/** An agent between a real database and a control plane that speaks the contract: ownership, reports, its own door. */

import { request } from "undici";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { headers } from "../../contract/headers.ts";
import { must } from "../../runtime/assert.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import { type AgentBench, acmeKey, openBench, statusOf, until } from "./agent.fixture.ts";

const acme = acmeKey;
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

describe("ownership", () => {
  test("that is fenced while a request is in flight makes its outcome unknown (R2)", async () => {
    const agent = await bench.serving();
    // Only this one: the gate may let others in until it knows.
    const release = bench.app.hold(1);
    const answer = bench.ask(agent, { method: "POST", body: "x" });
    await until("the application has the request", () => bench.app.seen.length === 1);
    await bench.applied(bench.control.own(acme, "fenced"));
    await until("the gate knows", async () => (await bench.ask(agent)).status === 421);
    release();
    expect(await answer).toMatchObject({ status: 503, code: "OUTCOME_UNKNOWN" });
    expect((await answer).header(headers.notAdmitted)).toBeUndefined();
    expect((await answer).header(headers.confirm)).toBeUndefined();
  });

  test("that the router knows first is looked up in the database", async () => {
    const agent = await bench.serving();
    await bench.store.own("default/tenant/late", "active", 4);
    // Asked at once: the memory may not have heard of it yet.
    expect((await bench.ask(agent, { tenant: "late", epoch: 4 })).status).toBe(201);
  });

  test("that was refused, because the database knows something newer, is reported", async () => {
    const agent = await bench.serving();
    await bench.store.own("default/tenant/newer", "active", 7);
    await bench.applied(bench.control.own("default/tenant/newer", "active", 3));
    await until("the refusal is told", () =>
      bench.control.calls.some((call) =>
        call.refused.some((one) => one.key === "default/tenant/newer" && one.epoch === 7),
      ),
    );
    expect((await bench.ask(agent, { tenant: "newer", epoch: 7 })).status).toBe(201);
    // Told once.
    const told = bench.control.calls.length;
    await until("calls go on", () => bench.control.calls.length > told + 1);
    expect(bench.control.calls.slice(told + 1).flatMap((call) => call.refused)).toEqual([]);
  });

  test("is reported whole, in pages, when the control plane asks for it", async () => {
    await bench.serving();
    bench.control.own("default/tenant/b", "fenced");
    await bench.applied(bench.control.own("default/tenant/c", "active", 5));
    bench.control.settings.report = "ownership";
    await until("the report is there", () =>
      bench.control.calls.some((call) => call.ownership?.last === true),
    );
    bench.control.settings.report = "nothing";
    const report = must(
      bench.control.calls.find((call) => call.ownership !== undefined)?.ownership,
      "report",
    );
    expect(report.entries).toEqual([
      { key: acme, state: "active", epoch: 1 },
      { key: "default/tenant/b", state: "fenced", epoch: 1 },
      { key: "default/tenant/c", state: "active", epoch: 5 },
    ]);
  });

  test("stays closed for a key while it is drained, until the last request has left", async () => {
    const agent = await bench.serving();
    const release = bench.app.hold();
    const inFlight = bench.ask(agent);
    await until("it is in flight", () => agent.gate.inFlightOf(acme) === 1);
    const drained = agent.gate.close(acme, "test");
    expect(await bench.ask(agent)).toMatchObject({ status: 503, code: "GATE_CLOSED" });
    release();
    expect((await inFlight).status).toBe(201);
    expect(await drained).toBe("drained");
    agent.gate.open(acme, "test");
    expect((await bench.ask(agent)).status).toBe(201);
  });
});

describe("what the primary reports and gets", () => {
  test("are ids, leased before they run out, disjoint from what stood before", async () => {
    await bench.serving();
    await bench.insertOrder();
    const held = () =>
      bench.control.calls.flatMap((call) => call.idRangesHeld ?? []).map((range) => range.max);
    await until("a second range is kept", () => held().some((max) => max > 1_000_000));
    const { rows } = await bench.store.agent.query(
      "select lo, hi from cellfleet.id_range order by lo",
    );
    expect(rows.map(({ lo, hi }) => [Number(lo), Number(hi)])).toEqual([
      [1, 1_000_000],
      [1_000_001, 1_001_000],
    ]);
  });

  test("are rows and bytes of tenants, once they are there", async () => {
    await bench.store.own(acme, "active");
    await bench.store.grantLease();
    await bench.insertOrder();
    await bench.start();
    const told = () => bench.control.calls.flatMap((call) => call.stats);
    await until("acme is reported", () => told().length > 0);
    expect(told()[0]).toMatchObject({ keyspace: "default", tenant: "acme", rows: 1 });
    const at = bench.control.calls.length;
    await until("calls go on", () => bench.control.calls.length > at + 1);
    expect(told().length).toBe(1);
  });

  test("is how requests of tenants ended, in one batch", async () => {
    const agent = await bench.serving();
    expect((await bench.ask(agent)).status).toBe(201);
    const told = () => bench.control.calls.flatMap((call) => call.outcomes ?? []);
    await until("acme's request is told", () => told().length > 0);
    const one = { keyspace: "default", tenant: "acme", service: "default" };
    // It was asked before, to see that it serves.
    const ended = { ...one, requests: expect.any(Number), failures: 0 };
    expect(told()[0]).toEqual({ number: 1, tenants: [ended] });
  });
});

test("metrics, health and status say what is", async () => {
  const agent = await bench.serving();
  await until("the application is seen", async () => {
    const ready = await request(`${agent.admin}/readyz`);
    await ready.body.dump();
    return ready.statusCode === 200;
  });
  const checks = await (await request(`${agent.admin}/healthz?verbose`)).body.text();
  expect(checks).toMatch(
    /^\[\+\]running ok\n\[\+\]database ok\n\[\+\]lease ok\n\[\+\]application ok\n/,
  );
  const metrics = await (await request(`${agent.admin}/metrics`)).body.text();
  expect(metrics).toContain('cellfleet_agent_keys{state="active"} 1');
  expect(metrics).toContain('cellfleet_agent_refused_total{code="PLACEMENT_STALE"}');
  expect(metrics).toContain("cellfleet_agent_primary 1");
  expect(await statusOf(agent)).toMatchObject({
    cell: bench.store.name,
    keys: { active: 1, fenced: 0 },
    reason: "serving: lease, database and application are as they should be",
  });
  for (const path of ["//", "/nothing", "/__proto__"]) {
    const answer = await request(`${agent.admin}${path}`);
    await answer.body.dump();
    expect(answer.statusCode).toBe(404);
  }
});

test("an agent that is told to stop lets what is in flight end", async () => {
  const agent = await bench.serving();
  const release = bench.app.hold();
  const inFlight = bench.ask(agent, { method: "POST", body: "x" });
  await until("it is in flight", () => agent.gate.inFlight === 1);
  const closing = agent.close();
  await until("nothing new is accepted", async () => {
    const refused = await bench.ask(agent).catch(() => undefined);
    return refused === undefined;
  });
  release();
  expect((await inFlight).status).toBe(201);
  expect((await inFlight).header(headers.confirm)).toBeDefined();
  await closing;
  expect(bench.events("agent.stopped").length).toBe(1);
  expect(bench.events("step.failed")).toEqual([]);
});

test("a control plane of another fleet is not obeyed", async () => {
  const agent = await bench.serving();
  bench.control.settings.fleet = "fleet-2";
  bench.control.own(acme, "fenced");
  await until("it is noticed", () => bench.events("fleet.refused").length > 0);
  const at = bench.control.calls.length;
  await until("calls go on", () => bench.control.calls.length > at + 1);
  expect((await bench.ask(agent)).status).toBe(201);
  expect(bench.events("fleet.refused").length).toBe(1);
});

test("an agent refuses the database of another cell", async () => {
  await bench.store.admin.query("update cellfleet.progress set cell = 'cell-of-others'");
  const stranger = await bench.start();
  await until("it is said", () =>
    bench.events("database.lost").some((line) => String(line["error"]).includes("cell-of-others")),
  );
  expect((await bench.ask(stranger)).code).toBe("GATE_CLOSED");
  // Once, however often it tried.
  expect(bench.events("database.lost").length).toBe(1);
});
