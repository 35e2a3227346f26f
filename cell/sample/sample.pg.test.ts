/**
 * The sample application as a real process over a real, guarded PostgreSQL: what a customer sees, and
 * what the outbox does when things die in the middle.
 */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import {
  codeOf,
  countsOf,
  createSampleDatabase,
  idOf,
  itemsOf,
  type SampleApp,
  type SampleDatabase,
  startSampleApp,
  tea,
  until,
} from "./sample.fixture.ts";

let server: TestPostgres;
let database: SampleDatabase;
let databases = 0;
const apps: SampleApp[] = [];

async function startApp(env: Readonly<Record<string, string>> = {}): Promise<SampleApp> {
  const app = await startSampleApp(database, env);
  apps.push(app);
  return app;
}
async function newDatabase(): Promise<void> {
  databases += 1;
  database = await createSampleDatabase(server, `sample-${databases}`);
  await database.grantLease();
  for (const tenant of ["acme", "globex"]) await database.own(tenant, "active");
}
async function endAll(): Promise<void> {
  for (const app of apps.splice(0)) await app.end("SIGKILL");
}

beforeAll(async () => {
  server = await startTestPostgres();
});
afterAll(async () => {
  await endAll();
  await server.stop();
});

describe("orders", () => {
  let app: SampleApp;
  beforeAll(async () => {
    await newDatabase();
    app = await startApp();
  });
  afterAll(async () => {
    await endAll();
    await database.close();
  });

  test("are made, read one by one, and confirmed by the outbox worker", async () => {
    const made = await app.ask("acme", "/orders", { body: tea });
    expect(made.status).toBe(201);
    expect(made.json).toMatchObject({ ...tea, status: "pending" });
    // From the leased range, not from 1.
    expect(idOf(made)).toBeGreaterThan(1000);
    await until("it is confirmed", async () => {
      const read = await app.ask("acme", `/orders/${idOf(made)}`);
      return read.json["status"] === "confirmed";
    });
    expect((await countsOf(app, "acme"))["done"]).toBeGreaterThan(0);
  });

  test("of one tenant are never seen by another", async () => {
    const made = await app.ask("acme", "/orders", { body: { item: "secret", quantity: 1 } });
    expect((await app.ask("globex", `/orders/${idOf(made)}`)).status).toBe(404);
    expect((await app.ask("globex", "/orders")).text).not.toContain("secret");
    expect((await app.ask("globex", "/orders?limit=200")).text).not.toContain("secret");
  });

  test("are listed newest first, page by page, each once", async () => {
    for (let n = 1; n <= 5; n += 1) {
      await app.ask("globex", "/orders", { body: { item: `page ${n}`, quantity: n } });
    }
    const seen: unknown[] = [];
    let path: unknown = "/orders?limit=2";
    while (typeof path === "string") {
      const page = await app.ask("globex", path);
      expect(page.status).toBe(200);
      expect(itemsOf(page).length).toBeLessThanOrEqual(2);
      seen.push(...itemsOf(page).map((order) => order["item"]));
      path = page.json["next"];
      if (path !== null) expect(path).toMatch(/^\/orders\?cursor=/);
    }
    expect(seen).toEqual(["page 5", "page 4", "page 3", "page 2", "page 1"]);
  });

  test("take text as it is, also with quotes, HTML and other scripts", async () => {
    const item = `'; drop table orders; -- <script>alert(1)</script> žluťoučký 茶 🍵`;
    const made = await app.ask("acme", "/orders", { body: { item, quantity: 1_000_000 } });
    expect((await app.ask("acme", `/orders/${idOf(made)}`)).json["item"]).toBe(item);
  });

  test.each<[string, string]>([
    ["not JSON", "{"],
    ["an array", "[]"],
    ["null", "null"],
    ["no item", `{"quantity":1}`],
    ["no quantity", `{"item":"tea"}`],
    ["an empty item", `{"item":"","quantity":1}`],
    ["an item of 201 characters", JSON.stringify({ item: "x".repeat(201), quantity: 1 })],
    ["a NUL in the item", `{"item":"a\\u0000b","quantity":1}`],
    ["a newline in the item", `{"item":"a\\nb","quantity":1}`],
    ["half a surrogate pair", `{"item":"\\ud800","quantity":1}`],
    ["an item that is a number", `{"item":1,"quantity":1}`],
    ["quantity 0", `{"item":"tea","quantity":0}`],
    ["a quantity above a million", `{"item":"tea","quantity":1000001}`],
    ["half a quantity", `{"item":"tea","quantity":1.5}`],
    ["a quantity in words", `{"item":"tea","quantity":"1"}`],
    ["a huge quantity", `{"item":"tea","quantity":1e400}`],
  ])("are refused for %s", async (_what, rawBody) => {
    const answer = await app.ask("acme", "/orders", { rawBody });
    expect(answer.status).toBe(400);
    expect(codeOf(answer)).toBe("VALIDATION_FAILED");
  });

  test("are refused for a body above 64 KiB", async () => {
    const answer = await app.ask("acme", "/orders", { rawBody: " ".repeat(64 * 1024 + 1) });
    expect(answer.status).toBe(413);
    expect(codeOf(answer)).toBe("BODY_TOO_LARGE");
  });

  test.each(["/orders?limit=0", "/orders?limit=201", "/orders?limit=x", "/orders?cursor=%00"])(
    "cannot be listed with %s",
    async (path) => {
      expect((await app.ask("acme", path)).status).toBe(400);
    },
  );

  test.each(["/orders/0", "/orders/x", "/orders/99999999999999999999", "/nothing"])(
    "are not found at %s",
    async (path) => {
      const answer = await app.ask("acme", path);
      expect(answer.status).toBe(404);
      expect(codeOf(answer)).toBe("NOT_FOUND");
    },
  );

  test("are not served to whoever did not come through the gate", async () => {
    for (const path of ["/orders", "/whoami", "/outbox"]) {
      const answer = await app.ask(undefined, path);
      expect(answer.status).toBe(400);
      expect(codeOf(answer)).toBe("TENANT_MISSING");
    }
  });

  test("know who they belong to, and probes answer", async () => {
    const who = await app.ask("acme", "/whoami");
    expect(who.json).toEqual({ cell: "cell-test", tenant: "acme", epoch: 1 });
    expect((await app.ask(undefined, "/livez")).text).toBe("ok\n");
    expect((await app.ask(undefined, "/readyz")).status).toBe(200);
    const metrics = await app.ask(undefined, "/metrics");
    expect(metrics.text).toContain('orders_app_orders_total{result="created"}');
  });
});

