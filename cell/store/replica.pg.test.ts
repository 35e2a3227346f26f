/**
 * On a streaming replica the lease cannot be read: what the application sees there rests on the
 * ownership that was replicated, and a promoted replica holds no lease.
 */
import type pg from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import {
  type CellStore,
  createCellStore,
  enterStage,
  openClient,
  refusalOf,
  storeRoles,
} from "../../tests/cell-store.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import { readFacts } from "./facts.ts";
import { startReplica, type TestReplica } from "./replica.fixture.ts";

let server: TestPostgres;
let store: CellStore;
let replica: TestReplica;
let app: pg.Client;
let agent: pg.Client;

beforeAll(async () => {
  server = await startTestPostgres();
  store = await createCellStore(server, "main");
  await store.grantLease();
  for (const tenant of ["acme", "globex"]) {
    await store.own(`default/tenant/${tenant}`, "active");
    await store.app.query("insert into orders (tenant_id, item, quantity) values ($1, 'tea', 1)", [
      tenant,
    ]);
  }
  replica = await startReplica(server);
  app = await openClient(replica.url("main", storeRoles.appRole));
  agent = await openClient(replica.url("main", storeRoles.agentRole));
});
afterAll(async () => {
  await Promise.all([app.end(), agent.end()]);
  await replica.stop();
  await store.close();
  await server.stop();
});

const tenantsSeen = async (): Promise<string[]> => {
  await replica.caughtUp();
  const { rows } = await app.query("select tenant_id from orders order by 1");
  return rows.map((row) => String(row.tenant_id));
};

test("rows of active keys are seen, others are not, with or without a lease of the primary", async () => {
  expect(await tenantsSeen()).toEqual(["acme", "globex"]);
  await store.own("default/tenant/globex", "fenced");
  expect(await tenantsSeen()).toEqual(["acme"]);
  await store.agent.query("select cellfleet.expire_lease(1000000)");
  expect(await tenantsSeen()).toEqual(["acme"]);
  await store.grantLease();
});

test("enter() says there what it says on the primary", async () => {
  await replica.caughtUp();
  await app.query("select cellfleet.enter('default/tenant/acme', 1)");
  await app.query("select cellfleet.enter_all(array['default/tenant/acme'], array[1])");
  expect(await refusalOf(app.query("select cellfleet.enter('default/tenant/globex', 1)"))).toBe(
    "CF001",
  );
});

test("in observe everything is seen, and nothing is counted", async () => {
  await enterStage(store.agent, "observe");
  const before = (await readFacts(store.agent)).wouldRefuse;
  expect(await tenantsSeen()).toEqual(["acme", "globex"]);
  await app.query("select cellfleet.enter('default/tenant/nobody', 1)");
  expect((await readFacts(store.agent)).wouldRefuse).toEqual(before);
  await enterStage(store.agent, "enforce");
  expect(await tenantsSeen()).toEqual(["acme"]);
});

test("its facts say what it is; promoted, it has no lease and refuses", async () => {
  await replica.caughtUp();
  const primary = await readFacts(store.agent);
  const facts = await readFacts(agent);
  expect(facts).toMatchObject({
    inRecovery: true,
    systemIdentifier: primary.systemIdentifier,
    timeline: primary.timeline,
    stage: "enforce",
    lease: { live: false, remainingMs: 0, grant: 0 },
    epochMax: primary.epochMax,
  });
  await replica.promote();
  const later = await readFacts(agent);
  expect([later.inRecovery, later.lease.live]).toEqual([false, false]);
  expect(later.timeline).toBe(primary.timeline + 1);
  expect(await refusalOf(app.query("select * from orders"))).toBe("CF004");
  expect(
    await refusalOf(
      app.query("insert into orders (tenant_id, item, quantity) values ('acme', 'tea', 1)"),
    ),
  ).toBe("CF004");
});
