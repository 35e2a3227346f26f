/**
 * Tables under the guard: what the application sees of them, key columns of other types and names,
 * partitions, policies of the application's own, and taking the guard off again.
 */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type CellStore, createCellStore, refusalOf, storeRoles } from "../../tests/cell-store.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import { protectTable, unprotectTable } from "./protect.ts";

let server: TestPostgres;
let store: CellStore;
beforeAll(async () => {
  server = await startTestPostgres();
  store = await createCellStore(server, "shop");
  await store.grantLease();
  await store.own("default/tenant/acme", "active");
  await store.own("default/tenant/globex", "active");
});
afterAll(async () => {
  await store.close();
  await server.stop();
});

const insertOrder = (tenant: string) => ({
  text: "insert into orders (tenant_id, item, quantity) values ($1, 'tea', 1)",
  values: [tenant],
});
const names = async (client: { query: CellStore["app"]["query"] }, text: string) =>
  (await client.query(text)).rows.map(({ t }) => String(t));
const protect = (table: string, keyColumn: string, keyspace = "default") =>
  store.owner(
    `select cellfleet.protect_table('public', '${table}', '${keyColumn}', '${keyspace}')`,
  );
const createTable = async (table: string, columns: string, rest = "") => {
  await store.owner(`create table ${table} (${columns}) ${rest}`);
  await store.owner(`grant select, insert, update, delete on ${table} to ${storeRoles.appRole}`);
};

describe("visibility", () => {
  test("of two cells that both hold a tenant's rows, exactly one shows them, at every moment", async () => {
    const target = await createCellStore(server, "target");
    await target.grantLease();
    await target.own("default/tenant/acme", "importing", 2);
    await store.app.query(insertOrder("acme"));
    await store.app.query(insertOrder("globex"));
    await target.admin.query("set session_replication_role = replica");
    await target.admin.query(
      "insert into orders (tenant_id, item, quantity) values ('acme', 'tea', 1), ('orphan', 'x', 1)",
    );
    const all = "select distinct tenant_id as t from orders order by 1";
    expect([await names(store.app, all), await names(target.app, all)]).toEqual([
      ["acme", "globex"],
      [],
    ]);
    await store.own("default/tenant/acme", "fenced");
    expect([await names(store.app, all), await names(target.app, all)]).toEqual([["globex"], []]);
    await target.own("default/tenant/acme", "active", 2);
    expect([await names(store.app, all), await names(target.app, all)]).toEqual([
      ["globex"],
      ["acme"],
    ]);
    await target.close();
    await store.own("default/tenant/acme", "active");
  });

  test("a prepared statement notices a change of ownership", async () => {
    const count = { name: "count", text: "select distinct tenant_id as t from orders" };
    await store.app.query("set plan_cache_mode = force_generic_plan");
    expect((await store.app.query(count)).rowCount).toBe(2);
    await store.own("default/tenant/globex", "fenced");
    expect((await store.app.query(count)).rowCount).toBe(1);
    await store.own("default/tenant/globex", "active");
    expect((await store.app.query(count)).rowCount).toBe(2);
    await store.app.query("reset plan_cache_mode");
  });

  test("a query for one tenant goes on using its index", async () => {
    await store.admin.query("set session_replication_role = replica");
    await store.admin.query(
      "insert into orders (id, tenant_id, item, quantity) select 5000 + i, 't' || i % 500, 'x', 1 from generate_series(1, 20000) i",
    );
    await store.admin.query("reset session_replication_role");
    await store.admin.query("analyze orders");
    const { rows } = await store.app.query(
      "explain (format json) select * from orders where tenant_id = 'acme' and id = 7",
    );
    const plan = JSON.stringify(rows[0]);
    expect(plan).toContain("orders_pkey");
    expect(plan).toMatch(/"Index Cond":"\(\(tenant_id = 'acme'::text\) AND \(id = 7\)\)"/);
    const full = JSON.stringify(
      (await store.app.query("explain (format json) select * from orders")).rows,
    );
    expect(full).toContain("hashed SubPlan");
    expect(await names(store.app, "select distinct tenant_id as t from orders order by 1")).toEqual(
      ["acme", "globex"],
    );
  });

  test("a role that nobody named sees what the application sees", async () => {
    await store.admin.query(`create role reporting login password '${server.password}'`);
    await store.owner("grant select on orders to reporting");
    const reporting = await store.connect("reporting");
    expect(await names(reporting, "select distinct tenant_id as t from orders order by 1")).toEqual(
      ["acme", "globex"],
    );
  });

  test("in an unknown keyspace nothing is seen and nothing written", async () => {
    await createTable("elsewhere", "tenant_id text primary key");
    await store.owner("insert into elsewhere values ('acme')");
    await protect("elsewhere", "tenant_id", "unheard-of");
    expect((await store.app.query("select * from elsewhere")).rowCount).toBe(0);
    expect(await refusalOf(store.app.query("insert into elsewhere values ('globex')"))).toBe(
      "CF001",
    );
  });
});

