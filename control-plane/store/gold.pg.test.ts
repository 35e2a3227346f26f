/** What a cell's agents are told of tier gold: the keys that they serve, when they change, and again. */
import { sql } from "drizzle-orm";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import { type ControlFixture, callAgent, openCell, startControl } from "../control.fixture.ts";
import { readGoldKeys } from "./gold.ts";

let postgres: TestPostgres;
let control: ControlFixture;

beforeAll(async () => {
  postgres = await startTestPostgres();
  control = await startControl(await postgres.createDatabase("gold"));
  await openCell(control.database, "cell-01");
  await openCell(control.database, "cell-02");
});
afterAll(async () => {
  await control?.close();
  await postgres?.stop();
});

const place = (key: string, cell: string, ...tenants: ReadonlyArray<readonly [string, string]>) =>
  control.database.transaction(async (tx) => {
    const [keyspace = "", kind = "", value = ""] = key.split("/");
    await tx.execute(sql`
      insert into cellfleet_control.placement (key, keyspace, kind, value, cell, epoch, state, revision, op)
      values (${key}, ${keyspace}, ${kind}, ${value}, ${cell}, 1, 'active', 1, 'op_1')`);
    for (const [id, tier] of tenants) {
      await tx.execute(sql`
        insert into cellfleet_control.tenant (id, keyspace, tier, size_bytes, size_rps, labels, placement_key)
        values (${id}, ${keyspace}, ${tier}, 0, 0, '{}', ${key})`);
    }
  });

test("the keys of this cell that a gold tenant is served under, each once", async () => {
  await place("default/tenant/acme", "cell-01", ["acme", "gold"]);
  await place("default/tenant/globex", "cell-01", ["globex", "standard"]);
  await place("default/tenant/initech", "cell-02", ["initech", "gold"]);
  await place("users/slot/7", "cell-01", ["u1", "gold"], ["u2", "standard"], ["u3", "gold"]);
  expect(await readGoldKeys(control.database.read, "cell-01")).toEqual([
    "default/tenant/acme",
    "users/slot/7",
  ]);
  const agent = await control.client("agent", "cell-01");
  const told = await callAgent(agent, "cell-01");
  expect(told.gold).toEqual({
    keys: ["default/tenant/acme", "users/slot/7"],
    onPartnerLoss: "refuse",
  });
  // Not with every call, but to each agent; and when it has changed.
  expect((await callAgent(agent, "cell-01")).gold).toBeUndefined();
  expect((await callAgent(agent, "cell-01", { instance: "other" })).gold).toEqual(told.gold);
  await control.database.read.execute(
    sql`update cellfleet_control.tenant set tier = 'standard' where id = 'acme'`,
  );
  let changed = await callAgent(agent, "cell-01");
  while (changed.gold === undefined) changed = await callAgent(agent, "cell-01");
  expect(changed.gold.keys).toEqual(["users/slot/7"]);
});
