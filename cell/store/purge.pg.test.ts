/**
 * Purging: only a dropped key's rows go, all of them, whatever refers to whatever, and nobody but the
 * agent can open this door in the guard.
 */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  type CellStore,
  createCellStore,
  enterStage,
  refusalOf,
  storeRoles,
} from "../../tests/cell-store.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import { countRowsLeft, purgeRows } from "./purge.ts";

let server: TestPostgres;
beforeAll(async () => {
  server = await startTestPostgres();
});
afterAll(() => server.stop());

const sum = (rows: Readonly<Record<string, number>>): number =>
  Object.values(rows).reduce((total, count) => total + count, 0);

async function makeTable(store: CellStore, table: string, columns: string, key = "tenant_id") {
  await store.owner(`create table ${table} (${columns})`);
  await store.owner(
    `select cellfleet.protect_table('public', '${table}', '${key}', 'default');
     grant select, insert, update, delete on ${table} to ${storeRoles.appRole}`,
  );
}

/** Rows of two tenants in tables that refer to each other, one of them in a circle. */
async function createShop(name: string): Promise<CellStore> {
  const store = await createCellStore(server, name);
  await store.grantLease();
  // Named so that neither their order of creation nor of the alphabet is a proper one.
  await makeTable(store, "a_parent", "id int primary key, tenant_id text not null, best int");
  await makeTable(
    store,
    "z_child",
    "id int primary key, tenant_id text not null, parent int not null references a_parent, boss int",
  );
  await makeTable(
    store,
    "lines",
    "tenant_id text not null, child int references z_child on delete restrict",
  );
  await makeTable(store, "numbered", "tenant_id bigint not null, n int");
  await makeTable(store, "audit", "tenant_id text not null, what text");
  await store.owner(`create function note() returns trigger language plpgsql as
    'begin insert into audit values (old.tenant_id, ''deleted''); return null; end'`);
  await store.owner(
    "create trigger audit after delete on lines for each row execute function note()",
  );
  for (const tenant of ["acme", "globex"]) {
    await store.own(`default/tenant/${tenant}`, "active");
    const at = tenant === "acme" ? 0 : 1000;
    const values = [tenant, at];
    await store.app.query(
      "insert into a_parent select $2 + i, $1, null from generate_series(1, 30) i",
      values,
    );
    await store.app.query(
      "insert into z_child select $2 + i, $1, $2 + i, $2 + greatest(1, i - 1) from generate_series(1, 30) i",
      values,
    );
    await store.app.query(
      "insert into lines select $1, $2 + i from generate_series(1, 30) i",
      values,
    );
    await store.app.query(
      "insert into orders (tenant_id, item, quantity) select $1, 'tea', 1 from generate_series(1, 25)",
      [tenant],
    );
  }
  return store;
}

async function purgeAll(store: CellStore, key: string, limit: number): Promise<number> {
  let batches = 0;
  while (sum(await countRowsLeft(store.agent, key)) > 0) {
    const removed = sum(await purgeRows(store.agent, key, limit));
    expect(removed).toBeLessThanOrEqual(limit);
    batches += 1;
    expect(batches).toBeLessThan(100);
  }
  return batches;
}

