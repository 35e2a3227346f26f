/** A cell and its annexes without a control plane: who goes on, for how long, and who must not. */
import { createServer } from "node:http";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { parseCellId } from "../../../contract/ids.ts";
import { must } from "../../../runtime/assert.ts";
import { startTestPostgres, type TestPostgres } from "../../../tests/postgres.ts";
import { startReplica } from "../../store/replica.fixture.ts";
import { type AgentBench, startTestAgent, statusOf, until } from "../agent.fixture.ts";
import { listenUrl } from "../fake-control.fixture.ts";
import { openAnnex, openOrigin, openSlowDoor, ttlMs } from "./failsafe.fixture.ts";

let server: TestPostgres;
let partnersServer: TestPostgres;
const stops: Array<() => Promise<unknown>> = [];
let cells = 0;

beforeAll(async () => {
  [server, partnersServer] = await Promise.all([startTestPostgres(), startTestPostgres()]);
});
afterEach(async () => {
  for (const stop of stops.splice(0).toReversed()) await stop();
});
afterAll(() => Promise.all([server.stop(), partnersServer.stop()]));

const nextCell = () => {
  cells += 1;
  return `cell-${cells}`;
};
const keepOpen = <T extends { readonly bench: AgentBench }>(one: T): T => {
  stops.push(() => one.bench.close());
  return one;
};
const annexOf = async (origin: string, host: string, lo = 0, hi = 255) =>
  keepOpen(await openAnnex(partnersServer, origin, host, { lo, hi }));
const originWith = async (...args: Parameters<typeof openOrigin>) =>
  keepOpen(await openOrigin(...args));
const grantOf = (bench: AgentBench) =>
  bench.store.agent
    .query("select grant_seen::float8 as n from cellfleet.facts()")
    .then(({ rows }) => Number(rows[0]?.n));
/** So many leases have followed each other. */
const lastsFor = async (bench: AgentBench, leases: number) => {
  const from = await grantOf(bench);
  await until("it gives itself leases", async () => (await grantOf(bench)) >= from + leases);
};

