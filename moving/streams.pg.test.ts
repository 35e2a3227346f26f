/** Streams of a move between two real databases, from `prepare` to `clean`, with writes going on. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { backName, forwardName } from "./names.ts";
import type { MoveTask } from "./ports.ts";
import {
  bringIntoStep,
  eventually,
  keepWriting,
  leftoversOf,
  never,
  plainCopy,
  setKeys,
  streams,
  switchOver,
  throughTheStream,
} from "./streams.fixture.ts";
import { startTwoCells, type TwoCells } from "./two-cells.fixture.ts";

let cells: TwoCells;
beforeAll(async () => {
  cells = await startTwoCells();
});
afterAll(() => cells.close());

let number = 0;
/** Of a tenant with some rows, active in a. */
async function taskOf(...tenants: string[]): Promise<MoveTask> {
  for (const tenant of tenants) {
    await cells.own(cells.a, `default/tenant/${tenant}`, "active");
    for (let row = 0; row < 3; row += 1) await cells.write(cells.a.app, tenant);
  }
  number += 1;
  return cells.task({ number, tenants });
}

/** Row messages that a slot would send now, without taking them; `origin` as in a subscription. */
async function pendingRows(task: MoveTask, origin: "none" | "any"): Promise<number> {
  const slot = backName(task, 0);
  const { rows } = await cells.b.admin.query(
    `select count(*)::integer as count
       from pg_logical_slot_peek_binary_changes($1::text::name, null, null, 'proto_version', '4',
              'publication_names', $1::text, 'origin', $2) c
      where get_byte(c.data, 0) in (ascii('I'), ascii('U'), ascii('D'))`,
    [slot, origin],
  );
  return Number(rows[0]?.count);
}

test("a tenant that is written to all the time is moved, followed back, and moved back; nothing else is touched", async () => {
  const { a, b } = cells;
  await taskOf("globex");
  const acme = await taskOf("acme");
  const others = await cells.rowsOf(a, "globex");
  const acmeWriter = keepWriting(cells, await a.connect(), "acme");
  await streams.prepare(acme, never);
  await streams.copy(acme, plainCopy);
  const atCopy = acmeWriter.written();
  await streams.startStream(acme);
  await eventually("writes after the copy", async () => acmeWriter.written() > atCopy + 5);
  expect(await streams.streamState(acme)).toMatchObject({ broken: undefined });
  expect((await b.app.query("select from orders")).rowCount).toBe(0); // Not visible before it is owned.
  await switchOver(cells, acme);
  const written = await acmeWriter.stop();
  expect(await cells.countOf(b, "acme")).toBe((3 + written) * 6);
  expect(await cells.rowsOf(b, "acme")).toEqual(await cells.rowsOf(a, "acme"));

  // What came with the forward stream is not sent back; it stands in the log, though.
  expect(await pendingRows(acme, "none")).toBe(0);
  expect(await pendingRows(acme, "any")).toBeGreaterThan(0);
  await cells.write(b.app, "acme", 77);
  await streams.turnAround(acme);
  await cells.write(b.app, "acme", 78);
  await throughTheStream(acme, b, a);
  expect(await cells.rowsOf(a, "acme")).toEqual(await cells.rowsOf(b, "acme"));
  expect(await streams.reverseState(acme)).toMatchObject({ broken: undefined });
  await streams.turnAround(acme); // Again, after a crash: the way back stays on.
  expect(await streams.reverseState(acme)).toMatchObject({ broken: undefined });

  number += 1;
  const back = cells.task({
    number,
    tenants: ["acme"],
    back: true,
    epoch: 2,
    reverses: number - 1,
  });
  const bWriter = keepWriting(cells, await b.connect(), "acme");
  await cells.own(b, "default/tenant/initech", "active");
  await streams.adoptStream(back);
  await streams.adoptStream(back);
  expect(await streams.streamState(back)).toMatchObject({ broken: undefined });
  // The stream lets the new move's markers through, and no row more.
  await cells.write(b.app, "initech");
  await switchOver(cells, back);
  await bWriter.stop();
  expect(await cells.countOf(a, "initech")).toBe(0);
  expect(await cells.rowsOf(a, "acme")).toEqual(await cells.rowsOf(b, "acme"));
  await streams.turnAround(back);
  await cells.write(a.app, "acme", 79);
  await throughTheStream(back, a, b);
  expect(await cells.rowsOf(b, "acme")).toEqual(await cells.rowsOf(a, "acme"));
  const kept = await cells.rowsOf(a, "acme");
  await streams.clean(back, never);
  await streams.clean(back, never);
  expect(await cells.countOf(b, "acme")).toBe(0);
  expect(await cells.rowsOf(a, "acme")).toEqual(kept);
  expect(await cells.rowsOf(a, "globex")).toEqual(others);
  expect(await cells.countOf(b, "globex")).toBe(0);
  expect(await leftoversOf(cells, acme, back)).toEqual([]);
});

