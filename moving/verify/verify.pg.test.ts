/** Rows of two cells compared, while the application writes, against PostgreSQL. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { MoveVerification } from "../../contract/move-api.ts";
import { eventually } from "../../control-plane/control.fixture.ts";
import { systemClock } from "../../runtime/clock.ts";
import { systemRandom } from "../../runtime/random.ts";
import { createFrozenSnapshots } from "../frozen-snapshots.ts";
import type { MoveTask, VerifyPort } from "../ports.ts";
import { openStoreSession } from "../store-session.ts";
import { startTwoCells, type TwoCells } from "../two-cells.fixture.ts";
import { link } from "./stream.fixture.ts";
import { createVerify } from "./verify.ts";

const signal = new AbortController().signal;
const frozen = createFrozenSnapshots();
let cells: TwoCells;
let verify: VerifyPort;
let task: MoveTask;

const tenants = [
  ...["acme", "lost", "doubled", "changed", "swapped", "typed", "orphan", "busy", "pinned"],
];

beforeAll(async () => {
  cells = await startTwoCells();
  verify = createVerify({ clock: systemClock, random: systemRandom, frozen });
  const { a, b } = cells;
  for (const tenant of tenants) {
    await cells.own(a, `default/tenant/${tenant}`, "active");
    await cells.own(b, `default/tenant/${tenant}`, "importing");
  }
  task = cells.task({ tenants });
  await link({ from: a, to: b, server: cells.serverOf(a), name: "mv", op: task.op });
  for (const tenant of tenants) await cells.write(a.app, tenant);
});

afterAll(() => cells.close());

const only = (tenant: string): MoveTask => cells.task({ tenants: [tenant] });

const lineOf = (verification: MoveVerification, table: string) =>
  verification.tables.filter((line) => line.table.startsWith(table));

/** On the target, past guard and foreign keys, as a fault would. */
async function harm(text: string): Promise<void> {
  const { admin } = cells.b;
  await admin.query("set session_replication_role = replica");
  await admin.query(text).finally(() => admin.query("reset session_replication_role"));
}