describe("an Idempotency-Key", () => {
  let app: SampleApp;
  beforeAll(async () => {
    await newDatabase();
    app = await startApp();
  });
  afterAll(async () => {
    await endAll();
    await database.close();
  });
  const order = (tenant: string, key: string, body: unknown = tea) =>
    app.ask(tenant, "/orders", { body, headers: { "idempotency-key": key } });

  test("repeats the first answer, byte for byte", async () => {
    const first = await order("acme", "k1");
    const second = await order("acme", "k1");
    expect(first.status).toBe(201);
    expect(first.headers["idempotent-replayed"]).toBeUndefined();
    expect(second.status).toBe(201);
    expect(second.headers["idempotent-replayed"]).toBe("true");
    expect(second.text).toBe(first.text);
  });

  test("used for another order is refused", async () => {
    await order("acme", "k2");
    const other = await order("acme", "k2", { item: "coffee", quantity: 1 });
    expect(other.status).toBe(422);
    expect(codeOf(other)).toBe("IDEMPOTENCY_MISMATCH");
  });

  test("of one tenant means nothing for another", async () => {
    const first = await order("acme", "k3");
    const other = await order("globex", "k3", { item: "coffee", quantity: 1 });
    expect(other.status).toBe(201);
    expect(idOf(other)).not.toBe(idOf(first));
  });

  test.each(["with spaces", "x".repeat(256)])("that is malformed is refused", async (key) => {
    expect((await order("acme", key)).status).toBe(400);
  });

  test("makes one order, however many ask at once", async () => {
    const answers = await Promise.all(
      Array.from({ length: 30 }, () => order("acme", "race", { item: "race", quantity: 3 })),
    );
    expect(new Set(answers.map((answer) => answer.status))).toEqual(new Set([201]));
    expect(new Set(answers.map(idOf)).size).toBe(1);
    const replayed = answers.filter((answer) => answer.headers["idempotent-replayed"] === "true");
    expect(replayed.length).toBe(29);
    const { rows } = await database.admin.query(
      "select (select count(*) from orders where item = 'race') as orders, (select count(*) from outbox where payload->>'item' = 'race') as messages",
    );
    expect(rows).toEqual([{ orders: "1", messages: "1" }]);
  });

  test("whose record is older than a day goes with the next one", async () => {
    await order("acme", "old");
    await database.pastGuard(
      "update idempotency set created_at = now() - interval '2 days' where key = 'old'",
    );
    await order("acme", "new");
    const { rows } = await database.admin.query("select key from idempotency where key = 'old'");
    expect(rows).toEqual([]);
  });
});

