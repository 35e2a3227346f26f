/** Which tables a database says stand in no class: after a migration that nobody told us of, and until someone does. */
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import {
  type CellStore,
  createCellStore,
  openClient,
  refusalOf,
  storeRoles,
} from "../../tests/cell-store.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import { installPack } from "./install.ts";
import { parseManifest } from "./manifest.ts";
import { protectTable } from "./protect.ts";
import { readUnclassed, recordManifest } from "./table-classes.ts";

let server: TestPostgres;
let store: CellStore;

beforeAll(async () => {
  server = await startTestPostgres();
  store = await createCellStore(server, "main");
});
afterAll(async () => {
  await store.close();
  await server.stop();
});

/** As whoever owns the tables: he runs the migrations, and records what they are. */
const asOwner = async (work: () => Promise<void>): Promise<void> => {
  await store.admin.query(`set role ${storeRoles.appOwnerRole}`);
  await work().finally(() => store.admin.query("reset role"));
};
const classes = (tables: Readonly<Record<string, string>>): Promise<void> =>
  asOwner(() => recordManifest(store.admin, parseManifest(JSON.stringify({ tables }))));
/** As the agent sees it. */
const unclassed = async (): Promise<readonly string[]> => {
  const { count, names } = await readUnclassed(store.agent);
  expect(count).toBe(names.length);
  return names;
};
const whole = { orders: "tenant", countries: "reference" };

beforeEach(async () => {
  await store.owner(
    "drop table if exists notes, logs cascade; create table if not exists countries (code text)",
  );
  await classes(whole);
});

test("a table that a later migration adds is named until it is classed, or gone", async () => {
  expect(await unclassed()).toEqual([]);
  await store.owner("create table notes (id integer, tenant_id text)");
  expect(await unclassed()).toEqual(["public.notes"]);
  await classes({ ...whole, notes: "cell-local" });
  expect(await unclassed()).toEqual([]);
  // The manifest is recorded as a whole: what it names no more is in no class.
  await classes(whole);
  expect(await unclassed()).toEqual(["public.notes"]);
  await store.owner("drop table notes");
  expect(await unclassed()).toEqual([]);
});

test("a table that is classed tenant and not guarded is named with that, until it is guarded", async () => {
  await store.owner("create table notes (id integer, tenant_id text not null)");
  await classes({ ...whole, notes: "tenant" });
  expect(await unclassed()).toEqual(["public.notes (classed tenant, not guarded)"]);
  const notes = {
    ...{ schema: "public", table: "notes", keyColumn: "tenant_id", keyspace: "default" },
  };
  await protectTable(store.admin, notes);
  expect(await unclassed()).toEqual([]);
  // Switched off, it guards nothing.
  await store.owner("alter table notes disable trigger zz_cellfleet_guard");
  expect(await unclassed()).toEqual(["public.notes (classed tenant, not guarded)"]);
  await store.owner("alter table notes enable always trigger zz_cellfleet_guard");
  expect(await unclassed()).toEqual([]);
  // Dropped and made anew, its name still stands in the list of guarded tables.
  await store.owner("drop table notes; create table notes (id integer, tenant_id text not null)");
  expect(await unclassed()).toEqual(["public.notes (classed tenant, not guarded)"]);
  await classes(whole);
  expect(await unclassed()).toEqual(["public.notes"]);
});

test("a trigger that only bears the guard's name is none", async () => {
  await store.owner(`create table notes (id integer, tenant_id text not null);
    create function sham() returns trigger language plpgsql as 'begin return new; end';
    create trigger zz_cellfleet_guard before insert on notes for each row execute function sham()`);
  await store.admin.query(
    "select cellfleet.register_table('public', 'notes', 'tenant_id', 'default')",
  );
  expect(await unclassed()).toEqual(["public.notes"]);
  await store.admin.query("select cellfleet.forget_table('public', 'notes')");
  await store.owner("drop table notes; drop function sham");
});

test("partitions are their parent's business; what an extension brought, and a session's own, nobody's", async () => {
  await store.owner(`create table logs (id integer, tenant_id text not null, at date not null)
      partition by range (at);
    create table logs_1 partition of logs for values from ('2026-01-01') to ('2026-02-01')`);
  expect(await unclassed()).toEqual(["public.logs"]);
  await classes({ ...whole, logs: "cell-local" });
  await store.owner(
    "create table logs_2 partition of logs for values from ('2026-02-01') to ('2026-03-01')",
  );
  await store.owner("create temporary table scratch (id integer)");
  expect(await unclassed()).toEqual([]);
  // On its own again it is a table like any other.
  await store.owner("alter table logs detach partition logs_2");
  expect(await unclassed()).toEqual(["public.logs_2"]);
  await store.owner("create unlogged table countries_cache (code text)");
  expect(await unclassed()).toEqual(["public.countries_cache", "public.logs_2"]);
  await store.owner("drop table logs_2, countries_cache");
  await store.admin.query("create table public.of_extension (id integer)");
  await store.admin.query("alter extension plpgsql add table public.of_extension");
  expect(await unclassed()).toEqual([]);
  await store.admin.query("alter extension plpgsql drop table public.of_extension");
  expect(await unclassed()).toEqual(["public.of_extension"]);
  await store.admin.query("drop table public.of_extension");
});

test("names are what PostgreSQL has, also in other schemas, and whatever stands in them", async () => {
  await store.admin.query(
    `create schema "bill'ing"; create table "bill'ing"."In\\voices" (id integer)`,
  );
  expect(await unclassed()).toEqual(["bill'ing.In\\voices"]);
  // Another table of that name is another table.
  await classes({ ...whole, "In\\voices": "ignore" });
  expect(await unclassed()).toEqual(["bill'ing.In\\voices"]);
  await classes({ ...whole, "bill'ing.In\\voices": "ignore" });
  expect(await unclassed()).toEqual([]);
  await store.admin.query(`drop schema "bill'ing" cascade`);
});

test("before a manifest was recorded every table that is not guarded is named, twenty at most", async () => {
  const bare = await openClient(await server.createDatabase("bare"));
  await installPack(bare, { ...storeRoles, cellId: "bare" });
  for (let n = 1; n <= 22; n += 1) await bare.query(`create table t_${n} (id integer)`);
  const { count, names } = await readUnclassed(bare);
  expect(count).toBe(22);
  expect(names).toHaveLength(20);
  expect(names).toEqual(names.toSorted());
  await bare.end();
});

test("only who migrates the tables may say what they are", async () => {
  const record = "select cellfleet.record_manifest('[]')";
  expect(await refusalOf(store.app.query(record))).toBe("42501");
  expect(await refusalOf(store.agent.query(record))).toBe("42501");
  expect(await refusalOf(store.app.query("delete from cellfleet.classed_table"))).toBe("42501");
  await asOwner(async () => {
    expect(await refusalOf(store.admin.query("delete from cellfleet.classed_table"))).toBe("42501");
  });
});