describe("a tenant's rows", () => {
  test("go in batches, children first; another tenant's stay", async () => {
    const store = await createShop("batches");
    const key = "default/tenant/acme";
    expect(await refusalOf(purgeRows(store.agent, key))).toBe("55000");
    await store.own(key, "dropped");
    const before = await countRowsLeft(store.agent, key);
    expect(before).toEqual({
      "public.a_parent": 30,
      "public.audit": 0,
      "public.lines": 30,
      "public.numbered": 0,
      "public.orders": 25,
      "public.z_child": 30,
    });
    expect(await purgeAll(store, key, 20)).toBeGreaterThan(5);
    const left = await countRowsLeft(store.agent, "default/tenant/globex");
    expect(sum(left)).toBe(115);
    expect(sum(await purgeRows(store.agent, key))).toBe(0);
    await store.close();
  });

  test("go in one call where it is large enough, whatever the tables are called", async () => {
    const store = await createShop("once");
    await store.own("default/tenant/acme", "dropped");
    // Children before parents; what their trigger writes about them is not written at all.
    expect(sum(await purgeRows(store.agent, "default/tenant/acme"))).toBe(115);
    expect(sum(await countRowsLeft(store.agent, "default/tenant/acme"))).toBe(0);
    await store.close();
  });

  test("that refer to each other in a circle go too", async () => {
    const store = await createShop("circle");
    await store.app.query("update a_parent set best = id where tenant_id = 'acme'");
    await store.owner("alter table z_child add foreign key (boss) references z_child");
    await store.owner("alter table a_parent add foreign key (best) references z_child");
    await store.own("default/tenant/acme", "dropped");
    await purgeAll(store, "default/tenant/acme", 1000);
    expect(sum(await countRowsLeft(store.agent, "default/tenant/globex"))).toBe(115);
    await store.close();
  });

  test("go without a lease, in stage enforce and observe, and count as no refusal", async () => {
    const store = await createShop("leaseless");
    await store.own("default/tenant/acme", "dropped");
    await store.own("default/tenant/globex", "dropped");
    await store.agent.query("select cellfleet.expire_lease(1000000)");
    await purgeAll(store, "default/tenant/acme", 1000);
    await enterStage(store.agent, "observe");
    await purgeAll(store, "default/tenant/globex", 1000);
    const { rows } = await store.agent.query("select would_refuse from cellfleet.facts()");
    expect(rows).toEqual([{ would_refuse: {} }]);
    await store.close();
  });

  test("stay while rows of a table that nobody guards refer to them", async () => {
    const store = await createShop("referred");
    await store.owner("create table loose (parent int references a_parent)");
    await store.owner("insert into loose values (1)");
    await store.own("default/tenant/acme", "dropped");
    expect(await refusalOf(purgeAll(store, "default/tenant/acme", 1000))).toBe("23503");
    await store.owner("drop table loose");
    await purgeAll(store, "default/tenant/acme", 1000);
    await store.close();
  });
});

test("numbers, uuids and partitions are found by their own type, past the application's policies", async () => {
  const store = await createCellStore(server, "typed");
  await store.grantLease();
  const uuid = "0b5f2a4e-6f7a-4c3e-9d2b-1a2b3c4d5e6f";
  await makeTable(store, "ids", '"Konto Nr" bigint not null', "Konto Nr");
  await makeTable(store, "uuids", "owner uuid not null", "owner");
  await store.owner(`create table parts (t text not null, n int) partition by list (n);
    create table parts_1 partition of parts for values in (1);
    create table parts_2 partition of parts for values in (2)`);
  await store.owner("create policy mine on parts using (t = current_setting('app.tenant', true))");
  await store.owner(`alter table parts enable row level security;
    select cellfleet.protect_table('public', 'parts', 't', 'default');
    grant select, insert on parts to ${storeRoles.appRole}`);
  for (const tenant of ["42", "43", uuid]) {
    await store.own(`default/tenant/${tenant}`, "active");
    await store.app.query("select set_config('app.tenant', $1, false)", [tenant]);
    await store.app.query("insert into parts select $1, 1 + i % 2 from generate_series(1, 10) i", [
      tenant,
    ]);
  }
  await store.app.query("insert into ids values (42), (42), (43)");
  await store.app.query("insert into uuids values ($1)", [uuid]);
  for (const [tenant, count] of [
    ["42", 12],
    [uuid, 11],
  ] as const) {
    await store.own(`default/tenant/${tenant}`, "dropped");
    expect(sum(await countRowsLeft(store.agent, `default/tenant/${tenant}`))).toBe(count);
    await purgeAll(store, `default/tenant/${tenant}`, 7);
  }
  expect(sum(await countRowsLeft(store.agent, "default/tenant/43"))).toBe(11);
  await store.close();
});