describe("a tenant that this cell does not own", () => {
  let app: SampleApp;
  beforeEach(async () => {
    await newDatabase();
    app = await startApp();
  });
  afterEach(async () => {
    await endAll();
    await database.close();
  });

  async function expectRefusal(epoch = 1): Promise<void> {
    for (const asked of [{ epoch }, { epoch, body: tea }]) {
      const answer = await app.ask("acme", "/orders", asked);
      expect(answer.status).toBe(503);
      expect(codeOf(answer)).toBe("KEY_NOT_ACTIVE");
      expect(answer.headers["retry-after"]).toBe("1");
    }
    expect((await app.ask("acme", "/whoami", { epoch })).status).toBe(503);
  }

  test("because it was fenced is refused, reads and writes", async () => {
    await app.ask("acme", "/orders", { body: tea });
    await database.own("acme", "fenced");
    await expectRefusal();
    expect((await app.ask("globex", "/orders", { body: tea })).status).toBe(201);
  });
  test("at that epoch is refused", async () => {
    await expectRefusal(2);
  });
  test("because the lease is over is refused", async () => {
    await database.admin.query("select cellfleet.expire_lease(1000)");
    await expectRefusal();
  });
});

describe("the process", () => {
  beforeEach(newDatabase);
  afterEach(async () => {
    await endAll();
    await database.close().catch(() => {}); // The restart has cut its connections.
  });

  test("outlives its database, and says 503 until it is back", async () => {
    const app = await startApp();
    expect((await app.ask("acme", "/orders", { body: tea })).status).toBe(201);
    await server.halt("immediate");
    const down = await app.ask("acme", "/orders", { body: tea });
    expect(down.status).toBe(503);
    expect(down.headers["retry-after"]).toBe("1");
    expect((await app.ask(undefined, "/readyz")).status).toBe(503);
    expect((await app.ask(undefined, "/livez")).status).toBe(200);
    await server.restart("immediate");
    // Born fenced: there is no lease until it is granted again.
    await until("the database answers", async () => {
      const answer = await app.ask("acme", "/orders");
      return codeOf(answer) === "KEY_NOT_ACTIVE";
    });
    expect(app.alive()).toBe(true);
    // One line for the loss, not one per attempt.
    expect(app.output().split("outbox.waiting").length).toBeLessThanOrEqual(4);
  });

  test("ends in order when it is asked to", async () => {
    const app = await startApp();
    expect(await app.end("SIGTERM")).toBe(0);
  });

  test("refuses to start without its settings", async () => {
    await expect(startApp({ CELL_ID: "" })).rejects.toThrow("CELL_ID must be set");
  });
});