describe("key columns", () => {
  const uuid = "0b7e6a4e-8d3f-4f0c-9a5b-1f2e3d4c5b6a";
  test.each([
    {
      table: "by_uuid",
      type: "uuid",
      column: "account",
      value: uuid,
      other: uuid.replace("0b", "1b"),
    },
    {
      table: "by_bigint",
      type: "bigint",
      column: "Customer No",
      value: "900719925474",
      other: "7",
    },
    { table: "by_integer", type: "integer", column: "org", value: "42", other: "43" },
    { table: "by_varchar", type: "varchar(20)", column: "new", value: "acme-2", other: "acme-3" },
    { table: "by_long", type: "text", column: "k".repeat(63), value: "acme-4", other: "acme-5" },
  ])("$type under the name $column", async ({ table, type, column, value, other }) => {
    await createTable(
      table,
      `"${column}" ${type} not null, n integer, primary key ("${column}", n)`,
    );
    await protect(table, column);
    await store.own(`default/tenant/${value}`, "active");
    const insert = `insert into ${table} values ($1, 1)`;
    await store.app.query(insert, [value]);
    expect(await refusalOf(store.app.query(insert, [other]))).toBe("CF001");
    expect(await refusalOf(store.app.query(`update ${table} set "${column}" = $1`, [other]))).toBe(
      "CF002",
    );
    await store.app.query(`update ${table} set n = 2`);
    expect(await names(store.app, `select "${column}" as t from ${table}`)).toEqual([value]);
    await store.own(`default/tenant/${value}`, "fenced");
    expect(await names(store.app, `select "${column}" as t from ${table}`)).toEqual([]);
  });

  test.each([
    ["a type that has no one text", "tenant_id numeric", "42804"],
    ["a generated column", "n text, tenant_id text generated always as (n) stored", "42P17"],
    ["no such column", "tenant text", "42703"],
  ])("%s is refused", async (name, columns, code) => {
    const table = `bad_${name.replaceAll(" ", "_")}`;
    await createTable(table, columns);
    expect(await refusalOf(protect(table, "tenant_id"))).toBe(code);
  });

  test("a trigger that fires before the guard cannot smuggle a key past it", async () => {
    await createTable("smuggled", "tenant_id text, n integer");
    await protect("smuggled", "tenant_id");
    await store.owner(`create function public.smuggle() returns trigger language plpgsql as
      $$ begin new.tenant_id := 'stranger'; return new; end $$`);
    await store.owner(
      "create trigger a before insert or update on smuggled for each row execute function smuggle()",
    );
    expect(await refusalOf(store.app.query("insert into smuggled values ('acme', 1)"))).toBe(
      "CF001",
    );
  });

  test("upserts and cascades meet the guard too", async () => {
    await createTable(
      "parents",
      "tenant_id text, id integer, n integer default 0, primary key (tenant_id, id)",
    );
    await createTable(
      "children",
      "tenant_id text, id integer, foreign key (tenant_id, id) references parents on delete cascade",
    );
    await protect("parents", "tenant_id");
    await protect("children", "tenant_id");
    const upsert = `insert into parents values ($1, 1) on conflict (tenant_id, id) do update set n = parents.n + 1`;
    for (const tenant of ["acme", "acme", "globex"]) await store.app.query(upsert, [tenant]);
    await store.app.query("insert into children values ('acme', 1), ('globex', 1)");
    await store.own("default/tenant/globex", "fenced");
    expect(await refusalOf(store.app.query(upsert, ["globex"]))).toBe("CF001");
    expect(await refusalOf(store.owner("delete from parents where tenant_id = 'globex'"))).toBe(
      "CF001",
    );
    await store.app.query("delete from parents where tenant_id = 'acme'");
    const { rows } = await store.admin.query("select tenant_id from children");
    expect(rows).toEqual([{ tenant_id: "globex" }]);
    await store.own("default/tenant/globex", "active");
  });
});

