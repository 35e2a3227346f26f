/** A cell with manual leases and no control plane: what it goes on through, and what still stops it. */
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { parseCellId } from "../../../contract/ids.ts";
import { must } from "../../../runtime/assert.ts";
import { openClient, storeRoles } from "../../../tests/cell-store.ts";
import { startTestPostgres, type TestPostgres } from "../../../tests/postgres.ts";
import { startReplica } from "../../store/replica.fixture.ts";
import { type AgentBench, startTestAgent, until } from "../agent.fixture.ts";
import type { FakeControl } from "../fake-control.fixture.ts";
import { openAnnex, openOrigin } from "./failsafe.fixture.ts";

let server: TestPostgres;
const stops: Array<() => Promise<unknown>> = [];
let cells = 0;

beforeAll(async () => {
  server = await startTestPostgres();
});
afterEach(async () => {
  for (const stop of stops.splice(0).toReversed()) await stop();
});
afterAll(() => server.stop());

const nextCell = () => {
  cells += 1;
  return `cell-${cells}`;
};
const keepOpen = <T extends { readonly bench: AgentBench }>(one: T): T => {
  stops.push(() => one.bench.close());
  return one;
};
/** Its addresses answer nobody. */
const gonePartner = {
  ...{ annex: must(parseCellId("sb-gone"), "cell id"), host: must(parseCellId("gone"), "cell id") },
  ...{ endpoint: "http://127.0.0.1:9", token: "t", lo: 0, hi: 255 },
};
const acked = ({ calls }: FakeControl) => calls.findLast(({ primary }) => primary)?.leaseMode;
const tell = async (bench: AgentBench, mode: "manual" | "timed", number: number) => {
  bench.control.settings.leaseMode = { mode, number };
  await until(`${mode} is acknowledged`, () => acked(bench.control)?.number === number);
};
const manualOrigin = async (...partners: Parameters<typeof openOrigin>[2]) => {
  const one = keepOpen(await openOrigin(server, nextCell(), partners));
  await tell(one.bench, "manual", 1);
  return one;
};
/** By a connection of its own: the database may have been started anew. */
const grantOf = async (bench: AgentBench) => {
  const client = await openClient(server.url(bench.store.name, storeRoles.agentRole));
  const { rows } = await client
    .query<{ n: number }>("select grant_seen::float8 as n from cellfleet.facts()")
    .finally(() => client.end());
  return must(rows[0], "facts").n;
};
/** So many leases have followed each other. */
const lastsFor = async (bench: AgentBench, leases: number) => {
  const from = await grantOf(bench);
  await until("it gives itself leases", async () => (await grantOf(bench)) >= from + leases);
};

test("serves without partners and control plane, also when its database is started anew; a promoted copy does not", async () => {
  const { bench, agent } = await manualOrigin(gonePartner);
  bench.control.settings.silent = true;
  await lastsFor(bench, 3);
  expect((await bench.ask(agent)).status).toBe(201);
  await server.restart("immediate");
  await until("it serves again", async () => (await bench.ask(agent)).status === 201);
  await lastsFor(bench, 2);
  const copy = await startReplica(server);
  stops.push(() => copy.stop());
  await copy.promote();
  const lines: Parameters<typeof startTestAgent>[0]["lines"] = [];
  const clone = await startTestAgent({
    ...{ server: { ...server, url: copy.url }, store: bench.store, control: bench.control },
    ...{ app: bench.app, lines },
  });
  stops.push(() => clone.close());
  await until("it knows that it was promoted", () =>
    lines.some(
      ({ event, reason }) => event === "failsafe.refused" && String(reason).includes("promoted"),
    ),
  );
  expect((await bench.ask(clone)).code).toBe("LEASE_MISSING");
  expect((await bench.ask(agent)).status).toBe(201);
});

test("stops when the control plane has refused it, silent afterwards or not", async () => {
  const { bench, agent } = await manualOrigin();
  bench.control.settings.leaseRefused = "the cell's ownership is being revoked";
  await until("it stops", async () => (await bench.ask(agent)).code === "LEASE_MISSING");
  bench.control.settings.silent = true;
  await until("nobody has to be asked", () => bench.control.calls.length > 0);
  expect((await bench.ask(agent)).code).toBe("LEASE_MISSING");
  expect(bench.events("failsafe.began")).toEqual([]);
});

test("stops when a partner was told to take over, and binds no partner by a promise before", async () => {
  const cell = nextCell();
  const annex = keepOpen(await openAnnex(server, cell, "cell-90", { lo: 0, hi: 255 }));
  const { bench, agent } = keepOpen(await openOrigin(server, cell, [annex.partner]));
  await tell(bench, "manual", 1);
  bench.control.settings.silent = true;
  await lastsFor(bench, 2);
  expect(annex.remainingMs()).toBeLessThan(1000);
  await annex.order({ failover: "op_1", attempt: 1, open: false });
  await until("it stops", async () => (await bench.ask(agent)).code === "LEASE_MISSING");
});

test("is timed again only when a lease of the control plane's stands", async () => {
  const { bench, agent } = await manualOrigin(gonePartner);
  bench.control.settings.silent = true;
  await lastsFor(bench, 2);
  const own = await grantOf(bench);
  const { calls } = bench.control;
  const heard = calls.length;
  bench.control.settings.leaseMode = { mode: "timed", number: 2 };
  bench.control.settings.silent = false;
  await until("it is acknowledged", () => acked(bench.control)?.number === 2);
  const first = must(
    calls.slice(heard).find(({ leaseMode }) => leaseMode?.number === 2),
    "the call that acknowledges",
  );
  expect(first.origin?.controlGrant).toBe(first.database.grant);
  expect(first.database.grant).toBeGreaterThan(own);
  bench.control.settings.silent = true;
  await until("nobody promises anything", () => bench.events("failsafe.refused").length > 0);
  await until("it stops", async () => (await bench.ask(agent)).code === "LEASE_MISSING");
});