describe("before the switch", () => {
  it("finds both sides equal, table by table, and says how many rows", async () => {
    const verification = await verify.compareBefore(only("acme"), signal);
    expect(verification).toMatchObject({ phase: "before-switch", equal: true });
    expect(
      verification.tables.map(({ table, sourceRows, targetRows }) => [
        table,
        sourceRows,
        targetRows,
      ]),
    ).toEqual([
      ["public.events", 2, 2],
      ["public.lines", 2, 2],
      ["public.notes", 1, 1],
      ["public.orders", 1, 1],
    ]);
  });

  it("finds them equal under writes, each time, and lets the writers go on", async () => {
    const writers = await Promise.all(Array.from({ length: 4 }, () => cells.a.connect()));
    let writing = true;
    let written = 0;
    const work = writers.map(async (client) => {
      while (writing) {
        await cells.write(client, "busy", written);
        await client.query(
          "update notes set body = body || 'x' where tenant_id = 'busy' and id = (select id from notes where tenant_id = 'busy' order by random() limit 1)",
        );
        written += 1;
      }
    });
    try {
      for (let round = 0; round < 8; round += 1) {
        const before = written;
        const verification = await verify.compareBefore(only("busy"), signal);
        expect(verification).toMatchObject({ equal: true });
        await eventually(
          async () => written,
          (now) => now > before,
        );
      }
    } finally {
      writing = false;
      await Promise.all(work);
    }
    expect(written).toBeGreaterThan(8);
  });

  it("waits for a transaction of the key without making others wait behind it", async () => {
    const slow = await cells.a.connect();
    await slow.query("begin");
    await cells.write(slow, "pinned");
    let done = false;
    const comparison = verify.compareBefore(only("pinned"), signal).finally(() => {
      done = true;
    });
    // Every one of these would stand behind an exclusive lock that is waited for without a bound.
    for (let count = 0; count < 20; count += 1) await cells.write(cells.a.app, "pinned");
    expect(done).toBe(false);
    await slow.query("commit");
    expect(await comparison).toMatchObject({ equal: true });
  });

  it("holds no lock while it compares", async () => {
    const { a, b } = cells;
    const other = await b.connect("postgres");
    await other.query("begin; lock table orders in access exclusive mode");
    const comparison = verify.compareBefore(only("acme"), signal);
    await eventually(
      async () =>
        (
          await b.admin.query(
            "select from pg_locks where not granted and relation = 'orders'::regclass",
          )
        ).rows,
      (waiting) => waiting.length > 0,
    );
    await cells.write(a.app, "pinned");
    await a.app.query("update orders set quantity = 7 where tenant_id = 'acme'");
    await other.query("commit");
    expect(await comparison).toMatchObject({ equal: true });
  });

  it("holds no lock while it waits for a stream that stands still", async () => {
    const { a, b } = cells;
    await b.admin.query("alter subscription mv disable");
    const comparison = verify.compareBefore(only("acme"), signal);
    for (let count = 0; count < 20; count += 1) await cells.write(a.app, "acme");
    await b.admin.query("alter subscription mv enable");
    const verification = await comparison;
    expect(verification).toMatchObject({ equal: true });
    expect(lineOf(verification, "public.orders")).toMatchObject([{ sourceRows: 21 }]);
  });

  it("is put off, and writers go on, when it stalls under its locks", async () => {
    const { a } = cells;
    // The second marker is the one that is written under the locks: there it stands still.
    const gate = await a.connect("postgres");
    await gate.query(`create sequence markers;
      create function stall() returns trigger language plpgsql as $$ begin
        if nextval('markers') = 2 then perform pg_advisory_xact_lock(42); end if; return new; end $$;
      create trigger stall before insert on cellfleet.move_marker for each row execute function stall();
      grant usage on sequence markers to public;
      select pg_advisory_lock(42)`);
    const comparison = verify.compareBefore(only("acme"), signal);
    await eventually(
      async () =>
        (await a.admin.query("select from pg_locks where locktype = 'advisory' and not granted"))
          .rows,
      (waiting) => waiting.length === 1,
    );
    await cells.write(a.app, "acme");
    await gate.query("select pg_advisory_unlock(42)");
    const verification = await comparison;
    await gate.query("drop function stall() cascade; drop sequence markers");
    expect(verification).toMatchObject({ equal: true });
    expect(lineOf(verification, "public.orders")).toMatchObject([{ sourceRows: 22 }]);
  });

  it("gives up where writers leave no moment free, and names them", async () => {
    const hasty = createVerify({
      clock: { ...systemClock, sleep: (ms, stop) => systemClock.sleep(Math.min(ms, 1), stop) },
      random: systemRandom,
      frozen,
    });
    const slow = await cells.a.connect();
    await slow.query("begin");
    await cells.write(slow, "pinned");
    const { rows } = await slow.query<{ pid: number }>("select pg_backend_pid() as pid");
    await expect(hasty.compareBefore(only("pinned"), signal)).rejects.toMatchObject({
      code: "FENCE_BLOCKED",
      details: { store: "main", sessions: [{ pid: rows[0]?.pid }] },
    });
    await slow.query("rollback");
    expect(await hasty.compareBefore(only("pinned"), signal)).toMatchObject({ equal: true });
  });

  it("gives up where the stream brings nothing, and says so", async () => {
    const { b } = cells;
    const start = systemClock.monotonicMs();
    const later = createVerify({
      clock: {
        ...systemClock,
        monotonicMs: () => start + (systemClock.monotonicMs() - start) * 1000,
      },
      random: systemRandom,
      frozen,
    });
    await b.admin.query("alter subscription mv disable");
    const comparison = later.compareBefore(only("acme"), signal);
    await expect(comparison).rejects.toMatchObject({ code: "MOVE_STREAM_BROKEN" });
    await b.admin.query("alter subscription mv enable");
  });

  it("stops in the middle of a table when nobody waits for it any more", async () => {
    const { a, b } = cells;
    const abort = new AbortController();
    const other = await b.connect("postgres");
    await other.query("begin; lock table notes in access exclusive mode");
    const comparison = verify.compareBefore(only("acme"), abort.signal);
    const waits = "select from pg_locks where not granted and relation = 'notes'::regclass";
    await eventually(
      async () => (await b.admin.query(waits)).rows.length,
      (waiting) => waiting > 0,
    );
    abort.abort(new Error("not needed"));
    await expect(comparison).rejects.toThrow("not needed");
    // While the table is still locked: the server has noticed.
    await eventually(
      async () =>
        (
          await a.admin.query(
            "select from pg_stat_activity where application_name like 'cellfleet verify%'",
          )
        ).rows.length,
      (left) => left === 0,
    );
    await other.query("commit");
  });

  it("stops when nobody waits for it any more", async () => {
    const abort = new AbortController();
    const slow = await cells.a.connect();
    await slow.query("begin");
    await cells.write(slow, "pinned");
    const comparison = verify.compareBefore(only("pinned"), abort.signal);
    abort.abort(new Error("not needed"));
    await expect(comparison).rejects.toThrow("not needed");
    await slow.query("rollback");
    await eventually(
      async () =>
        (
          await cells.a.admin.query(
            "select from pg_stat_activity where application_name like 'cellfleet verify%'",
          )
        ).rows.length,
      (left) => left === 0,
    );
  });
});

