/**
 * Without a superuser: a login with CREATEROLE that owns the database, as managed services give it,
 * installs the pack, protects its tables, and takes all of it off again.
 */
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { OwnershipState } from "../../contract/cell-protocol.ts";
import { enterStage, openClient, refusalOf } from "../../tests/cell-store.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import { readFacts } from "./facts.ts";
import { addIdRange } from "./id-ranges.ts";
import { installPack } from "./install.ts";
import { setLease } from "./lease.ts";
import { applyKeyspaces } from "./ownership.ts";
import { protectTable } from "./protect.ts";
import { countRowsLeft, purgeRows } from "./purge.ts";
import { readDependents, uninstallPack } from "./uninstall.ts";

let server: TestPostgres;
let admin: pg.Client;

beforeAll(async () => {
  server = await startTestPostgres();
  admin = await openClient(server.adminUrl);
  await admin.query(`create role manager login createrole password '${server.password}'`);
});
afterAll(async () => {
  await admin.end();
  await server.stop();
});

async function openAs(role: string, database: string): Promise<pg.Client> {
  return openClient(server.url(database, role));
}

/** Past the guard, as only a superuser can. */
async function insertPast(database: string, text: string): Promise<void> {
  const client = await openClient(server.url(database));
  await client.query("set session_replication_role = replica");
  await client.query(text);
  await client.end();
}

/** The tables belong to the manager itself, or to a role that the installation makes. */
describe.each(["manager", "shop_owner"])("tables of %s", (appOwnerRole) => {
  const database = `managed_${appOwnerRole}`;
  const roles = {
    appRole: `${appOwnerRole}_app`,
    appOwnerRole,
    agentRole: `${appOwnerRole}_agent`,
    readerRole: `${appOwnerRole}_reader`,
  };
  const key = "default/tenant/acme";
  let manager: pg.Client;
  let app: pg.Client;
  let agent: pg.Client;

  beforeAll(async () => {
    await admin.query(`create database ${database} owner manager`);
    manager = await openAs("manager", database);
    await installPack(manager, { ...roles, cellId: database, stage: "observe" });
    for (const role of [roles.appRole, roles.agentRole, roles.readerRole]) {
      await manager.query(`alter role ${role} password '${server.password}'`);
    }
    await manager.query(`grant create on schema public to ${appOwnerRole}`);
    await manager.query(`set role ${appOwnerRole}`);
    await manager.query(`create table notes (id bigint generated always as identity, tenant_id text not null,
                           body text, primary key (tenant_id, id))`);
    await manager.query(`create table log (tenant_id text)`);
    await manager.query(`create function logged() returns trigger language plpgsql as
      'begin insert into log values (old.tenant_id); return null; end'`);
    await manager.query(
      "create trigger logged after delete on notes for each row execute function logged()",
    );
    await manager.query("insert into notes (tenant_id) select 'acme' from generate_series(1, 3)");
    await manager.query(`grant select, insert, update, delete on notes to ${roles.appRole}`);
    await protectTable(manager, {
      schema: "public",
      table: "notes",
      keyColumn: "tenant_id",
      keyspace: "default",
    });
    await manager.query("reset role");
    app = await openAs(roles.appRole, database);
    agent = await openAs(roles.agentRole, database);
  });
  afterAll(() => Promise.all([manager.end(), app.end(), agent.end()]));

  const insert = "insert into notes (tenant_id) values ('acme') returning id::int as id";
  const command = (state: OwnershipState, op: string) =>
    agent.query("select cellfleet.apply_ownership($1, null)", [
      JSON.stringify([{ key, state, epoch: 1, op, attempt: 0 }]),
    ]);

  test("observe, then enforce, with lease, ownership and ids", async () => {
    expect((await app.query(insert)).rows).toEqual([{ id: 4 }]);
    expect((await readFacts(agent)).wouldRefuse).toMatchObject({ CF001: 1, CF010: 1 });
    await applyKeyspaces(agent, [{ name: "default", strategy: "directory", guardMode: "row" }]);
    await enterStage(agent, "enforce");
    const named = "insert into notes (id, tenant_id) values (99, 'acme')";
    expect(await refusalOf(app.query(named))).toBe("CF001");
    const facts = await readFacts(agent);
    await setLease(agent, { ...facts, grant: 1, ttlMs: 600_000, holder: "test" });
    await command("active", "op_1");
    expect(await refusalOf(app.query(insert))).toBe("CF010");
    await addIdRange(agent, { sequence: "public.notes_id_seq", lo: 101, hi: 200 });
    expect((await app.query(insert)).rows).toEqual([{ id: 101 }]);
  });

  test("the reader sees what the application sees, and can write nothing", async () => {
    const reader = await openAs(roles.readerRole, database);
    expect((await reader.query("select * from notes")).rowCount).toBe(5);
    expect(await refusalOf(reader.query(insert))).toBe("25006");
    await reader.query("set default_transaction_read_only = off");
    for (const text of [insert, "delete from notes", "select cellfleet.facts()"]) {
      expect(await refusalOf(reader.query(text)), text).toBe("42501");
    }
    await command("fenced", "op_2");
    expect((await reader.query("select * from notes")).rowCount).toBe(0);
    await agent.query("select cellfleet.expire_lease(100)");
    expect(await refusalOf(reader.query("select * from notes"))).toBe("CF004");
    await reader.end();
  });

  test("a purge fires the tables' triggers as their owner", async () => {
    await command("dropped", "op_3");
    expect(await purgeRows(agent, key)).toEqual({ "public.notes": 5 });
    expect(await countRowsLeft(agent, key)).toEqual({ "public.notes": 0 });
    expect((await manager.query("select * from log")).rowCount).toBe(5);
  });

  test("uninstalled, the application goes on, with ids above all that were given", async () => {
    await manager.query(`set role ${appOwnerRole}`);
    await manager.query(
      "create function who() returns setof text begin atomic select key from cellfleet.owned_keys; end",
    );
    await manager.query("reset role");
    await expect(uninstallPack(manager)).rejects.toThrow(/function public\.who\(\)/);
    await manager.query("drop function who()");
    // A row that came from another cell, with an id of its ranges.
    await insertPast(database, "insert into notes (id, tenant_id) values (5000, 'acme')");
    await uninstallPack(manager);
    expect(await readDependents(manager)).toEqual([]);
    expect(
      (await manager.query("select from pg_namespace where nspname = 'cellfleet'")).rowCount,
    ).toBe(0);
    const { rows } = await app.query(insert);
    expect(rows[0].id).toBe(5001);
    expect((await app.query("select * from notes")).rowCount).toBe(2);
    const { rows: left } = await manager.query(
      `select (select count(*)::int from pg_trigger where tgname like 'zz%') as triggers,
              (select count(*)::int from pg_policy) as policies, relrowsecurity as secured
         from pg_class where relname = 'notes'`,
    );
    expect(left).toEqual([{ triggers: 0, policies: 0, secured: false }]);
  });
});

