/**
 * What no stage overlooks: a write of a key that was ended here (or is not begun) on purpose; and that a
 * transaction calls itself one that only reads, while it writes.
 */
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { CellStage } from "../../contract/routing-table.ts";
import {
  type CellStore,
  createCellStore,
  isolationLevels,
  refusalOf,
} from "../../tests/cell-store.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import { readFacts, setStage } from "./facts.ts";

let server: TestPostgres;
let store: CellStore;
beforeAll(async () => {
  server = await startTestPostgres();
  store = await createCellStore(server, "held");
  await store.grantLease();
  await store.own("default/tenant/acme", "active", 3);
});
afterAll(async () => {
  await store.close();
  await server.stop();
});

const enter = async (stage: CellStage, lockTimeoutMs = 1000) => {
  const { stageNumber } = await readFacts(store.agent);
  return setStage(store.agent, { stage, number: stageNumber + 1 }, lockTimeoutMs);
};
const insertFor = (tenant: string) => ({
  text: "insert into orders (tenant_id, item, quantity) values ($1, 'tea', 1)",
  values: [tenant],
});
/** Says of its own transaction that it only reads, when the guard is about to look. */
const sly = (tenant: string) => ({
  text: `insert into orders (tenant_id, item, quantity)
         values ($1, case when set_config('transaction_read_only', 'on', true) is null then '' else 'x' end, 1)`,
  values: [tenant],
});
const rowsOf = async (tenant: string) => {
  const text = "select count(*)::int as n from orders where tenant_id = $1";
  return (await store.admin.query<{ n: number }>(text, [tenant])).rows[0]?.n;
};
async function ended(client: pg.Client, work: Promise<unknown>): Promise<string> {
  try {
    await work;
    await client.query("commit");
    return "passed";
  } catch (error) {
    await client.query("rollback");
    return error instanceof Error && "code" in error ? String(error.code) : String(error);
  }
}

describe.each(isolationLevels)("%s", (isolation) => {
  const named = (what: string) => `${what}-${isolation.replace(" ", "-")}`;

  test("a transaction begun in observe that calls itself read-only writes nothing in enforce", async () => {
    await enter("observe");
    const app = await store.connect();
    await app.query(`begin isolation level ${isolation}`);
    await app.query("select 1 from orders limit 1");
    await enter("enforce");
    expect(["CF001", "40001", "25006"]).toContain(await ended(app, app.query(sly(named("late")))));
    expect(await rowsOf(named("late"))).toBe(0);
  });

  test("one that wrote so in observe keeps enforce waiting, or did not write", async () => {
    await enter("observe");
    const app = await store.connect();
    await app.query(`begin isolation level ${isolation}`);
    const written = await app.query(sly(named("early"))).then(
      () => true,
      () => false,
    );
    if (written) expect(await refusalOf(enter("enforce", 50))).toBe("55P03");
    await app.query(written ? "commit" : "rollback");
    await enter("enforce");
    expect(await rowsOf(named("early"))).toBe(written ? 1 : 0);
  });

  test.each(["dropped", "fenced", "moved", "importing"] as const)(
    "a write of a key that is %s here is refused in every stage",
    async (state) => {
      const tenant = named(state);
      const key = `default/tenant/${tenant}`;
      await enter("observe");
      await store.own(key, "active");
      await store.app.query(insertFor(tenant));
      // Taken before: its snapshot knows nothing of what follows.
      const older = await store.connect();
      await older.query(`begin isolation level ${isolation}`);
      await older.query("select 1 from orders limit 1");
      await store.own(key, state, 2);
      expect(["CF001", "40001"]).toContain(await ended(older, older.query(insertFor(tenant))));
      for (const stage of ["pass-through", "observe", "enforce"] as const) {
        await enter(stage);
        for (const text of [
          insertFor(tenant),
          { text: "select cellfleet.enter($1, 1)", values: [key] },
        ]) {
          await store.app.query(`begin isolation level ${isolation}`);
          expect([stage, await ended(store.app, store.app.query(text))]).toEqual([stage, "CF001"]);
        }
      }
      await enter("observe");
      // What stands is still shown; what nobody knows still passes.
      const { rowCount } = await store.app.query("select from orders where tenant_id = $1", [
        tenant,
      ]);
      expect([rowCount, await rowsOf(tenant)]).toEqual([1, 1]);
      await store.app.query(insertFor(named(`unknown-${state}`)));
    },
  );
});