describe("a difference", () => {
  const different = async (tenant: string, table: string) => {
    const verification = await verify.compareBefore(only(tenant), signal);
    expect(verification.equal).toBe(false);
    const [line] = lineOf(verification, table);
    return line;
  };

  it("shows a lost row", async () => {
    await harm("delete from notes where tenant_id = 'lost'");
    expect(await different("lost", "public.notes")).toMatchObject({
      sourceRows: 1,
      targetRows: 0,
    });
  });

  it("shows a row that stands three times, which an exclusive or of digests would not", async () => {
    await harm(`alter table notes drop constraint notes_pkey;
      insert into notes select n.* from notes n, generate_series(1, 2) where tenant_id = 'doubled'`);
    const line = await different("doubled", "public.notes");
    expect(line).toMatchObject({ sourceRows: 1, targetRows: 3 });
    expect(line?.targetSum).not.toBe(line?.sourceSum);
    await harm(`delete from notes where tenant_id = 'doubled';
      alter table notes add primary key (tenant_id, id)`);
  });

  it("shows one changed value, of as many rows", async () => {
    await harm(
      "update events set body = '{\"n\": 2}' where tenant_id = 'changed' and body is not null",
    );
    const line = await different("changed", "public.events");
    expect(line).toMatchObject({ sourceRows: 2, targetRows: 2 });
    expect(line?.targetSum).not.toBe(line?.sourceSum);
  });

  it("tells an empty text from none at all", async () => {
    await cells.a.app.query(
      "insert into events (tenant_id, day, body) values ('changed', '2026-07-01', null)",
    );
    await verify.compareBefore(only("changed"), signal);
    await harm(
      "update events set body = '\"\"' where tenant_id = 'changed' and day = '2026-07-01'",
    );
    const line = await different("changed", "public.events");
    expect(line?.targetSum).not.toBe(line?.sourceSum);
  });

  it("shows values that two rows have exchanged", async () => {
    await cells.write(cells.a.app, "swapped", 2);
    await verify.compareBefore(only("swapped"), signal);
    await harm("update orders set quantity = 3 - quantity where tenant_id = 'swapped'");
    const line = await different("swapped", "public.orders");
    expect(line).toMatchObject({ sourceRows: 2, targetRows: 2 });
    expect(line?.targetSum).not.toBe(line?.sourceSum);
  });

  it("shows rows that lost what they refer to", async () => {
    await harm("delete from orders where tenant_id = 'orphan'");
    const verification = await verify.compareBefore(only("orphan"), signal);
    expect(verification.equal).toBe(false);
    expect(lineOf(verification, "public.lines without its public.orders")).toMatchObject([
      { sourceRows: 0, targetRows: 2 },
    ]);
  });

  it("is not what a refusal of PostgreSQL is: that has a code, and names the cell", async () => {
    const { admin } = cells.b;
    await admin.query(
      "alter table notes owner to postgres; revoke all on notes from cellfleet_owner",
    );
    const comparison = verify.compareBefore(only("acme"), signal);
    await expect(comparison).rejects.toMatchObject({
      code: "DATABASE_UNFIT",
      message: expect.stringContaining("cell-b refused (42501)"),
    });
    await admin.query(
      "alter table notes owner to shop_owner; grant select, delete on notes to cellfleet_owner",
    );
  });

  it("shows a column of another type, and a table that is not there, without failing", async () => {
    await cells.b.admin.query("alter table notes alter column body type varchar(99)");
    const line = await different("typed", "public.notes");
    expect(line).toMatchObject({ sourceRows: 1, targetRows: 1 });
    await cells.b.admin.query("alter table notes alter column body type text");
    await cells.b.admin.query("alter table notes rename to notes_away");
    expect(await different("typed", "public.notes")).toMatchObject({
      targetRows: 0,
      targetSum: "no such table",
    });
    await cells.b.admin.query("alter table notes_away rename to notes");
    expect(await verify.compareBefore(only("typed"), signal)).toMatchObject({ equal: true });
  });

  it("is none where only the order of columns and the ways of writing values differ", async () => {
    const { b } = cells;
    await b.admin.query(
      "alter database \"cell-b\" set datestyle = 'SQL, DMY'; alter database \"cell-b\" set timezone = 'Asia/Tokyo'",
    );
    await harm(`alter table notes rename column body to body_old;
      alter table notes add column body text;
      update notes set body = body_old;
      alter table notes alter column body set not null;
      alter table notes drop column body_old`);
    expect(await verify.compareBefore(only("acme"), signal)).toMatchObject({ equal: true });
  });
});