test("where a provider hides the server's number, the installation's own stands in", async () => {
  const client = await openClient(await server.createDatabase("hidden"));
  await installPack(client, {
    appRole: "h_app",
    appOwnerRole: "h_owner",
    agentRole: "h_agent",
    cellId: "hidden",
  });
  const open = await readFacts(client);
  await client.query("revoke execute on function pg_control_system() from public");
  const [first, second] = [await readFacts(client), await readFacts(client)];
  expect(first.systemIdentifier).toMatch(/^\d{1,19}$/);
  expect(first.systemIdentifier).not.toBe(open.systemIdentifier);
  expect(second.systemIdentifier).toBe(first.systemIdentifier);
  expect(first.timeline).toBe(open.timeline);
  // A table that a migration dropped is no guarded table any more.
  await client.query("create table gone (tenant_id text)");
  await client.query("select cellfleet.protect_table('public', 'gone', 'tenant_id', 'default')");
  expect((await readFacts(client)).guardedTables).toBe(1);
  await client.query("drop table gone");
  expect((await readFacts(client)).guardedTables).toBe(0);
  await client.end();
});

test("a role that may not make roles is told who has to run what", async () => {
  await admin.query(`create role weak login password '${server.password}'`);
  await admin.query("create database weakling owner weak");
  const weak = await openAs("weak", "weakling");
  const roles = { appRole: "w_app", appOwnerRole: "weak", agentRole: "w_agent" };
  await expect(installPack(weak, roles)).rejects.toThrow(/grant "cellfleet_owner" to "weak"/);
  await admin.query("grant cellfleet_owner to weak");
  await expect(installPack(weak, roles)).rejects.toThrow(/create role "w_app" login/);
  expect((await weak.query("select from pg_namespace where nspname = 'cellfleet'")).rowCount).toBe(
    0,
  );
  await weak.end();
});