test("a slot's rows go, those of a tenant that stands on its own stay", async () => {
  const store = await createCellStore(server, "slots", {
    keyspaces: [{ name: "default", strategy: "slots", slotCount: 2, guardMode: "row" }],
  });
  await store.grantLease();
  for (const key of ["default/slot/0", "default/slot/1"]) await store.own(key, "active");
  const { rows } = await store.admin.query(
    "select 't' || i as tenant, cellfleet.slot('t' || i, 2) as slot from generate_series(1, 40) i",
  );
  const inSlot = rows.filter(({ slot }) => slot === 0).map(({ tenant }) => String(tenant));
  const [special] = inSlot;
  await store.own(`default/tenant/${special}`, "active");
  await store.app.query(
    "insert into orders (tenant_id, item, quantity) select 't' || i, 'tea', 1 from generate_series(1, 40) i",
  );
  await store.own("default/slot/0", "dropped");
  expect(sum(await countRowsLeft(store.agent, "default/slot/0"))).toBe(inSlot.length - 1);
  await purgeAll(store, "default/slot/0", 5);
  const left = await store.app.query("select tenant_id from orders");
  expect(left.rowCount).toBe(40 - inSlot.length + 1);
  expect(left.rows.map((row) => row.tenant_id)).toContain(special);
  // A dropped tenant's rows belong to its slot again, but a purge of the tenant still finds them.
  await store.own(`default/tenant/${special}`, "dropped");
  await purgeAll(store, `default/tenant/${special}`, 5);
  await store.close();
});

test("a deleted tenant above a container is purged while it stays fenced: no row comes back", async () => {
  const store = await createCellStore(server, "above", {
    keyspaces: [{ name: "default", strategy: "slots", slotCount: 1, guardMode: "row" }],
  });
  await store.grantLease();
  await store.own("default/slot/0", "active");
  const key = "default/tenant/acme";
  await store.own(key, "active");
  await store.app.query("insert into orders (tenant_id, item, quantity) values ('acme', 'tea', 1)");
  expect(await refusalOf(purgeRows(store.agent, key, 5))).toBe("55000");
  await store.own(key, "fenced");
  await purgeAll(store, key, 5);
  const late = "insert into orders (tenant_id, item, quantity) values ('acme', 'late', 1)";
  expect(await refusalOf(store.app.query(late))).toBe("CF001");
  await store.close();
});

test("a suspended tenant is fenced, and nothing of it is purged", async () => {
  const store = await createShop("suspended");
  const key = "default/tenant/acme";
  await store.own(key, "fenced");
  expect(await refusalOf(purgeRows(store.agent, key, 5))).toBe("55000");
  await store.close();
});

describe("the door in the guard", () => {
  test("is shut to the application, and to the agent outside of purge_rows", async () => {
    const store = await createShop("shut");
    await store.own("default/tenant/acme", "dropped");
    for (const text of [
      "select * from cellfleet.purge_rows('default/tenant/acme')",
      "select * from cellfleet.rows_left('default/tenant/acme')",
      "insert into cellfleet.purging values ('default/tenant/acme', pg_current_xact_id())",
    ]) {
      expect(await refusalOf(store.app.query(text)), text).toBe("42501");
    }
    await store.agent.query("begin");
    await purgeRows(store.agent, "default/tenant/acme", 5);
    expect(await refusalOf(store.agent.query("delete from orders"))).toBe("42501");
    await store.agent.query("rollback");
    // The transaction that purged is over; another one finds the guard closed.
    await purgeRows(store.agent, "default/tenant/acme", 5);
    expect(await refusalOf(store.owner("delete from lines where tenant_id = 'acme'"))).toBe(
      "CF001",
    );
    await store.close();
  });

  test("stays shut for rows of others that a trigger of the application's touches", async () => {
    const store = await createShop("others");
    await store.own("default/tenant/globex", "fenced");
    await store.owner(`create function reach() returns trigger language plpgsql as
      'begin insert into audit values (''globex'', ''reached''); return null; end'`);
    await store.owner(
      "create trigger reach after delete on lines for each row execute function reach()",
    );
    await store.own("default/tenant/acme", "dropped");
    expect(await refusalOf(purgeRows(store.agent, "default/tenant/acme"))).toBe("CF001");
    await store.close();
  });

  test("a key that is to be taken back waits for the purge", async () => {
    const store = await createShop("back");
    await store.own("default/tenant/acme", "dropped");
    const other = await store.connect(storeRoles.agentRole);
    await other.query("begin");
    await purgeRows(other, "default/tenant/acme", 5);
    const change = JSON.stringify([
      { key: "default/tenant/acme", state: "importing", epoch: 9, op: "op_z", attempt: 1 },
    ]);
    expect(
      await refusalOf(
        store.agent.query("select cellfleet.apply_ownership($1, null, 50)", [change]),
      ),
    ).toBe("55P03");
    await other.query("commit");
    await store.agent.query("select cellfleet.apply_ownership($1, null, 50)", [change]);
    await store.close();
  });
});