describe("after the switch", () => {
  it("compares what `drain` has kept, whatever was written since", async () => {
    const { a, b } = cells;
    const own = only("acme");
    const open = async (store: typeof a) => {
      const session = await openStoreSession(cells.login(store), "test");
      await session.query("begin isolation level repeatable read read only; select 1");
      return session;
    };
    await frozen.keep(own.op, [{ store: "main", source: await open(a), target: await open(b) }]);
    await harm("update notes set body = 'later' where tenant_id = 'acme'");
    const verification = await verify.compareAfter(own, signal);
    expect(verification).toMatchObject({ phase: "after-switch", equal: true });
    expect(frozen.take(own.op)).toBeUndefined();
  });

  it("takes a point of the way back where that is gone, and sees what differs there", async () => {
    const { a, b } = cells;
    const own = cells.task({ tenants: ["returns"], number: 2 });
    await b.admin.query("alter subscription mv disable");
    await cells.own(a, "default/tenant/returns", "moved", 1);
    await cells.own(b, "default/tenant/returns", "active", 2);
    await link({ from: b, to: a, server: cells.serverOf(a), name: "rv", op: own.op });
    await cells.write(b.app, "returns");
    const verification = await verify.compareAfter(own, signal);
    expect(verification).toMatchObject({ phase: "after-switch", equal: true });
    expect(lineOf(verification, "public.orders")).toMatchObject([{ sourceRows: 1, targetRows: 1 }]);
    await a.admin.query(
      "set session_replication_role = replica; update notes set body = 'x' where tenant_id = 'returns'; reset session_replication_role",
    );
    expect(await verify.compareAfter(own, signal)).toMatchObject({ equal: false });
  });
});
