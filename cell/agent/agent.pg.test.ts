/**
 * An agent between a real application, a real cell database and a control plane that speaks the
 * contract: leases, ownership and what the gate lets through.
 */

import { connect } from "node:net";
import { request } from "undici";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { headers } from "../../contract/headers.ts";
import { headerValues } from "../../contract/raw-headers.ts";
import { must } from "../../runtime/assert.ts";
import { type CellStore, createCellStore } from "../../tests/cell-store.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import {
  askGate,
  type FakeApp,
  type FakeControl,
  type LogLine,
  startFakeApp,
  startFakeControl,
  startTestAgent,
  statusOf,
  until,
} from "./agent.fixture.ts";
import type { Agent } from "./agent.ts";

const acme = "default/tenant/acme";
let server: TestPostgres;
let store: CellStore;
let control: FakeControl;
let app: FakeApp;
let lines: LogLine[];
let stops: Array<() => Promise<unknown>>;
let cells = 0;

beforeAll(async () => {
  server = await startTestPostgres();
});
afterAll(() => server.stop());
beforeEach(async () => {
  cells += 1;
  lines = [];
  stops = [];
  store = await createCellStore(server, `cell-${cells}`, { mode: "strict" });
  stops.push(() => store.close());
  control = await startFakeControl();
  stops.push(() => control.close());
  app = await startFakeApp();
  stops.push(() => app.close());
});
afterEach(async () => {
  for (const stop of stops.toReversed()) await stop();
});

async function start(): Promise<Agent> {
  const agent = await startTestAgent({ server, store, control, app, lines });
  stops.push(() => agent.close());
  return agent;
}
const ask = (agent: Agent, more: Partial<Parameters<typeof askGate>[1]> = {}) =>
  askGate(agent.endpoint, { cell: store.name, ...more });
const applied = (revision: number) =>
  until(`revision ${revision} is acknowledged`, () => control.acknowledged() >= revision);
/** An agent that serves acme. */
async function serving(): Promise<Agent> {
  const agent = await start();
  await applied(control.own(acme, "active"));
  await until("acme is served", async () => (await ask(agent)).status === 201);
  app.seen.length = 0;
  return agent;
}
async function insertOrder(): Promise<void> {
  await store.app.query("begin");
  await store.app.query("select cellfleet.enter($1, 1)", [acme]);
  await store.app.query("insert into orders (tenant_id, item, quantity) values ('acme', 'tea', 1)");
  await store.app.query("commit");
}
const events = (name: string) => lines.filter((line) => line.event === name);

