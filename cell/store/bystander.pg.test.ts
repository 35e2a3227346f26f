/** A role that nobody named at the installation, such as a report's: the guard must not break it. */
import pg from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createCellStore } from "../../tests/cell-store.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import { setStage } from "./facts.ts";

let server: TestPostgres;
beforeAll(async () => {
  server = await startTestPostgres();
});
afterAll(() => server?.stop());

test("reads and writes as before in observe, and in enforce as the application does", async () => {
  const store = await createCellStore(server, "bystander", { mode: "row" });
  await store.grantLease();
  await store.own("default/tenant/acme", "active");
  const { database } = (await store.admin.query("select current_database() as database")).rows[0];
  await store.admin.query(`create role bi login password '${server.password}'`);
  await store.admin.query("grant usage on schema public to bi");
  await store.admin.query("grant select, insert on orders to bi");
  const bi = new pg.Client(server.url(String(database), "bi"));
  await bi.connect();
  try {
    const insert = (tenant: string) =>
      bi.query("insert into orders (tenant_id, item, quantity) values ($1, 'tea', 1)", [tenant]);
    const seen = async () =>
      (await bi.query("select distinct tenant_id from orders order by 1")).rows.map((row) =>
        String(row.tenant_id),
      );
    await setStage(store.agent, { stage: "observe", number: 1 });
    await insert("acme");
    await insert("stranger");
    expect(await seen()).toEqual(["acme", "stranger"]);
    await setStage(store.agent, { stage: "enforce", number: 2 });
    expect(await seen()).toEqual(["acme"]);
    await insert("acme");
    await expect(insert("stranger")).rejects.toMatchObject({ code: "CF001" });
    await expect(bi.query("select * from cellfleet.ownership")).rejects.toMatchObject({
      code: "42501",
    });
  } finally {
    await bi.end();
    await store.close();
  }
});
