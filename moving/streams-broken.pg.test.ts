/** Streams that will not get there by themselves say so, and why; what is not said here is a hang. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { protectTable } from "../cell/store/protect.ts";
import { type CellStore, openClient } from "../tests/cell-store.ts";
import { backName, forwardName } from "./names.ts";
import type { MoveTask } from "./ports.ts";
import {
  bringIntoStep,
  eventually,
  leftoversOf,
  never,
  streams,
  throughTheStream,
} from "./streams.fixture.ts";
import { startTwoCells, type TwoCells } from "./two-cells.fixture.ts";

let cells: TwoCells;
beforeAll(async () => {
  cells = await startTwoCells({ servers: 2 });
});
afterAll(() => cells.close());

let number = 0;
async function inStep(tenant: string): Promise<MoveTask> {
  await cells.own(cells.a, `default/tenant/${tenant}`, "active");
  await cells.write(cells.a.app, tenant);
  number += 1;
  const task = cells.task({ number, tenants: [tenant] });
  await bringIntoStep(task);
  return task;
}

const brokenBy = async (task: MoveTask): Promise<string> =>
  (await streams.streamState(task)).broken ?? "";

async function breaks(task: MoveTask, pattern: RegExp): Promise<void> {
  await eventually(`broken: ${pattern}`, async () => pattern.test(await brokenBy(task)));
  await streams.undo({ ...task, attempt: 2 }, never);
  expect(await leftoversOf(cells, task)).toEqual([]);
  expect(await cells.countOf(cells.b, String(task.keys[0]?.key.split("/")[2]))).toBe(0);
}

test("a unique value that another row on the target has", async () => {
  const task = await inStep("clash");
  await cells.b.owner("create unique index notes_body on notes (body) where body like 'only %'");
  await cells.b.admin.query("set session_replication_role = replica");
  await cells.b.admin.query("insert into notes (tenant_id, body) values ('other', 'only one')");
  await cells.b.admin.query("set session_replication_role = origin");
  await cells.a.app.query("insert into notes (tenant_id, body) values ('clash', 'only one')");
  await breaks(
    task,
    /subscription mv_\w+ cannot go on in cell cell-b.*unique value that another row/,
  );
  await cells.b.owner("drop index notes_body");
});

test("a column that the target lacks", async () => {
  const task = await inStep("drift");
  await cells.a.owner("alter table notes add column mood text");
  await cells.a.app.query(
    "insert into notes (tenant_id, body, mood) values ('drift', 'b', 'good')",
  );
  await breaks(task, /cannot go on in cell cell-b.*tables of the two cells differ/);
  await cells.a.owner("alter table notes drop column mood");
});

const both = () => [cells.a, cells.b];
async function migrateBoth(text: string): Promise<void> {
  for (const store of both()) await store.owner(text);
}
const addAlbums =
  "create table albums (tenant_id text not null, id bigint not null, primary key (tenant_id, id))";
const guard = (store: CellStore, table: string) =>
  protectTable(store.admin, {
    ...{ schema: "public", table, keyColumn: "tenant_id", keyspace: "default" },
  });

test("a table that a migration adds in both cells, makes anew, and drops again", async () => {
  const added = /^public\.albums was added after the move began: its rows are not in the stream$/;
  const task = await inStep("adds");
  expect(await brokenBy(task)).toBe("");
  await migrateBoth(addAlbums);
  expect(await brokenBy(task)).toBe("");
  for (const store of both()) await guard(store, "albums");
  expect(await brokenBy(task)).toMatch(added);
  await cells.a.admin.query(`alter subscription ${backName(task, 0)} enable`);
  expect((await streams.reverseState(task)).broken).toMatch(added);
  await streams.undo({ ...task, attempt: 2 }, never);

  // Begun with it. The names of tables that were dropped stay among the guarded ones.
  const next = await inStep("drops");
  expect(await brokenBy(next)).toBe("");
  await migrateBoth("drop table albums");
  expect(await brokenBy(next)).toBe("");
  await cells.write(cells.a.app, "drops");
  await throughTheStream(next, cells.a, cells.b);
  // Of the same name, it is another one.
  await migrateBoth(addAlbums);
  expect(await brokenBy(next)).toMatch(added);
  await migrateBoth("drop table albums");
  for (const { admin } of both())
    await admin.query("select cellfleet.forget_table('public', 'albums')");

  expect(await brokenBy(next)).toBe("");
  await cells.a.admin.query("select cellfleet.forget_table('public', 'notes')");
  expect(await brokenBy(next)).toMatch(/^public\.notes is no longer guarded/);
  await guard(cells.a, "notes");
  expect(await brokenBy(next)).toBe("");
  await streams.undo({ ...next, attempt: 2 }, never);
});

test("a subscription that somebody switched off, and one that is gone", async () => {
  const task = await inStep("off");
  await cells.b.admin.query(`alter subscription ${forwardName(task, 0)} disable`);
  expect(await brokenBy(task)).toMatch(/was switched off in cell cell-b/);
  await cells.b.admin.query(`alter subscription ${forwardName(task, 0)} set (slot_name = none)`);
  await cells.b.admin.query(`drop subscription ${forwardName(task, 0)}`);
  expect(await brokenBy(task)).toMatch(/is gone in cell cell-b/);
  expect((await streams.reverseState(task)).broken).toMatch(/was switched off in cell cell-a/);
  await expect(streams.startStream(task)).rejects.toMatchObject({ code: "MOVE_STREAM_BROKEN" });
  await streams.undo(task, never);
  expect(await brokenBy(task)).toMatch(/slot .* is gone from cell cell-a/);
  expect((await streams.streamState(task)).lagBytes).toBeNull();
});

test("a slot that lost what the target still needs", async () => {
  const { a, b } = cells;
  const task = await inStep("lost");
  await b.admin.query(`alter subscription ${forwardName(task, 0)} disable`);
  const admin = await openClient(cells.serverOf(a).adminUrl);
  await admin.query("alter system set max_slot_wal_keep_size = '1MB'");
  await admin.query("select pg_reload_conf()");
  await eventually("log beyond the limit", async () => {
    await admin.query("select pg_logical_emit_message(false, 'x', repeat('x', 1000000))");
    await admin.query("select pg_switch_wal()");
    await admin.query("checkpoint");
    return /has lost write-ahead log/.test(await brokenBy(task));
  });
  await admin.query("alter system reset max_slot_wal_keep_size");
  await admin.query("select pg_reload_conf()");
  await admin.end();
  await breaks(task, /slot mv_\w+ in cell cell-a, store main, has lost.*max_slot_wal_keep_size/);
});

test("the source is gone: the target is cleaned all the same, the source when it is back", async () => {
  const { a, b } = cells;
  const task = await inStep("dead");
  await cells.serverOf(a).halt("kill");
  await expect(streams.streamState(task)).rejects.toMatchObject({
    code: "CELL_DATABASE_UNREACHABLE",
  });
  const undone = streams.undo({ ...task, attempt: 2 }, never);
  await expect(undone).rejects.toMatchObject({ code: "CELL_DATABASE_UNREACHABLE" });
  expect(await cells.countOf(b, "dead")).toBe(0);
  await cells.serverOf(a).restart("kill");
  const admin = await openClient(cells.serverOf(a).url(a.name));
  const { rows } = await admin.query("select slot_name from pg_replication_slots");
  expect(rows).toEqual([{ slot_name: forwardName(task, 0) }]);
  await admin.end();
  await streams.undo({ ...task, attempt: 3 }, never);
  expect(await leftoversOf(cells, task)).toEqual([]);
});

test("the target is gone: the source keeps no log for it", async () => {
  const { a, b } = cells;
  const store = await openClient(cells.serverOf(a).url(a.name));
  await store.query(
    "select cellfleet.set_lease(100, cellfleet.clock() + interval '1 hour', pg_postmaster_start_time(), 'test')",
  );
  const app = await a.connect();
  await cells.own({ ...a, agent: await a.connect("shop_agent") }, "default/tenant/alone", "active");
  await cells.write(app, "alone");
  number += 1;
  const task = cells.task({ number, tenants: ["alone"] });
  await bringIntoStep(task);
  await cells.serverOf(b).halt("kill");
  await expect(streams.undo({ ...task, attempt: 2 }, never)).rejects.toMatchObject({
    code: "CELL_DATABASE_UNREACHABLE",
  });
  const { rows } = await store.query(
    `select slot_name::text as name from pg_replication_slots
      union all select subname::text from pg_subscription union all select pubname::text from pg_publication`,
  );
  expect(rows).toEqual([]);
  await store.end();
  await cells.serverOf(b).restart("kill");
  await streams.undo({ ...task, attempt: 3 }, never);
  expect(await leftoversOf(cells, task)).toEqual([]);
  expect(backName(task, 0)).toMatch(/^rv_/);
});