describe("a request", () => {
  test("of an active key passes, and its answer is confirmed with epoch and lease", async () => {
    const agent = await serving();
    const answer = await ask(agent, { method: "POST", body: "hello" });
    expect(answer.body).toBe("made");
    const confirm = must(answer.header(headers.confirm), "confirmation");
    expect(confirm).toMatch(new RegExp(`^cell=${store.name};epoch=1;lease=\\d+$`));
    expect(Number(confirm.split("lease=")[1])).toBeGreaterThan(1_000_000);
    // What the application said under our prefix is gone.
    expect(answer.header(headers.notAdmitted)).toBeUndefined();
    expect(answer.header("x-app")).toBe("yes");
    const seen = must(app.seen[0], "request");
    expect(headerValues(seen, headers.tenant)).toEqual(["acme"]);
    expect(headerValues(seen, headers.key)).toEqual([acme]);
    expect(headerValues(seen, headers.epoch)).toEqual(["1"]);
    expect(headerValues(seen, headers.nonce)).toEqual([]);
  });

  test("that a router did not make is refused before the application sees it", async () => {
    const agent = await serving();
    const answer = await ask(agent, { extra: { [headers.nonce]: undefined } });
    expect(answer).toMatchObject({ status: 403, code: "GATE_HEADERS_MISSING" });
    expect(app.seen).toEqual([]);
  });

  test.each([
    ["another epoch", { epoch: 2 }],
    ["an unknown tenant", { tenant: "nobody" }],
    ["another cell", { extra: { [headers.cell]: "cell-99" } }],
  ])("for %s is answered 421 with its nonce", async (_what, more) => {
    const agent = await serving();
    const answer = await ask(agent, more);
    expect(answer).toMatchObject({ status: 421, code: "PLACEMENT_STALE" });
    expect(answer.header(headers.notAdmitted)).toBe("nonce-1");
    expect(app.seen).toEqual([]);
  });

  test("cannot take the gate's headers away by naming them in Connection", async () => {
    const agent = await serving();
    const answer = await ask(agent, { extra: { te: "trailers" } });
    expect(answer.status).toBe(201);
    const raw = await rawRequest(agent.endpoint, [
      "GET /things HTTP/1.1",
      "host: x",
      `connection: close, ${headers.epoch}`,
      `${headers.tenant}: acme`,
      `${headers.keyspace}: default`,
      `${headers.key}: ${acme}`,
      `${headers.epoch}: 1`,
      `${headers.cell}: ${store.name}`,
      `${headers.nonce}: n`,
    ]);
    expect(raw).toContain("201");
    expect(headerValues(must(app.seen.at(-1), "request"), headers.epoch)).toEqual(["1"]);
  });

  test.each([
    ["without a path", "OPTIONS * HTTP/1.1", "400"],
    ["with a whole URL", "GET http://elsewhere.test/x HTTP/1.1", "400"],
    ["in HTTP/1.0", "GET /old HTTP/1.0", "201"],
  ])("%s does no harm", async (_what, line, expected) => {
    const agent = await serving();
    const raw = await rawRequest(agent.endpoint, [
      ...[line, "host: x", "connection: close", `${headers.tenant}: acme`],
      ...[`${headers.keyspace}: default`, `${headers.key}: ${acme}`, `${headers.epoch}: 1`],
      ...[`${headers.cell}: ${store.name}`, `${headers.nonce}: n`],
    ]);
    expect(raw).toContain(expected);
    expect((await ask(agent)).status).toBe(201);
  });

  test("that waits for 100 Continue is told to go on only once it is admitted", async () => {
    const agent = await serving();
    const head = (epoch: number) => [
      ...["POST /things HTTP/1.1", "host: x", "connection: close", "expect: 100-continue"],
      ...["content-length: 5", `${headers.tenant}: acme`, `${headers.keyspace}: default`],
      ...[`${headers.key}: ${acme}`, `${headers.epoch}: ${epoch}`],
      ...[`${headers.cell}: ${store.name}`, `${headers.nonce}: n`],
    ];
    const admitted = await rawRequest(agent.endpoint, head(1), "hello");
    expect(admitted).toMatch(/^HTTP\/1\.1 100 [\s\S]*HTTP\/1\.1 201 /);
    expect(await rawRequest(agent.endpoint, head(9), "hello")).toMatch(/^HTTP\/1\.1 421 /);
  });

  test("of an application that is down is 503 and may be sent again", async () => {
    const agent = await serving();
    await app.close();
    const answer = await ask(agent);
    expect(answer).toMatchObject({ status: 503, code: "APP_UNREACHABLE" });
    expect(answer.header(headers.notAdmitted)).toBe("nonce-1");
  });
});