test("the way back is closed until nothing is left of the way there", async () => {
  const { a, b } = cells;
  const task = await taskOf("umbrella");
  await bringIntoStep(task);
  await switchOver(cells, task);
  const holder = await b.connect("postgres");
  // Nobody changes this subscription meanwhile.
  await holder.query(`begin; comment on subscription "${forwardName(task, 0)}" is 'held'`);
  const isOpen = async () => {
    const { rows } = await a.admin.query<{ open: boolean }>(
      "select subenabled as open from pg_subscription where subname = $1",
      [backName(task, 0)],
    );
    return rows[0]?.open;
  };
  const turning = streams.turnAround(task);
  try {
    await eventually("the end of the way there waits", async () => {
      const { rowCount } = await b.admin.query(
        "select from pg_locks where classid = 'pg_subscription'::regclass and not granted",
      );
      return rowCount === 1;
    });
    expect(await isOpen()).toBe(false);
  } finally {
    await holder.query("rollback");
    await turning;
  }
  expect(await isOpen()).toBe(true);
  await streams.clean(task, never);
  expect(await leftoversOf(cells, task)).toEqual([]);
});

test("ten tenants travel as one publication and one slot", async () => {
  const { a, b } = cells;
  const tenants = Array.from({ length: 10 }, (_, n) => `batch-${n}`);
  const task = await taskOf(...tenants);
  const writer = keepWriting(cells, await a.connect(), "batch-3");
  await bringIntoStep(task);
  const { rows } = await a.admin.query(
    "select count(*)::integer as count from pg_replication_slots where slot_name ~ '^mv_' and slot_name = $1",
    [forwardName(task, 0)],
  );
  expect(rows[0]?.count).toBe(1);
  await switchOver(cells, task);
  await writer.stop();
  for (const tenant of tenants) {
    expect(await cells.rowsOf(b, tenant)).toEqual(await cells.rowsOf(a, tenant));
  }
  await streams.turnAround(task);
  await streams.clean(task, never);
  for (const tenant of tenants) {
    expect([await cells.countOf(a, tenant), (await cells.countOf(b, tenant)) > 0]).toEqual([
      0,
      true,
    ]);
  }
  expect(await leftoversOf(cells, task)).toEqual([]);
});

test("what is undone leaves the source as it was and the target without a row, and may be tried again", async () => {
  const { a, b } = cells;
  const task = await taskOf("undone");
  const before = await cells.rowsOf(a, "undone");
  await bringIntoStep(task);
  expect(await cells.countOf(b, "undone")).toBe(18);
  await streams.undo(task, never);
  await streams.undo({ ...task, attempt: 2 }, never);
  expect(await leftoversOf(cells, task)).toEqual([]);
  expect(await cells.countOf(b, "undone")).toBe(0);
  expect(await cells.rowsOf(a, "undone")).toEqual(before);
  await cells.write(a.app, "undone");
  number += 1;
  const again = cells.task({ number, tenants: ["undone"] });
  await bringIntoStep(again);
  await throughTheStream(again, a, b);
  expect(await cells.rowsOf(b, "undone")).toEqual(await cells.rowsOf(a, "undone"));
  await streams.undo(again, never);
});

test("rows that stood on the target from before are removed first, past the application's triggers", async () => {
  const { a, b } = cells;
  const task = await taskOf("residue");
  await b.owner(`create function forbid() returns trigger language plpgsql as
    $$ begin raise exception 'not to be deleted'; end $$;
    create trigger aa_forbid before delete on notes for each row execute function forbid()`);
  await b.admin.query("set session_replication_role = replica");
  await cells.write(b.admin, "residue");
  await cells.write(b.admin, "bystander");
  await b.admin.query("set session_replication_role = origin");
  await bringIntoStep(task);
  await throughTheStream(task, a, b);
  expect(await cells.rowsOf(b, "residue")).toEqual(await cells.rowsOf(a, "residue"));
  expect(await cells.countOf(b, "bystander")).toBe(6);
  await streams.undo(task, never);
  expect(await cells.countOf(b, "bystander")).toBe(6);
});

test("rows of a key that is served on the target are never removed", async () => {
  const task = await taskOf("served");
  await cells.own(cells.b, "default/tenant/served", "active");
  await cells.write(cells.b.app, "served");
  const work = streams.prepare(task, never);
  await expect(work).rejects.toMatchObject({ code: "MOVE_UNFIT" });
  await streams.undo(task, never);
  expect(await cells.countOf(cells.b, "served")).toBe(6);
  expect(await leftoversOf(cells, task)).toEqual([]);
});

test("the source's rows are not removed before the source was told that the key has moved", async () => {
  const task = await taskOf("early");
  await bringIntoStep(task);
  await setKeys(cells.a, task, "fenced");
  await expect(streams.clean(task, never)).rejects.toMatchObject({ code: "STATE_CONFLICT" });
  expect(await cells.countOf(cells.a, "early")).toBe(18);
  await streams.undo({ ...task, attempt: 2 }, never);
});

test("a TRUNCATE at the source does not reach the target", async () => {
  const { a, b } = cells;
  const task = await taskOf("cut");
  await bringIntoStep(task);
  await throughTheStream(task, a, b);
  const before = await cells.rowsOf(b, "cut");
  await a.admin.query("set session_replication_role = replica");
  await a.admin.query("truncate notes");
  await a.admin.query("set session_replication_role = origin");
  await throughTheStream(task, a, b);
  expect(await cells.rowsOf(b, "cut")).toEqual(before);
  await streams.undo(task, never);
});

test("publications name every guarded table of the keyspace and the marker", async () => {
  const task = await taskOf("listed");
  await streams.prepare(task, never);
  const { rows } = await cells.a.admin.query(
    "select tablename from pg_publication_tables where pubname = $1 order by 1",
    [forwardName(task, 0)],
  );
  expect(rows.map(({ tablename }) => tablename)).toEqual([
    "events",
    "lines",
    "move_marker",
    "notes",
    "orders",
  ]);
  await streams.undo(task, never);
});
