/** The audit log against a real server: append-only, and every way of tampering shows. */
import pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { systemRandom } from "../../runtime/random.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import { recordAudit, verifyAudit } from "./audit.ts";
import { entryHash } from "./audit-chain.ts";
import { type Database, openDatabase, prepareDatabase } from "./database.ts";
import { changeRouting } from "./routing-change.ts";

let postgres: TestPostgres;
let database: Database;
let db: pg.Client;

beforeAll(async () => {
  postgres = await startTestPostgres();
  const url = await postgres.createDatabase("audit");
  database = openDatabase({ url, onConnectionError: () => undefined });
  await prepareDatabase(database, systemRandom);
  db = new pg.Client({ connectionString: url });
  await db.connect();
});
/** Behind the trigger's back, as only the owner of the database can: an empty log, and 20 entries. */
beforeEach(async () => {
  await db.query(`
    alter table cellfleet_control.audit disable trigger all;
    delete from cellfleet_control.audit;
    alter table cellfleet_control.audit enable trigger all;
    update cellfleet_control.fleet set audit_entries = 0, audit_head = '';`);
  await Promise.all(Array.from({ length: 20 }, (_, index) => write(`tenant-${index}`)));
});
afterAll(async () => {
  await db?.end();
  await database?.close();
  await postgres?.stop();
});

const write = (object: string, after: unknown = { cell: "cell-01", weird: [1.5, -0, "é\\\"'"] }) =>
  database.transaction((tx) =>
    recordAudit(
      tx,
      {
        actor: { name: "ann", role: "operator" },
        action: "tenant.create",
        object,
        reason: "",
        outcome: "accepted",
        after,
      },
      1_700_000_000_000,
    ),
  );

test("twenty writers at once: no gap, no fork, and the chain holds", async () => {
  expect(await verifyAudit(database)).toMatchObject({ ok: true, entries: 20, brokenAt: null });
});

test("a chain longer than a page is walked to its end", async () => {
  const { rows } = await db.query("select audit_head as head from cellfleet_control.fleet");
  let prev: string = rows[0].head;
  const more = Array.from({ length: 1100 }, (_, index) => {
    const body = {
      ...{ id: index + 21, actor: "ann", role: "operator", action: "bulk", object: `${index}` },
      ...{ reason: "", outcome: "accepted", before: null, after: null },
      atMs: 1_700_000_000_000 + index,
    };
    const link = prev;
    prev = entryHash(link, body);
    return { ...body, at: new Date(body.atMs).toISOString(), prev: link, hash: prev };
  });
  await db.query(
    "insert into cellfleet_control.audit select * from jsonb_populate_recordset(null::cellfleet_control.audit, $1)",
    [JSON.stringify(more)],
  );
  await db.query("update cellfleet_control.fleet set audit_entries = 1120, audit_head = $1", [
    prev,
  ]);
  expect(await verifyAudit(database)).toMatchObject({ ok: true, entries: 1120, head: prev });
});

test("the entry is rolled back with its effect, and leaves no gap", async () => {
  const failing = database.transaction(async (tx) => {
    await recordAudit(
      tx,
      {
        actor: { name: "ann", role: "operator" },
        action: "tenant.create",
        object: "lost",
        reason: "",
        outcome: "accepted",
      },
      0,
    );
    throw new Error("the effect failed");
  });
  await expect(failing).rejects.toThrow("the effect failed");
  await write("next");
  expect(await verifyAudit(database)).toMatchObject({ ok: true, entries: 21 });
});

describe("PostgreSQL refuses", () => {
  test.each([
    "update cellfleet_control.audit set reason = 'x' where id = 3",
    "delete from cellfleet_control.audit where id = 20",
    "truncate cellfleet_control.audit",
  ])("%s", async (statement) => {
    await expect(db.query(statement)).rejects.toMatchObject({ code: "23001" });
  });

  test("a revision or an epoch that falls, and an owner that changes without a new epoch", async () => {
    await database.transaction((tx) => changeRouting(tx, { config: false }));
    await expect(db.query("update cellfleet_control.fleet set revision = 0")).rejects.toThrow(
      /may not fall/,
    );
    await db.query(`insert into cellfleet_control.placement
      (key, keyspace, kind, value, cell, epoch, state, revision, op)
      values ('default/tenant/acme', 'default', 'tenant', 'acme', 'cell-01', 5, 'active', 1, 'op')`);
    await expect(db.query("update cellfleet_control.placement set epoch = 4")).rejects.toThrow(
      /may not fall/,
    );
    const move = "update cellfleet_control.placement set cell = 'cell-02'";
    await expect(db.query(move)).rejects.toThrow(/needs a greater epoch/);
    await db.query(`${move}, epoch = 6`);
  });
});

/** Whoever owns the database can drop a trigger; the chain shows what was done behind it. */
describe("tampering behind the trigger is found", () => {
  beforeEach(async () => {
    await db.query("alter table cellfleet_control.audit disable trigger all");
  });
  test.each([
    ["a changed field", "update cellfleet_control.audit set actor = 'bob' where id = 7", 7],
    ["a changed effect", `update cellfleet_control.audit set after = '{}' where id = 7`, 7],
    ["a changed time", "update cellfleet_control.audit set at = now() where id = 7", 7],
    ["a removed entry", "delete from cellfleet_control.audit where id = 7", 8],
    ["a cut tail", "delete from cellfleet_control.audit where id > 15", 16],
    ["the first entry gone", "delete from cellfleet_control.audit where id = 1", 2],
    [
      "an entry that was never written",
      `insert into cellfleet_control.audit select 21, at, actor, role, action, object, reason, outcome,
         before, after, hash, 'deadbeef' from cellfleet_control.audit where id = 20`,
      21,
    ],
    [
      "two entries that changed places",
      `update cellfleet_control.audit set id = case id when 7 then -8 else -7 end where id in (7, 8);
       update cellfleet_control.audit set id = -id where id < 0`,
      7,
    ],
    ["all of it gone", "delete from cellfleet_control.audit", 1],
  ])("%s", async (_name, statement, brokenAt) => {
    await db.query(statement);
    const verdict = await verifyAudit(database);
    expect(verdict.ok).toBe(false);
    expect(verdict.brokenAt).toBe(brokenAt);
    expect(verdict.text).toMatch(/changed|cut/);
  });

  test("a log that was rewritten to its end, hashes and all: its end is not the one that was noted", async () => {
    const { rows } = await db.query("select * from cellfleet_control.audit order by id");
    let prev = "";
    for (const row of rows) {
      const { at, prev: _prev, hash: _hash, ...rest } = row;
      const body = { ...rest, id: Number(row.id), atMs: at.getTime(), reason: "rewritten" };
      const hash = entryHash(prev, body);
      const update =
        "update cellfleet_control.audit set reason = $2, prev = $3, hash = $4 where id = $1";
      await db.query(update, [row.id, body.reason, prev, hash]);
      prev = hash;
    }
    expect(await verifyAudit(database)).toMatchObject({ ok: false, brokenAt: 21 });
  });
});