describe("ownership", () => {
  test("that is fenced while a request is in flight makes its outcome unknown (R2)", async () => {
    const agent = await serving();
    const release = app.hold();
    const answer = ask(agent, { method: "POST", body: "x" });
    await until("the application has the request", () => app.seen.length === 1);
    await applied(control.own(acme, "fenced"));
    await until("the gate knows", async () => (await ask(agent)).status === 421);
    release();
    expect(await answer).toMatchObject({ status: 503, code: "OUTCOME_UNKNOWN" });
    expect((await answer).header(headers.notAdmitted)).toBeUndefined();
    expect((await answer).header(headers.confirm)).toBeUndefined();
  });

  test("that the router knows first is looked up in the database", async () => {
    const agent = await serving();
    await store.own("default/tenant/late", "active", 4);
    // Asked at once: the memory may not have heard of it yet.
    expect((await ask(agent, { tenant: "late", epoch: 4 })).status).toBe(201);
  });

  test("that was refused, because the database knows something newer, is reported", async () => {
    const agent = await serving();
    await store.own("default/tenant/newer", "active", 7);
    await applied(control.own("default/tenant/newer", "active", 3));
    await until("the refusal is told", () =>
      control.calls.some((call) =>
        call.refused.some((one) => one.key === "default/tenant/newer" && one.epoch === 7),
      ),
    );
    expect((await ask(agent, { tenant: "newer", epoch: 7 })).status).toBe(201);
    // Told once.
    const told = control.calls.length;
    await until("calls go on", () => control.calls.length > told + 1);
    expect(control.calls.slice(told + 1).flatMap((call) => call.refused)).toEqual([]);
  });

  test("is reported whole, in pages, when the control plane asks for it", async () => {
    await serving();
    control.own("default/tenant/b", "fenced");
    await applied(control.own("default/tenant/c", "active", 5));
    control.settings.report = "ownership";
    await until("the report is there", () =>
      control.calls.some((call) => call.ownership?.last === true),
    );
    control.settings.report = "nothing";
    const report = must(
      control.calls.find((call) => call.ownership !== undefined)?.ownership,
      "report",
    );
    expect(report.entries).toEqual([
      { key: acme, state: "active", epoch: 1 },
      { key: "default/tenant/b", state: "fenced", epoch: 1 },
      { key: "default/tenant/c", state: "active", epoch: 5 },
    ]);
  });

  test("stays closed for a key while it is drained, until the last request has left", async () => {
    const agent = await serving();
    const release = app.hold();
    const inFlight = ask(agent);
    await until("it is in flight", () => agent.gate.inFlightOf(acme) === 1);
    const drained = agent.gate.close(acme);
    expect(await ask(agent)).toMatchObject({ status: 503, code: "GATE_CLOSED" });
    release();
    expect((await inFlight).status).toBe(201);
    expect(await drained).toBe("drained");
    agent.gate.open(acme);
    expect((await ask(agent)).status).toBe(201);
  });
});

describe("the lease", () => {
  test("is asked for anew at once when the database was started again: born fenced", async () => {
    const agent = await serving();
    const before = must(control.calls.at(-1), "call").database;
    const { lease } = await statusOf(agent);
    control.settings.leaseRefused = "the test says no";
    await server.restart("immediate");
    await until("the agent sees the restart", () =>
      control.calls.some((call) => call.wantLease && call.database.boot !== before.boot),
    );
    expect(await ask(agent)).toMatchObject({ status: 503, code: "LEASE_MISSING" });
    control.settings.leaseRefused = undefined;
    await until("it serves again", async () => (await ask(agent)).status === 201);
    const { lease: renewed } = await statusOf(agent);
    expect(renewed.live).toBe(true);
    expect(renewed.grant).toBeGreaterThan(lease.grant);
  });

  test("outlasts a control plane that is silent, and not one moment longer", async () => {
    control.settings.ttlMs = 5000;
    const agent = await serving();
    control.settings.silent = true;
    const at = control.calls.length;
    expect((await ask(agent)).status).toBe(201);
    await until("the lease is over", async () => (await ask(agent)).code === "LEASE_MISSING");
    expect(control.calls.length).toBe(at);
    const refused = await ask(agent);
    expect(refused.header(headers.notAdmitted)).toBe("nonce-1");
    // Also in the database, and for good: its clock falls back by an hour, and nothing revives.
    await until("the row is ended", async () => !(await isLive()));
    await store.admin.query(
      `create or replace function cellfleet.clock() returns timestamptz language sql volatile
       begin atomic select pg_catalog.clock_timestamp() - interval '1 hour'; end`,
    );
    expect(await isLive()).toBe(false);
    expect(await statusOf(agent)).toMatchObject({
      reason: "not serving: the lease is over and the control plane does not answer",
    });
    control.settings.silent = false;
    await until("it serves again", async () => (await ask(agent)).status === 201);
    // Changes of state are logged, attempts are not.
    expect(events("control-plane.lost").length).toBe(1);
  });

  test("does not grow when the database's clock falls back while it is held", async () => {
    control.settings.ttlMs = 5000;
    const agent = await serving();
    control.settings.silent = true;
    await store.admin.query(
      `create or replace function cellfleet.clock() returns timestamptz language sql volatile
       begin atomic select pg_catalog.clock_timestamp() - interval '1 hour'; end`,
    );
    expect(await isLive()).toBe(true);
    await until("the lease is over", async () => (await ask(agent)).code === "LEASE_MISSING");
    await until("also for the guard", async () => !(await isLive()));
  });

  const isLive = async () => {
    const { rows } = await store.agent.query("select cellfleet.lease_live() as live");
    return rows[0]?.live === true;
  };

  test("is renewed by one of two agents; when it goes, the other takes over", async () => {
    control.settings.ttlMs = 6000;
    const first = await serving();
    const second = await start();
    await until("the second serves too", async () => (await ask(second)).status === 201);
    expect((await statusOf(first)).primary).toBe(true);
    expect((await statusOf(second)).primary).toBe(false);
    await first.close();
    const at = control.calls.length;
    await until("the second renews", () =>
      control.calls.slice(at).some((call) => call.primary && call.wantLease),
    );
    await until("it goes on serving", async () => (await ask(second)).status === 201);
  });
});

