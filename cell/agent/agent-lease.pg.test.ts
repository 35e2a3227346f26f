/** The lease of a real cell: restarts, silence, clocks that fall back, two agents. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { headers } from "../../contract/headers.ts";
import { must } from "../../runtime/assert.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import { type AgentBench, openBench, statusOf, until } from "./agent.fixture.ts";

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

describe("the lease", () => {
  test("is asked for anew at once when the database was started again: born fenced", async () => {
    const agent = await bench.serving();
    const before = must(bench.control.calls.at(-1), "call").database;
    const { lease } = await statusOf(agent);
    bench.control.settings.leaseRefused = "the test says no";
    await server.restart("immediate");
    await until("the agent sees the restart", () =>
      bench.control.calls.some((call) => call.wantLease && call.database.boot !== before.boot),
    );
    expect(await bench.ask(agent)).toMatchObject({ status: 503, code: "LEASE_MISSING" });
    bench.control.settings.leaseRefused = undefined;
    await until("it serves again", async () => (await bench.ask(agent)).status === 201);
    const { lease: renewed } = await statusOf(agent);
    expect(renewed.live).toBe(true);
    expect(bench.control.calls[0]?.leaseLeftMs).toBe(0);
    await until("it says what is left of it", () =>
      bench.control.calls.some(
        ({ leaseLeftMs = 0, leaseInPart }) => leaseLeftMs > 0 && leaseInPart === false,
      ),
    );
    expect(renewed.grant).toBeGreaterThan(lease.grant);
  });

  test("is asked for anew at once when one backend crashed and the same postmaster recovered", async () => {
    const agent = await bench.serving();
    const before = (await statusOf(agent)).lease.grant;
    bench.control.settings.leaseRefused = "the test says no";
    const { rows } = await bench.store.admin.query("select pg_backend_pid() as pid");
    bench.store.admin.on("error", () => {}); // It is this connection that dies.
    process.kill(Number(rows[0]?.pid), "SIGKILL");
    await until("the gate knows", async () => (await bench.ask(agent)).code === "LEASE_MISSING");
    expect(bench.events("lease.lost")).toHaveLength(1);
    bench.control.settings.leaseRefused = undefined;
    await until("it serves again", async () => (await bench.ask(agent)).status === 201);
    expect((await statusOf(agent)).lease.grant).toBeGreaterThan(before);
  });

  test("outlasts a control plane that is silent, and not one moment longer", async () => {
    bench.control.settings.ttlMs = 5000;
    const agent = await bench.serving();
    bench.control.settings.silent = true;
    const at = bench.control.calls.length;
    expect((await bench.ask(agent)).status).toBe(201);
    await until("the lease is over", async () => (await bench.ask(agent)).code === "LEASE_MISSING");
    expect(bench.control.calls.length).toBe(at);
    const refused = await bench.ask(agent);
    expect(refused.header(headers.notAdmitted)).toBe("nonce-1");
    // Also in the database, and for good: its clock falls back by an hour, and nothing revives.
    await until("the row is ended", async () => !(await isLive()));
    await bench.store.admin.query(
      `create or replace function cellfleet.clock() returns timestamptz language sql volatile
       begin atomic select pg_catalog.clock_timestamp() - interval '1 hour'; end`,
    );
    expect(await isLive()).toBe(false);
    expect(await statusOf(agent)).toMatchObject({
      reason: "not serving: the lease is over and the control plane does not answer",
    });
    bench.control.settings.silent = false;
    await until("it serves again", async () => (await bench.ask(agent)).status === 201);
    // Changes of state are logged, attempts are not.
    expect(bench.events("control-plane.lost").length).toBe(1);
  });

  test("counts from before it was asked for, in the agent and in the database", async () => {
    bench.control.settings.ttlMs = 30_000;
    bench.control.settings.grantDelayMs = 2000;
    const agent = await bench.start();
    await until("it is held", async () => (await statusOf(agent)).lease.live);
    // Of thirty seconds at least two are over, whatever the answer's way took.
    expect((await statusOf(agent)).lease.remainingMs).toBeLessThanOrEqual(27_700);
    const { rows } = await bench.store.agent.query(
      "select extract(epoch from expires_at - cellfleet.clock())::float8 as seconds from cellfleet.lease",
    );
    expect(rows[0]?.seconds).toBeLessThanOrEqual(28);
    expect(rows[0]?.seconds).toBeGreaterThan(0);
  });

  test("does not grow when the database's clock falls back while it is held", async () => {
    bench.control.settings.ttlMs = 5000;
    const agent = await bench.serving();
    bench.control.settings.silent = true;
    await bench.store.admin.query(
      `create or replace function cellfleet.clock() returns timestamptz language sql volatile
       begin atomic select pg_catalog.clock_timestamp() - interval '1 hour'; end`,
    );
    expect(await isLive()).toBe(true);
    await until("the lease is over", async () => (await bench.ask(agent)).code === "LEASE_MISSING");
    await until("also for the guard", async () => !(await isLive()));
  });

  const isLive = async () => {
    const { rows } = await bench.store.agent.query("select cellfleet.lease_live() as live");
    return rows[0]?.live === true;
  };

  test("is renewed by one of two agents; when it goes, the other takes over", async () => {
    bench.control.settings.ttlMs = 6000;
    const first = await bench.serving();
    const second = await bench.start();
    await until("the second serves too", async () => (await bench.ask(second)).status === 201);
    expect((await statusOf(first)).primary).toBe(true);
    expect((await statusOf(second)).primary).toBe(false);
    await first.close();
    const at = bench.control.calls.length;
    await until("the second renews", () =>
      bench.control.calls.slice(at).some((call) => call.primary && call.wantLease),
    );
    await until("it goes on serving", async () => (await bench.ask(second)).status === 201);
  });
});
