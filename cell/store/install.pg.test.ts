/** Installing the pack: by whom, how often, and what it refuses. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { createCellStore, openClient, refusalOf, storeRoles } from "../../tests/cell-store.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import { installPack, packContent, packVersion } from "./install.ts";
import { readTenantSizes } from "./stats.ts";

let server: TestPostgres;
beforeAll(async () => {
  server = await startTestPostgres();
});
afterAll(() => server.stop());

test("installing again keeps what is there, and tables stay guarded", async () => {
  const store = await createCellStore(server, "again");
  await store.own("default/tenant/acme", "active");
  await store.grantLease();
  const insert = "insert into orders (tenant_id, item, quantity) values ('acme', 'tea', 1)";
  await store.app.query(insert);
  await installPack(store.admin, { ...storeRoles, cellId: "again" });
  await store.app.query(insert);
  await store.owner("select cellfleet.protect_table('public', 'orders', 'tenant_id', 'default')");
  await store.app.query(insert);
  expect((await store.app.query("select id from orders")).rowCount).toBe(3);
  const { rows } = await store.agent.query(
    "select version, length(digest) as digest from cellfleet.pack",
  );
  expect(rows).toEqual([{ version: packVersion, digest: 64 }]);
  expect(packContent()).toContain("cellfleet.lock_key");
  await store.close();
});

test("another cell's database is refused; a template has no cell yet", async () => {
  const client = await openClient(await server.createDatabase("template_of_cells"));
  await installPack(client, storeRoles);
  await installPack(client, { ...storeRoles, cellId: "cell-07" });
  await expect(installPack(client, { ...storeRoles, cellId: "cell-08" })).rejects.toThrow(
    /another cell/,
  );
  const { rows } = await client.query("select cell from cellfleet.progress");
  expect(rows).toEqual([{ cell: "cell-07" }]);
  await client.end();
});

test("an older release does not install over a newer pack, and a failure leaves nothing behind", async () => {
  const client = await openClient(await server.createDatabase("newer"));
  await installPack(client, storeRoles);
  await client.query("insert into cellfleet.pack (version, digest) values (99, 'x')");
  await client.query("drop function cellfleet.stats(integer)");
  await expect(installPack(client, storeRoles)).rejects.toThrow(/version 99/);
  expect((await client.query("select from pg_proc where proname = 'stats'")).rowCount).toBe(0);
  await client.end();
});

test("two installers at once both succeed", async () => {
  const url = await server.createDatabase("crowded");
  const clients = await Promise.all([openClient(url), openClient(url), openClient(url)]);
  await Promise.all(clients.map((client) => installPack(client, { ...storeRoles, cellId: "c" })));
  const { rows } = await clients[0].query("select cell from cellfleet.progress");
  expect(rows).toEqual([{ cell: "c" }]);
  await Promise.all(clients.map((client) => client.end()));
});

test("installers of two databases of one server may make the same roles at once", async () => {
  const urls = await Promise.all(["left", "right"].map((name) => server.createDatabase(name)));
  const admin = await openClient(server.adminUrl);
  for (let round = 0; round < 5; round += 1) {
    const roles = {
      appRole: `app_${round}`,
      appOwnerRole: `owner_${round}`,
      agentRole: `agent_${round}`,
    };
    const clients = await Promise.all(urls.map(openClient));
    await Promise.all(clients.map((client) => installPack(client, roles)));
    const { rows } = await admin.query(
      "select count(*)::int as n from pg_roles where rolname like $1",
      [`%\\_${round}`],
    );
    expect(rows).toEqual([{ n: 3 }]);
    await Promise.all(clients.map((client) => client.end()));
  }
  await admin.end();
});

test("no superuser is needed where the roles are there", async () => {
  const admin = await openClient(await server.createDatabase("managed"));
  await admin.query(`create role manager login createrole password '${server.password}'`);
  await admin.query("grant create on database managed to manager");
  await admin.query("grant cellfleet_owner to manager");
  const manager = await openClient(server.url("managed", "manager"));
  await installPack(manager, { ...storeRoles, cellId: "managed" });
  const { rows } = await manager.query(
    `select distinct pg_get_userbyid(relowner) as owner from pg_class where relnamespace = 'cellfleet'::regnamespace
      union select distinct pg_get_userbyid(proowner) from pg_proc where pronamespace = 'cellfleet'::regnamespace`,
  );
  expect(rows).toEqual([{ owner: "cellfleet_owner" }]);
  await Promise.all([admin.end(), manager.end()]);
});

test("a role that may create roles makes what is missing", async () => {
  const admin = await openClient(await server.createDatabase("fresh_roles"));
  const manager = await openClient(server.url("fresh_roles", "manager"));
  await admin.query("grant create on database fresh_roles to manager");
  const roles = { appRole: "new_app", appOwnerRole: "new_owner", agentRole: "new-agent" };
  await installPack(manager, roles);
  const { rows } = await admin.query(
    "select rolname, rolcanlogin, rolsuper from pg_roles where rolname like 'new%' order by 1",
  );
  expect(rows).toEqual([
    { rolname: "new-agent", rolcanlogin: true, rolsuper: false },
    { rolname: "new_app", rolcanlogin: true, rolsuper: false },
    { rolname: "new_owner", rolcanlogin: false, rolsuper: false },
  ]);
  await Promise.all([admin.end(), manager.end()]);
});

test("open to roles that the pack does not name is what the policy and the ids of a guarded table need", async () => {
  const store = await createCellStore(server, "closed");
  await store.admin.query(`create role stranger login password '${server.password}'`);
  const stranger = await store.connect("stranger");
  for (const text of [
    "select cellfleet.clock()",
    "table cellfleet.ownership",
    "select cellfleet.facts()",
    "select cellfleet.enter('default/tenant/acme', 1)",
  ]) {
    expect(await refusalOf(stranger.query(text))).toBe("42501");
  }
  const { rows } = await store.admin.query(
    `select p.proname from pg_proc p where p.pronamespace = 'cellfleet'::regnamespace
        and has_function_privilege('stranger', p.oid, 'EXECUTE') order by 1`,
  );
  // Trigger functions are of no use to anybody but the owner of a table; the others stand in the
  // policy and in the defaults of tables that such a role may have rights on.
  expect(rows.map(({ proname }) => proname)).toEqual([
    ...["guard_tenant_id", "next_id", "next_id", "placement_key", "reader", "visible"],
  ]);
  // The mover acts as the pack's owner; nobody else writes the pack's tables but its functions.
  const writable = await store.admin.query(
    `select c.relname, r.rolname from pg_class c, pg_roles r
      where c.relnamespace = 'cellfleet'::regnamespace and c.relkind in ('r', 'S', 'v') and r.rolname like 'shop%'
        and r.rolname <> '${storeRoles.moverRole}'
        and case when c.relkind = 'S' then has_sequence_privilege(r.oid, c.oid, 'UPDATE')
                 else has_table_privilege(r.oid, c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE') end`,
  );
  expect(writable.rows).toEqual([]);
  await store.close();
});

test("rows and bytes per tenant, counted or by sample, large values unread", async () => {
  const store = await createCellStore(server, "sized");
  await store.own("default/tenant/acme", "active");
  await store.own("default/tenant/globex", "active");
  await store.grantLease();
  const insert =
    "insert into orders (tenant_id, item, quantity) select $1, repeat($2, 40), 1 from generate_series(1, $3)";
  await store.app.query(insert, ["acme", "a", 3000]);
  await store.app.query(insert, ["globex", "b", 1000]);
  await store.own("default/tenant/globex", "fenced");
  const sizes = async (pagesMax?: number) =>
    new Map((await readTenantSizes(store.agent, pagesMax)).map((size) => [size.tenant, size]));
  const counted = await sizes();
  // What stands here is counted, active or not: a fenced tenant's rows occupy the disk too.
  expect([counted.get("acme")?.rows, counted.get("globex")?.rows]).toEqual([3000, 1000]);
  const total = await store.admin.query("select pg_total_relation_size('orders')::int as n");
  const bytes = (counted.get("acme")?.bytes ?? 0) + (counted.get("globex")?.bytes ?? 0);
  expect(Math.abs(bytes - total.rows[0].n)).toBeLessThanOrEqual(2);
  expect((counted.get("acme")?.bytes ?? 0) / bytes).toBeCloseTo(0.75, 1);
  // Twenty of some fifty pages: about right is right enough.
  const sampled = await sizes(20);
  const rows = (sampled.get("acme")?.rows ?? 0) + (sampled.get("globex")?.rows ?? 0);
  expect(rows).toBeGreaterThan(1000);
  expect(rows).toBeLessThan(9000);
  await store.close();
});