test("partitions are guarded, also when they are asked for by name", async () => {
  await createTable(
    "visits",
    "tenant_id text not null, day date not null, primary key (tenant_id, day)",
    "partition by range (day)",
  );
  for (const year of [2025, 2026]) {
    await store.owner(
      `create table visits_${year} partition of visits for values from ('${year}-01-01') to ('${year + 1}-01-01')`,
    );
    await store.owner(`grant select, insert, truncate on visits_${year} to ${storeRoles.appRole}`);
  }
  await protect("visits", "tenant_id");
  await store.app.query(
    "insert into visits values ('acme', '2025-05-05'), ('globex', '2026-05-05')",
  );
  expect(
    await refusalOf(store.app.query("insert into visits values ('stranger', '2026-05-05')")),
  ).toBe("CF001");
  expect(
    await refusalOf(store.app.query("insert into visits_2026 values ('stranger', '2026-05-05')")),
  ).toBe("CF001");
  expect(await refusalOf(store.app.query("truncate visits_2026"))).toBe("CF005");
  await store.app.query("update visits set day = '2026-06-06' where tenant_id = 'acme'");
  await store.own("default/tenant/globex", "fenced");
  expect(await names(store.app, "select tenant_id as t from visits")).toEqual(["acme"]);
  expect(await names(store.app, "select tenant_id as t from visits_2026")).toEqual(["acme"]);
  await store.own("default/tenant/globex", "active");
});

test("the application's own policies narrow ours and never widen it", async () => {
  await createTable("notes", "tenant_id text, secret boolean default false");
  await store.owner("alter table notes enable row level security");
  await store.owner("create policy own on notes using (not secret) with check (true)");
  await store.owner(
    "insert into notes values ('acme', false), ('acme', true), ('stranger', false)",
  );
  await protect("notes", "tenant_id");
  const seen = "select tenant_id || ' ' || secret as t from notes";
  expect(await names(store.app, seen)).toEqual(["acme false"]);
  await unprotectTable(store.admin, "public", "notes");
  expect(await names(store.app, seen)).toEqual(["acme false", "stranger false"]);
});

test("protecting twice changes nothing; unprotecting leaves an ordinary table", async () => {
  await createTable("plain", "id bigserial primary key, tenant_id text");
  const describeTable = async () => {
    const { rows } = await store.admin.query(`select
      (select array_agg(tgname || ' ' || pg_get_triggerdef(oid) order by tgname) from pg_trigger
        where tgrelid = 'plain'::regclass and not tgisinternal) as triggers,
      (select array_agg(polname order by polname) from pg_policy where polrelid = 'plain'::regclass) as policies,
      (select relrowsecurity from pg_class where oid = 'plain'::regclass) as rls,
      (select pg_get_expr(adbin, adrelid) from pg_attrdef where adrelid = 'plain'::regclass) as default`);
    return rows[0];
  };
  const before = await describeTable();
  await protect("plain", "tenant_id");
  const protectedOnce = await describeTable();
  expect(protectedOnce.triggers).toHaveLength(3);
  await protectTable(store.admin, {
    schema: "public",
    table: "plain",
    keyColumn: "tenant_id",
    keyspace: "default",
  });
  expect(await describeTable()).toEqual(protectedOnce);
  await unprotectTable(store.admin, "public", "plain");
  expect(await describeTable()).toEqual(before);
  const { rowCount } = await store.admin.query(
    "select from cellfleet.guarded_table where table_name = 'plain'",
  );
  expect(rowCount).toBe(0);
});
