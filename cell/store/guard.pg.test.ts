/**
 * The guard as an application meets it: what PostgreSQL itself refuses, in both modes and at all
 * three isolation levels, on one connection that serves many clients in turn as PgBouncer's
 * transaction pooling does.
 */
import type pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import {
  type CellStore,
  createCellStore,
  type IsolationLevel,
  isolationLevels,
  refusalOf,
} from "../../tests/cell-store.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";

let server: TestPostgres;
let store: CellStore;

beforeAll(async () => {
  server = await startTestPostgres();
  store = await createCellStore(server, "guarded");
  await store.grantLease();
});
afterAll(async () => {
  await store.close();
  await server.stop();
});

const insert = (tenant: string | null) => ({
  text: "insert into orders (tenant_id, item, quantity) values ($1, 'tea', 1)",
  values: [tenant],
});

/** One transaction; rolled back when a statement fails, as a pool does. */
async function transaction(
  client: pg.Client,
  isolation: IsolationLevel,
  work: () => Promise<unknown>,
): Promise<void> {
  await client.query(`begin isolation level ${isolation}`);
  try {
    await work();
    await client.query("commit");
  } catch (error) {
    await client.query("rollback");
    throw error;
  }
}

const enter = (client: pg.Client, key: string, epoch: number) =>
  client.query("select cellfleet.enter($1, $2)", [key, epoch]);

async function orderCount(): Promise<number> {
  const { rows } = await store.admin.query("select count(*)::int as n from orders");
  return Number(rows[0].n);
}

const modes = ["row", "strict"] as const;
const matrix = modes.flatMap((mode) => isolationLevels.map((isolation) => ({ mode, isolation })));

