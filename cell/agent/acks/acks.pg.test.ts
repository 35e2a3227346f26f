/** What an agent adds to answers to writes, and what it waits for, over a real database and a real stream. */
import pg from "pg";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { confirmAgain, confirmPath, headers } from "../../../contract/headers.ts";
import { must } from "../../../runtime/assert.ts";
import { startTestPostgres, type TestPostgres } from "../../../tests/postgres.ts";
import { type AgentBench, acmeKey, openBench, until } from "../agent.fixture.ts";
import type { Agent } from "../agent.ts";
import { parseLsn } from "../position.ts";

const annex = "sb-a-b";
const slot = "sb_sb_a_b_default";
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

const post = (agent: Agent) => bench.ask(agent, { method: "POST", body: "hello" });
const again = (agent: Agent, more: Readonly<Record<string, string>> = {}) =>
  bench.ask(agent, { path: confirmPath, extra: { [headers.confirm]: confirmAgain, ...more } });

async function asAdmin<T>(database: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: server.url(database) });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}
const run = (database: string, ...statements: readonly string[]) =>
  asAdmin(database, async (client) => {
    for (const statement of statements) await client.query(statement);
  });

/** The cell has one partner, which keeps all buckets. */
const givePartner = () => {
  const partner = { annex, host: "b", endpoint: "http://127.0.0.1:1", lo: 0, hi: 255, token: "t" };
  const list = JSON.stringify([partner]);
  return run(bench.store.name, `select cellfleet.take_partners(1, '${list}', 20000)`);
};

const giveGold = (onPartnerLoss: "refuse" | "degrade") =>
  run(
    bench.store.name,
    `select cellfleet.take_gold('${JSON.stringify([acmeKey])}', '${onPartnerLoss}')`,
  );

test("an answer to a write says where the log stands then, if the cell has partners; a read says nothing", async () => {
  const agent = await bench.serving();
  expect((await post(agent)).header(headers.lsn)).toBeUndefined();
  await givePartner();
  await until(
    "positions are told",
    async () => (await post(agent)).header(headers.lsn) !== undefined,
  );
  const letGo = bench.app.hold();
  const held = post(agent);
  await until("the application has it", () => bench.app.seen.length > 0);
  await bench.insertOrder();
  const committed = await asAdmin(bench.store.name, async (client) => {
    const { rows } = await client.query("select pg_current_wal_insert_lsn()::text as lsn");
    return must(parseLsn(rows[0].lsn), "position");
  });
  letGo();
  const told = must(parseLsn((await held).header(headers.lsn) ?? ""), "position in the answer");
  expect(told >= committed).toBe(true);
  expect((await bench.ask(agent)).header(headers.lsn)).toBeUndefined();
});

test("asked once more, the gate says what holds now, and admits nothing", async () => {
  const agent = await bench.serving();
  const answer = await again(agent);
  expect(answer).toMatchObject({ status: 204, body: "" });
  expect(answer.header(headers.confirm)).toMatch(
    new RegExp(`^cell=${bench.store.name};epoch=1;lease=\\d+$`),
  );
  for (const more of [{ [headers.epoch]: "2" }, { [headers.cell]: "cell-99" }]) {
    const refused = await again(agent, more);
    expect(refused).toMatchObject({ status: 503, code: "OUTCOME_UNKNOWN" });
    expect(refused.header(headers.confirm)).toBeUndefined();
  }
  expect(bench.app.seen).toEqual([]);
  // Without the mark that no client can send through a router, the path is the application's own.
  expect((await bench.ask(agent, { path: confirmPath })).status).toBe(201);
  await bench.applied(bench.control.own(acmeKey, "fenced"));
  await until("the fence is seen", async () => (await again(agent)).status === 503);
});

test("gold: no answer while the partner stands still, and one as soon as it has the write", async () => {
  const agent = await bench.serving({ goldMs: 400 });
  const partner = await openPartner();
  try {
    await givePartner();
    await giveGold("refuse");
    await until("a partner's word is waited for", async () => {
      await post(agent);
      return (await goldOf(agent, "kept")) > 0;
    });
    // Its apply worker meets this lock, is alive, and gets no further.
    const release = await partner.freeze();
    await bench.insertOrder();
    expect(await post(agent)).toMatchObject({ status: 503, code: "OUTCOME_UNKNOWN" });
    const waiting = post(agent);
    await until("it waits", () => bench.app.seen.length > 2);
    await release();
    expect((await waiting).status).toBe(201);
  } finally {
    await partner.close();
  }
});

test("gold without its partner: refused, or passed where the operator said so, and told", async () => {
  const agent = await bench.serving({ goldMs: 400 });
  await givePartner();
  await giveGold("refuse");
  await until("it is refused", async () => (await post(agent)).code === "OUTCOME_UNKNOWN");
  expect(bench.events("gold.partner-lost")).toMatchObject([{ annex, policy: "refuse" }]);
  // Reads wait for nobody.
  expect((await bench.ask(agent)).status).toBe(201);
  await giveGold("degrade");
  await until("it passes", async () => (await post(agent)).status === 201);
  expect(await goldOf(agent, "degraded")).toBeGreaterThan(0);
});

async function goldOf(agent: Agent, result: string): Promise<number> {
  const text = await (await fetch(`${agent.admin}/metrics`)).text();
  const found = new RegExp(`^cellfleet_agent_gold_total\\{result="${result}"\\} (\\d+)`, "m");
  return Number(found.exec(text)?.[1] ?? 0);
}

/** A database that follows the cell's orders by a real subscription, as an annex does. */
async function openPartner() {
  const { name } = bench.store;
  const there = `${name}-annex`;
  await server.createDatabase(there);
  await run(name, `create publication ${slot} for table orders`);
  await run(name, `select pg_create_logical_replication_slot('${slot}', 'pgoutput')`);
  const columns = await asAdmin(name, async (client) => {
    const { rows } = await client.query(
      `select string_agg(quote_ident(attname) || ' ' || format_type(atttypid, atttypmod), ', ') as list
         from pg_attribute where attrelid = 'orders'::regclass and attnum > 0 and not attisdropped`,
    );
    return String(rows[0].list);
  });
  await run(
    there,
    `create table orders (${columns})`,
    `create subscription ${slot} connection '${server.url(name)}' publication ${slot}
       with (create_slot = false, slot_name = '${slot}', copy_data = false, origin = any, synchronous_commit = 'on')`,
  );
  const holder = new pg.Client({ connectionString: server.url(there) });
  await holder.connect();
  return {
    freeze: async () => {
      await holder.query("begin");
      await holder.query("lock table orders in access exclusive mode");
      return () => holder.query("commit");
    },
    close: async () => {
      await holder.end();
      await run(
        there,
        `alter subscription ${slot} disable`,
        `alter subscription ${slot} set (slot_name = none)`,
        `drop subscription ${slot}`,
      );
      await asAdmin(name, async (client) => {
        await until("the slot is free", async () => {
          const { rows } = await client.query(
            "select 1 from pg_replication_slots where slot_name = $1 and active",
            [slot],
          );
          return rows.length === 0;
        });
        await client.query("select pg_drop_replication_slot($1)", [slot]);
      });
    },
  };
}
