/** Without a control plane: what becomes of the buckets of a partner that does not promise any more. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { slotOf } from "../../../contract/placement-key.ts";
import { refusalOf } from "../../../tests/cell-store.ts";
import { startTestPostgres, type TestPostgres } from "../../../tests/postgres.ts";
import { type AgentBench, acmeKey, until } from "../agent.fixture.ts";
import { openAnnex, openOrigin } from "./failsafe.fixture.ts";

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

describe("a partner that is gone", () => {
  test("stops its own buckets when its promise is over, and no others", async () => {
    const cell = nextCell();
    const bucket = slotOf("acme", 256);
    const near = await annexOf(cell, "cell-92", bucket, bucket);
    const far = await annexOf(cell, "cell-93", bucket + 1, 255);
    const { bench, agent } = await originWith(server, cell, [near.partner, far.partner], 2500);
    const other = ["globex", "initech", "umbrella", "hooli"].find((t) => slotOf(t, 256) > bucket);
    await bench.applied(bench.control.own(`default/tenant/${other}`, "active"));
    bench.control.settings.silent = true;
    await lastsFor(bench, 2);
    await near.agent.close();
    // Its promise still lasts: it stops nobody.
    expect((await bench.ask(agent)).status).toBe(201);
    await until("acme stops", async () => (await bench.ask(agent)).code === "LEASE_MISSING");
    expect((await bench.ask(agent, { tenant: String(other) })).status).toBe(201);
    expect(await refusalOf(bench.insertOrder())).toBe("CF004");
    await bench.store.app.query("rollback");
    await lastsFor(bench, 2);
    expect((await bench.ask(agent, { tenant: String(other) })).status).toBe(201);
    expect((await bench.ask(agent)).code).toBe("LEASE_MISSING");
    const heard = bench.control.calls.length;
    bench.control.settings.silent = false;
    // Its lease is not one for all its keys: a restored control plane must not take it for that.
    await until("it calls", () => bench.control.calls.length > heard);
    expect(bench.control.calls[heard]?.leaseInPart).toBe(true);
    await until("acme is served again", async () => (await bench.ask(agent)).status === 201);
    await bench.insertOrder();
  });

  test("because a takeover has begun stops them at once, and is given its promise back", async () => {
    const cell = nextCell();
    const annex = await annexOf(cell, "cell-94");
    const { bench, agent } = await originWith(server, cell, [annex.partner]);
    bench.control.settings.silent = true;
    await lastsFor(bench, 2);
    await annex.order({ failover: "op_1", attempt: 1, open: false });
    await until("it stops", async () => (await bench.ask(agent)).code === "LEASE_MISSING");
    await until("nothing is promised any more", () => annex.remainingMs() === 0);
    // Nothing becomes active there before the order is open.
    const early = annex.bench.store.own(acmeKey, "active", 2);
    expect(await refusalOf(early)).toBe("CF011");
    await annex.order({ failover: "op_1", attempt: 1, open: true });
    expect(await annex.bench.store.own(acmeKey, "active", 2)).toBe("applied");
    expect((await bench.ask(agent)).code).toBe("LEASE_MISSING");
  });
});