describe.each(matrix)("mode $mode, $isolation", ({ mode, isolation }) => {
  let app: pg.Client;

  beforeEach(async () => {
    app = store.app;
    await store.setMode(mode);
    await store.own("default/tenant/acme", "active", 3);
    await store.own("default/tenant/globex", "active", 1);
    await store.own("default/tenant/fenced", "active", 2);
    await store.admin.query("set session_replication_role = replica");
    await store.admin.query("truncate orders");
    await store.admin.query(
      "insert into orders (tenant_id, item, quantity) values ('acme','seed',1), ('fenced','seed',1), ('moved','seed',1)",
    );
    await store.admin.query("set session_replication_role = origin");
    await store.own("default/tenant/fenced", "fenced", 2);
    await store.own("default/tenant/moved", "moved", 2);
  });

  /** In strict mode a proper transaction of acme says so first. */
  const asAcme = (work: () => Promise<unknown>) =>
    transaction(app, isolation, async () => {
      if (mode === "strict") await enter(app, "default/tenant/acme", 3);
      await work();
    });

  test("a proper write is taken", async () => {
    await asAcme(async () => {
      await app.query(insert("acme"));
      await app.query("update orders set quantity = 2 where tenant_id = 'acme'");
      await app.query("delete from orders where tenant_id = 'acme' and item = 'seed'");
    });
    const { rows } = await app.query("select item, quantity from orders");
    expect(rows).toEqual([{ item: "tea", quantity: 2 }]);
  });

  test.each(["fenced", "moved", "stranger"])(
    "a write for the %s tenant is refused",
    async (who) => {
      const before = await orderCount();
      expect(await refusalOf(transaction(app, isolation, () => app.query(insert(who))))).toBe(
        "CF001",
      );
      expect(await refusalOf(asAcme(() => app.query(insert(who))))).toBe("CF001");
      expect(await orderCount()).toBe(before);
    },
  );

  test("rows of a fenced tenant can be neither changed nor deleted", async () => {
    await asAcme(async () => {
      const updated = await app.query("update orders set quantity = 9 where tenant_id <> 'acme'");
      const deleted = await app.query("delete from orders where tenant_id <> 'acme'");
      expect([updated.rowCount, deleted.rowCount]).toEqual([0, 0]);
    });
    expect(await orderCount()).toBe(3);
    // The owner of the table sees the rows; the guard stops it all the same.
    expect(
      await refusalOf(store.owner("update orders set quantity = 9 where tenant_id = 'fenced'")),
    ).toBe("CF001");
    expect(await refusalOf(store.owner("delete from orders where tenant_id = 'fenced'"))).toBe(
      "CF001",
    );
  });

  test("a changed key is refused, to another tenant and to none", async () => {
    expect(await refusalOf(asAcme(() => app.query("update orders set tenant_id = 'globex'")))).toBe(
      "CF002",
    );
    expect(await refusalOf(asAcme(() => app.query("update orders set tenant_id = null")))).toBe(
      "CF002",
    );
    expect(
      await refusalOf(
        store.owner("update orders set tenant_id = 'acme' where tenant_id = 'fenced'"),
      ),
    ).toBe("CF002");
  });

  test("a row without a key is refused", async () => {
    expect(await refusalOf(asAcme(() => app.query(insert(null))))).toBe("CF009");
    expect(await refusalOf(asAcme(() => app.query(insert(""))))).toBe("CF009");
  });

  test("TRUNCATE is refused, to the application and to the owner", async () => {
    expect(await refusalOf(asAcme(() => app.query("truncate orders")))).toBe("CF005");
    expect(await refusalOf(store.owner("truncate orders"))).toBe("CF005");
    expect(await orderCount()).toBe(3);
  });

  test("a write without a lease is refused, and so is a read", async () => {
    await store.agent.query("select cellfleet.expire_lease(1000000)");
    try {
      expect(await refusalOf(asAcme(() => app.query(insert("acme"))))).toBe("CF004");
      expect(await refusalOf(transaction(app, isolation, () => app.query(insert("acme"))))).toBe(
        "CF004",
      );
      expect(await refusalOf(app.query("select * from orders"))).toBe("CF004");
      expect(
        await refusalOf(app.query("select count(*) from orders where tenant_id = 'acme'")),
      ).toBe("CF004");
    } finally {
      await store.grantLease();
    }
    await asAcme(() => app.query(insert("acme")));
  });

  test("what a session can set opens nothing", async () => {
    const settings = [
      "set cellfleet.entered = 'default/tenant/fenced=2'",
      "set cellfleet.tenant = 'fenced'",
      "set search_path = public, pg_temp",
      "set transform_null_equals = on",
      "set standard_conforming_strings = off",
      "set datestyle = 'SQL, DMY'",
      "set timezone = 'Asia/Kathmandu'",
      "set plan_cache_mode = force_generic_plan",
      "set client_min_messages = error",
    ];
    const client = await store.connect();
    for (const setting of settings) await client.query(setting);
    expect(
      await refusalOf(transaction(client, isolation, () => client.query(insert("fenced")))),
    ).toBe("CF001");
    const { rows } = await client.query("select distinct tenant_id from orders");
    expect(rows).toEqual([{ tenant_id: "acme" }]);
    await client.query("set row_security = off");
    expect(await refusalOf(client.query("select * from orders"))).toBe("42501");
    expect(await refusalOf(client.query(insert("fenced")))).toBe("42501");
  });

  test.each([
    "set session_replication_role = replica",
    "alter table orders disable trigger zz_cellfleet_guard",
    "alter table orders disable row level security",
    "drop trigger zz_cellfleet_guard on orders",
    "drop policy cellfleet_visible on orders",
    "set role cellfleet_owner",
    "set session authorization cellfleet_owner",
    "update cellfleet.ownership set state = 'active'",
    "update cellfleet.lease set expires_at = 'infinity'",
    "update cellfleet.keyspace set guard_mode = 'row'",
    "select setval('cellfleet.lease_until', 9000000000000000)",
    "select cellfleet.set_lease(99, 'infinity', pg_postmaster_start_time(), 'me')",
    "select cellfleet.apply_ownership('[]', 1)",
    "select cellfleet.set_keyspaces('[]')",
    "select cellfleet.add_id_range('public.orders_id_seq', 5000000, 6000000)",
    "select cellfleet.unprotect_table('public', 'orders')",
    "create or replace function cellfleet.clock() returns timestamptz language sql as 'select now()'",
    "select cellfleet.check_write('default', 'acme')",
    "select * from cellfleet.stats()",
    "create trigger zzz before insert on orders for each row execute function cellfleet.guard_tenant_id()",
    "select nextval('orders_id_seq')",
  ])("the application may not: %s", async (text) => {
    expect(await refusalOf(app.query(text))).toBe("42501");
  });

  test("operators and functions planted in front of pg_catalog are not used", async () => {
    await store.admin.query(`create schema if not exists planted authorization ${"shop_app"}`);
    const client = await store.connect();
    // Without this the functions' owner would not see the schema, and the test nothing.
    await client.query("grant usage on schema planted to public");
    await client.query(`
      create or replace function planted.yes(text, text) returns boolean language sql immutable as 'select true';
      create or replace function planted.no(text, text) returns boolean language sql immutable as 'select false'`);
    await client.query("drop operator if exists planted.= (text, text)");
    await client.query("drop operator if exists planted.<> (text, text)");
    await client.query(
      "create operator planted.= (leftarg = text, rightarg = text, function = planted.yes)",
    );
    await client.query(
      "create operator planted.<> (leftarg = text, rightarg = text, function = planted.no)",
    );
    await client.query("set search_path = planted, public, pg_catalog");
    expect(
      await refusalOf(transaction(client, isolation, () => client.query(insert("fenced")))),
    ).toBe("CF001");
    const { rows } = await client.query("select tenant_id from orders");
    expect(rows).toEqual([{ tenant_id: "acme" }]);
  });
});

