/**
 * The outbox worker of the sample application, as a real process, when things die in the middle: at
 * least once under a stable id, effect once, and nobody stopped by somebody else's poison.
 */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import {
  countsOf,
  createSampleDatabase,
  idOf,
  itemsOf,
  type Receiver,
  type SampleApp,
  type SampleDatabase,
  startReceiver,
  startSampleApp,
  tea,
  until,
} from "./sample.fixture.ts";

let server: TestPostgres;
let database: SampleDatabase;
let databases = 0;
const apps: SampleApp[] = [];
const receivers: Receiver[] = [];

async function startApp(env: Readonly<Record<string, string>> = {}): Promise<SampleApp> {
  const app = await startSampleApp(database, env);
  apps.push(app);
  return app;
}
async function startTarget(): Promise<Receiver> {
  const receiver = await startReceiver();
  receivers.push(receiver);
  return receiver;
}
async function newDatabase(): Promise<void> {
  databases += 1;
  database = await createSampleDatabase(server, `sample-${databases}`);
  await database.grantLease();
  for (const tenant of ["acme", "globex"]) await database.own(tenant, "active");
}
async function endAll(): Promise<void> {
  for (const app of apps.splice(0)) await app.end("SIGKILL");
  for (const receiver of receivers.splice(0)) await receiver.close();
}

beforeAll(async () => {
  server = await startTestPostgres();
});
afterAll(async () => {
  await endAll();
  await server.stop();
});

describe("the outbox", () => {
  beforeEach(newDatabase);
  afterEach(async () => {
    await endAll();
    await database.close();
  });

  test("sends again, under the same id, what a dead worker had claimed", async () => {
    const target = await startTarget();
    target.answers.set("tea", "hold");
    const first = await startApp({ OUTBOX_URL: target.url });
    const made = await first.ask("acme", "/orders", { body: tea });
    await until("it is being sent", () => target.ids.length === 1);
    await first.end("SIGKILL");
    const { rows } = await database.admin.query("select state, attempts from outbox");
    // The claim was committed before anything was sent.
    expect(rows).toEqual([{ state: "claimed", attempts: 1 }]);
    target.answers.clear();
    const second = await startApp({ OUTBOX_URL: target.url });
    expect((await countsOf(second, "acme"))["claimed"]).toBe(1);
    await database.pastGuard("update outbox set next_at = now()"); // The claim runs out.
    await until("it is done", async () => (await countsOf(second, "acme"))["done"] === 1);
    expect(target.ids.length).toBe(2);
    expect(new Set(target.ids).size).toBe(1);
    expect((await second.ask("acme", `/orders/${idOf(made)}`)).json["status"]).toBe("confirmed");
  });

  test("gives a poisoned message up, says why, and the others go on", async () => {
    const target = await startTarget();
    target.answers.set("poison", 500);
    const app = await startApp({ OUTBOX_URL: target.url, OUTBOX_ATTEMPTS: "3" });
    await app.ask("acme", "/orders", { body: { item: "poison", quantity: 1 } });
    await app.ask("acme", "/orders", { body: tea });
    await app.ask("globex", "/orders", { body: tea });
    await until("the others are done", async () => {
      const [acme, globex] = [await countsOf(app, "acme"), await countsOf(app, "globex")];
      return acme["done"] === 1 && globex["done"] === 1;
    });
    await until("it is dead", async () => (await countsOf(app, "acme"))["dead"] === 1);
    const outbox = await app.ask("acme", "/outbox");
    expect(itemsOf(outbox)).toMatchObject([
      { state: "dead", attempts: 3, last_error: "the receiver answered 500" },
    ]);
    expect(target.items.filter((item) => item === "poison").length).toBe(3);
    expect(itemsOf(await app.ask("globex", "/outbox"))).toEqual([]);
  });

  test("gives up a message whose order does not exist, beside others of the same claim", async () => {
    await database.pastGuard(
      `insert into outbox (id, tenant_id, order_id, kind, payload) values (1, 'acme', 77, 'order.created', '{}')`,
    );
    const app = await startApp({ OUTBOX_ATTEMPTS: "2" });
    await app.ask("acme", "/orders", { body: tea });
    await until("it is dead", async () => (await countsOf(app, "acme"))["dead"] === 1);
    expect(await countsOf(app, "acme")).toMatchObject({ done: 1, pending: 0, claimed: 0 });
    expect(itemsOf(await app.ask("acme", "/outbox"))).toMatchObject([
      { id: 1, attempts: 2, last_error: "order 77 does not exist" },
    ]);
    expect((await app.ask(undefined, "/metrics")).text).toContain(
      'orders_app_outbox_total{result="dead"} 1',
    );
  });

  test("sends nothing for a tenant whose key has left, and goes on when it is back", async () => {
    const target = await startTarget();
    target.answers.set("tea", 503);
    const app = await startApp({ OUTBOX_URL: target.url });
    await app.ask("acme", "/orders", { body: tea });
    await until("it was tried", () => target.ids.length > 0);
    await database.own("acme", "fenced");
    await database.pastGuard("update outbox set next_at = now()");
    const tried = target.ids.length;
    await app.ask("globex", "/orders", { body: { item: "after", quantity: 1 } });
    await until("the worker has come by", () => target.items.includes("after"));
    expect(target.items.filter((item) => item === "tea").length).toBeLessThanOrEqual(tried);
    target.answers.clear();
    await database.own("acme", "active", 2);
    await until("it is sent by the owner of epoch 2", async () => {
      const { rows } = await database.admin.query(
        "select from outbox where tenant_id = 'acme' and state = 'done'",
      );
      return rows.length === 1;
    });
  });

  test("is settled once by two workers side by side", async () => {
    const target = await startTarget();
    const both = [
      await startApp({ OUTBOX_URL: target.url }),
      await startApp({ OUTBOX_URL: target.url }),
    ];
    const asks = Array.from({ length: 40 }, (_, n) =>
      both[n % 2]?.ask("acme", "/orders", { body: { item: `n${n}`, quantity: 1 } }),
    );
    await Promise.all(asks);
    await until("all are done", async () => {
      const { rows } = await database.admin.query(
        "select count(*) as n from outbox where state = 'done'",
      );
      return rows[0]?.n === "40";
    });
    expect(new Set(target.ids).size).toBe(40);
    expect(target.ids.length).toBe(40);
  });
});