describe("a control plane that is silent", () => {
  test("stops nobody while the partner promises; then promises are given back", async () => {
    const cell = nextCell();
    const annex = await annexOf(cell, "cell-90");
    const { bench, agent } = await originWith(server, cell, [annex.partner]);
    bench.control.settings.silent = true;
    await lastsFor(bench, 3);
    expect((await bench.ask(agent)).status).toBe(201);
    await bench.insertOrder();
    expect(annex.remainingMs()).toBeGreaterThan(1_000_000);
    // What was promised is promised also across a restart of the annex's agent, and whole again.
    await annex.agent.close();
    const before = annex.bench.control.calls.length;
    const { port } = new URL(annex.partner.endpoint);
    await annex.bench.start({ listen: { host: "127.0.0.1", port: Number(port) } });
    await until("the promise is told by the next agent", () =>
      annex.bench.control.calls
        .slice(before)
        .some((call) => (call.annex?.promiseRemainingMs ?? 0) > 1_000_000),
    );
    bench.control.settings.silent = false;
    await until("it is given back", () => annex.remainingMs() === 0);
    expect((await bench.ask(agent)).status).toBe(201);
    // The control plane can tell its own grants from the cell's.
    const [grants] = bench.control.calls.flatMap(({ origin, database }) =>
      origin === undefined || database.grant <= (origin.controlGrant ?? 0) ? [] : [origin],
    );
    expect(grants).toBeDefined();
    expect(bench.events("failsafe.over")).toHaveLength(1);
  });

  test.each([
    ["the only one that it made", false],
    ["one that was renewed", true],
  ])("is given back also a promise that was not heard of: %s", async (_which, isRenewed) => {
    const cell = nextCell();
    const annex = await annexOf(cell, "cell-90");
    let delayMs = isRenewed ? 0 : 2 * ttlMs;
    const door = await openSlowDoor(annex.partner.endpoint, () => delayMs);
    stops.push(door.close);
    const { bench } = await originWith(server, cell, [
      { ...annex.partner, endpoint: door.endpoint },
    ]);
    const numberOf = async () => {
      const asked = "select promise_number::float8 as n from cellfleet.annex_of";
      return Number((await annex.bench.store.agent.query(asked)).rows[0]?.n);
    };
    bench.control.settings.silent = true;
    if (isRenewed) await lastsFor(bench, 1);
    delayMs = 2 * ttlMs;
    const before = await numberOf();
    await until("it is asked in vain", async () => (await numberOf()) > before);
    await until("it has promised", () => annex.remainingMs() > 1_000_000);
    const calls = bench.control.calls.length;
    bench.control.settings.silent = false;
    // It is heard again before the partner is: nothing is promised that is known of.
    await until("the control plane grants", () => bench.control.calls.length > calls + 2);
    delayMs = 0;
    await until("it is given back", () => annex.remainingMs() === 0);
    expect(bench.events("failsafe.began")).toHaveLength(isRenewed ? 1 : 0);
  });

  test("gives a lease that counts from before the partner was asked", async () => {
    const slow = createServer((req, res) => {
      req.resume().on("end", () => {
        setTimeout(() => res.end(JSON.stringify({ promisedMs: 1_200_000, number: 1 })), 80);
      });
    });
    const endpoint = await listenUrl(slow);
    stops.push(() => new Promise((closed) => slow.close(closed)));
    const cell = nextCell();
    const annex = must(parseCellId(`sb-${cell}-cell-90`), "cell id");
    const host = must(parseCellId("cell-90"), "cell id");
    const partner = { annex, host, endpoint, lo: 0, hi: 255, token: "any" };
    const { bench, agent } = await originWith(server, cell, [partner]);
    bench.control.settings.silent = true;
    await lastsFor(bench, 1);
    for (let leases = 0; leases < 4; leases += 1) {
      await lastsFor(bench, 1);
      const before = await grantOf(bench);
      const { rows } = await bench.store.agent.query(
        "select extract(epoch from expires_at - cellfleet.clock())::float8 * 1000 as ms from cellfleet.lease",
      );
      const { remainingMs } = (await statusOf(agent)).lease;
      // Read later, and over earlier than the database's.
      if ((await grantOf(bench)) === before) expect(remainingMs).toBeLessThanOrEqual(rows[0]?.ms);
    }
  });

  test("stops the cell after it has refused, whoever would promise", async () => {
    const cell = nextCell();
    const annex = await annexOf(cell, "cell-91");
    const { bench, agent } = await originWith(server, cell, [annex.partner]);
    bench.control.settings.leaseRefused = "the cell's ownership is being revoked";
    await until("it is refused", () => bench.events("lease.refused").length > 0);
    bench.control.settings.silent = true;
    await until("it stops", async () => (await bench.ask(agent)).code === "LEASE_MISSING");
    // Also another agent of the cell, which never heard it.
    await agent.close();
    const other = await bench.start();
    await until("it knows its database", async () => (await statusOf(other)).primary);
    await new Promise((resolve) => setTimeout(resolve, ttlMs));
    expect((await bench.ask(other)).code).toBe("LEASE_MISSING");
    expect(bench.events("failsafe.began")).toEqual([]);
    expect(annex.remainingMs()).toBe(0);
  });

  test("that has forgotten the cell refuses it", async () => {
    const cell = nextCell();
    const { bench, agent } = await originWith(server, cell, []);
    bench.control.settings.forbidding = true;
    await until("it stops", async () => (await bench.ask(agent)).code === "LEASE_MISSING");
    expect(bench.events("failsafe.began")).toEqual([]);
  });

  test("stops nobody who has no partner, but whose database was started anew", async () => {
    const cell = nextCell();
    const { bench, agent } = await originWith(server, cell, []);
    bench.control.settings.silent = true;
    await lastsFor(bench, 3);
    expect((await bench.ask(agent)).status).toBe(201);
    await server.restart("fast");
    await until("nobody vouches for it", () => bench.events("failsafe.refused").length > 0);
    expect((await bench.ask(agent)).code).toBe("LEASE_MISSING");
  });
});

describe("a database that is started anew meanwhile", () => {
  test("serves again by the word of a partner; its copy stays fenced", async () => {
    const cell = nextCell();
    const annex = await annexOf(cell, "cell-95");
    const { bench, agent } = await originWith(server, cell, [annex.partner]);
    bench.control.settings.silent = true;
    await lastsFor(bench, 1);
    await server.restart("immediate");
    await until("it serves again", async () => (await bench.ask(agent)).status === 201);
    const copy = await startReplica(server);
    stops.push(() => copy.stop());
    await copy.promote();
    const lines: Parameters<typeof startTestAgent>[0]["lines"] = [];
    const clone = await startTestAgent({
      ...{ server: { ...server, url: copy.url }, store: bench.store, control: bench.control },
      ...{ app: bench.app, lines },
    });
    stops.push(() => clone.close());
    await until("the annex has told it apart", () =>
      lines.some(
        ({ event, reason }) =>
          event === "failsafe.refused" && String(reason).includes("TIME_TRAVEL"),
      ),
    );
    expect((await bench.ask(clone)).code).toBe("LEASE_MISSING");
    expect((await bench.ask(agent)).status).toBe(201);
  });
});