describe.each(isolationLevels)("strict mode, %s", (isolation) => {
  beforeAll(async () => {
    await store.setMode("strict");
    await store.own("default/tenant/acme", "active", 3);
    await store.own("default/tenant/globex", "active", 1);
  });

  test("without enter() a write is refused", async () => {
    const { app } = store;
    expect(await refusalOf(app.query(insert("acme")))).toBe("CF003");
    expect(await refusalOf(transaction(app, isolation, () => app.query(insert("acme"))))).toBe(
      "CF003",
    );
  });

  test("an old epoch is refused at enter(), and by the guard when it is forged", async () => {
    const { app } = store;
    expect(
      await refusalOf(transaction(app, isolation, () => enter(app, "default/tenant/acme", 2))),
    ).toBe("CF006");
    const forged = transaction(app, isolation, async () => {
      const stamp = await app.query(
        "select extract(epoch from transaction_timestamp())::text as s",
      );
      const text = `${stamp.rows[0].s}  default/tenant/acme=2 `;
      await app.query("select set_config('cellfleet.entered', $1, true)", [text]);
      await app.query(insert("acme"));
    });
    expect(await refusalOf(forged)).toBe("CF006");
  });

  test("another tenant's row is refused; several tenants can be entered", async () => {
    const { app } = store;
    const foreign = transaction(app, isolation, async () => {
      await enter(app, "default/tenant/acme", 3);
      await app.query(insert("globex"));
    });
    expect(await refusalOf(foreign)).toBe("CF007");
    await transaction(app, isolation, async () => {
      await app.query("select cellfleet.enter_all($1, $2)", [
        ["default/tenant/acme", "default/tenant/globex"],
        [3, 1],
      ]);
      await app.query(insert("globex"));
      await app.query(insert("acme"));
    });
    await transaction(app, isolation, async () => {
      await enter(app, "default/tenant/acme", 3);
      await app.query(insert("acme"));
      await enter(app, "default/tenant/globex", 1);
      await app.query(insert("globex"));
      await app.query(insert("acme"));
    });
  });

  test("nothing of one client's transaction is left for the next on a pooled connection", async () => {
    const { app } = store;
    await transaction(app, isolation, () => enter(app, "default/tenant/acme", 3));
    expect(await refusalOf(transaction(app, isolation, () => app.query(insert("acme"))))).toBe(
      "CF003",
    );
    // A client that copies its own entry into a session variable leaves nothing usable either.
    await transaction(app, isolation, async () => {
      await enter(app, "default/tenant/acme", 3);
      await app.query(
        "select set_config('cellfleet.entered', current_setting('cellfleet.entered'), false)",
      );
    });
    const left = await app.query("select current_setting('cellfleet.entered') as left");
    expect(left.rows[0].left).toContain("default/tenant/acme=3");
    expect(await refusalOf(transaction(app, isolation, () => app.query(insert("acme"))))).toBe(
      "CF003",
    );
    await app.query("reset cellfleet.entered");
  });

  test("an entry of a savepoint goes with it", async () => {
    const { app } = store;
    const work = transaction(app, isolation, async () => {
      await app.query("savepoint s");
      await enter(app, "default/tenant/acme", 3);
      await app.query("rollback to savepoint s");
      await app.query(insert("acme"));
    });
    expect(await refusalOf(work)).toBe("CF003");
  });
});

test("row mode takes autocommit and transactions over several tenants", async () => {
  await store.setMode("row");
  await store.own("default/tenant/acme", "active", 4);
  await store.own("default/tenant/globex", "active", 2);
  await store.app.query(insert("acme"));
  await store.app.query(
    "insert into orders (tenant_id, item, quantity) select t, 'cocoa', 1 from unnest(array['acme', 'globex']) t",
  );
  const { rows } = await store.app.query(
    "select tenant_id, count(*)::int as n from orders where item = 'cocoa' group by 1 order by 1",
  );
  expect(rows).toEqual([
    { tenant_id: "acme", n: 1 },
    { tenant_id: "globex", n: 1 },
  ]);
});