describe("what the primary reports and gets", () => {
  test("are ids, leased before they run out, disjoint from what stood before", async () => {
    await serving();
    await insertOrder();
    const held = () =>
      control.calls.flatMap((call) => call.idRangesHeld ?? []).map((range) => range.max);
    await until("a second range is kept", () => held().some((max) => max > 1_000_000));
    const { rows } = await store.agent.query("select lo, hi from cellfleet.id_range order by lo");
    expect(rows.map(({ lo, hi }) => [Number(lo), Number(hi)])).toEqual([
      [1, 1_000_000],
      [1_000_001, 1_001_000],
    ]);
  });

  test("are rows and bytes of tenants, once they are there", async () => {
    await store.own(acme, "active");
    await store.grantLease();
    await insertOrder();
    await start();
    const told = () => control.calls.flatMap((call) => call.stats);
    await until("acme is reported", () => told().length > 0);
    expect(told()[0]).toMatchObject({ keyspace: "default", tenant: "acme", rows: 1 });
    const at = control.calls.length;
    await until("calls go on", () => control.calls.length > at + 1);
    expect(told().length).toBe(1);
  });
});

test("metrics, health and status say what is", async () => {
  const agent = await serving();
  await until("the application is seen", async () => {
    const ready = await request(`${agent.admin}/readyz`);
    await ready.body.dump();
    return ready.statusCode === 200;
  });
  const metrics = await (await request(`${agent.admin}/metrics`)).body.text();
  expect(metrics).toContain('cellfleet_agent_keys{state="active"} 1');
  expect(metrics).toContain('cellfleet_agent_refused_total{code="PLACEMENT_STALE"}');
  expect(metrics).toContain("cellfleet_agent_primary 1");
  expect(await statusOf(agent)).toMatchObject({
    cell: store.name,
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
  const agent = await serving();
  const release = app.hold();
  const inFlight = ask(agent, { method: "POST", body: "x" });
  await until("it is in flight", () => agent.gate.inFlight === 1);
  const closing = agent.close();
  await until("nothing new is accepted", async () => {
    const refused = await ask(agent).catch(() => undefined);
    return refused === undefined;
  });
  release();
  expect((await inFlight).status).toBe(201);
  expect((await inFlight).header(headers.confirm)).toBeDefined();
  await closing;
  expect(events("agent.stopped").length).toBe(1);
  expect(events("step.failed")).toEqual([]);
});

test("a control plane of another fleet is not obeyed", async () => {
  const agent = await serving();
  control.settings.fleet = "fleet-2";
  control.own(acme, "fenced");
  await until("it is noticed", () => events("fleet.refused").length > 0);
  const at = control.calls.length;
  await until("calls go on", () => control.calls.length > at + 1);
  expect((await ask(agent)).status).toBe(201);
  expect(events("fleet.refused").length).toBe(1);
});

test("an agent refuses the database of another cell", async () => {
  await store.admin.query("update cellfleet.progress set cell = 'cell-of-others'");
  const stranger = await startTestAgent({ server, store, control, app, lines });
  stops.push(() => stranger.close());
  await until("it is said", () =>
    events("database.lost").some((line) => String(line["error"]).includes("cell-of-others")),
  );
  expect((await ask(stranger)).code).toBe("GATE_CLOSED");
  // Once, however often it tried.
  expect(events("database.lost").length).toBe(1);
});

/** `afterContinue` is sent when the server says that it wants the body. */
async function rawRequest(
  endpoint: string,
  head: readonly string[],
  afterContinue = "",
): Promise<string> {
  const url = new URL(endpoint);
  const socket = connect(Number(url.port), url.hostname);
  socket.write(`${head.join("\r\n")}\r\n\r\n`);
  let text = "";
  for await (const chunk of socket) {
    text += String(chunk);
    if (text.endsWith("Continue\r\n\r\n")) socket.write(afterContinue);
  }
  return text;
}
