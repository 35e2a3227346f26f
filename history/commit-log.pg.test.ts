/**
 * Two cells on a real PostgreSQL, a tenant that changes its owner under writers, and the checker over both
 * commit logs: green with the guard, red when the guard is taken away.
 */
import type pg from "pg";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { systemClock } from "../runtime/clock.ts";
import { type CellStore, createCellStore } from "../tests/cell-store.ts";
import { startTestPostgres, type TestPostgres } from "../tests/postgres.ts";
import { checkHistory } from "./check.ts";
import { installCommitLog, readCommitLog } from "./commit-log.ts";
import type { Entry } from "./model.ts";
import { createRecorder, type Recorder } from "./recorder.ts";

const key = "default/tenant/acme";
const orders = {
  schema: "public",
  table: "orders",
  keyspace: "default",
  keyColumn: "tenant_id",
  valueColumn: "item",
};

let server: TestPostgres;
let cellA: CellStore;
let cellB: CellStore;
let entries: Entry[];
let recorder: Recorder;
let run = 0;

beforeAll(async () => {
  server = await startTestPostgres();
});
afterAll(() => server.stop());

beforeEach(async () => {
  run += 1;
  cellA = await createCellStore(server, `cell_a${run}`);
  cellB = await createCellStore(server, `cell_b${run}`);
  for (const cell of [cellA, cellB]) {
    await installCommitLog(cell.admin, orders);
    await cell.grantLease();
  }
  // A control plane would have leased the two cells different ids.
  await cellB.agent.query(
    "select cellfleet.add_id_range('public.orders_id_seq', 2000001, 3000000)",
  );
  await cellB.admin.query("delete from cellfleet.id_range where lo = 1");
  await cellA.own(key, "active", 1);
  entries = [];
  recorder = createRecorder({
    clock: systemClock,
    run: `run-${run}`,
    write: (entry) => entries.push(entry),
  });
});
afterEach(async () => {
  await cellA.close();
  await cellB.close();
});

/** Writes as long as the cell lets it, as an application on a stale route would; returns how often it did. */
async function writer(cell: CellStore, epoch: number, process: string, most: number) {
  const client = await cell.connect();
  for (let n = 0; n < most; n += 1) {
    const value = `${process}/${n}`;
    const recorded = recorder.invoke({ process, tenant: "acme", value });
    const ref = await insert(client, value);
    if (ref === undefined) {
      recorded.fail("refused by the database");
      return n;
    }
    recorded.ok({ cell: cell.name, epoch, ref });
  }
  return most;
}

async function insert(client: pg.Client, value: string): Promise<string | undefined> {
  try {
    const { rows } = await client.query(
      "insert into orders (tenant_id, item, quantity) values ('acme', $1, 1) returning id::text",
      [value],
    );
    return String(rows[0].id);
  } catch {
    return undefined; // A refusal: nothing was written, and the checker holds PostgreSQL to that.
  }
}

/** Fence, copy, activate: what a move does, without its finesse. */
async function move(): Promise<void> {
  await cellA.own(key, "fenced", 1);
  const { rows } = await cellA.admin.query("select id, item from orders");
  await cellB.own(key, "active", 2);
  for (const row of rows) {
    await cellB.admin.query("alter table orders disable trigger user");
    await cellB.admin.query(
      "insert into orders (id, tenant_id, item, quantity) values ($1, 'acme', $2, 1)",
      [row.id, row.item],
    );
    await cellB.admin.query("alter table orders enable trigger user");
  }
  await cellA.own(key, "moved", 1);
}

async function judge() {
  for (const [cell, epoch, revision] of [
    [cellA.name, 1, 1],
    [cellB.name, 2, 2],
  ] as const) {
    recorder.note({ kind: "owner", tenant: "acme", cell, epoch, revision });
  }
  for (const cell of [cellA, cellB]) {
    for (const entry of await readCommitLog(cell.admin, cell.name)) recorder.note(entry);
  }
  const { rows } = await cellB.admin.query("select id::text, item from orders");
  for (const { id, item } of rows) {
    recorder.note({ kind: "present", tenant: "acme", value: item, cell: cellB.name, ref: id });
  }
  recorder.note({ kind: "read", tenant: "acme" });
  return checkHistory(entries);
}

describe("commit logs of two cells", () => {
  test("hold what was committed, under its epoch, and nothing that was rolled back", async () => {
    await insert(cellA.app, "kept");
    await cellA.app.query("begin");
    await insert(cellA.app, "rolled back");
    await cellA.app.query("rollback");
    expect(await readCommitLog(cellA.admin, cellA.name)).toEqual([
      {
        kind: "commit",
        cell: cellA.name,
        tenant: "acme",
        epoch: 1,
        value: "kept",
        txid: expect.stringMatching(/^\d+$/),
        committedAt: expect.stringMatching(/^20\d\d-/),
      },
    ]);
  });

  test("judge a move under writers green: the guard stops the old cell in time", async () => {
    const before = [writer(cellA, 1, "a1", 10_000), writer(cellA, 1, "a2", 10_000)];
    while (entries.length < 100) await systemClock.sleep(1);
    await move();
    for (const written of await Promise.all(before)) expect(written).toBeLessThan(10_000);
    expect(await writer(cellB, 2, "b1", 50)).toBe(50);
    const verdict = await judge();
    expect(verdict.violations).toEqual([]);
    expect(verdict.counts.commits).toBe(verdict.counts.acknowledged);
  });

  test("judge the same move red when the old cell has no guard", async () => {
    await cellA.admin.query("alter table orders disable trigger zz_cellfleet_guard");
    // The policy would refuse as well: RETURNING reads the row, and it is not visible any more.
    await cellA.admin.query("alter table orders disable row level security");
    expect(await writer(cellA, 1, "a1", 20)).toBe(20);
    await move();
    expect(await writer(cellB, 2, "b1", 5)).toBe(5);
    expect(await writer(cellA, 1, "a2", 5)).toBe(5);
    const verdict = await judge();
    expect(new Set(verdict.violations.map(({ kind }) => kind))).toEqual(
      new Set(["ack-order", "lost"]),
    );
    expect(verdict.violations.filter(({ kind }) => kind === "lost")).toHaveLength(5);
  });

  test("judge two cells that were both made owners red", async () => {
    await cellB.own(key, "active", 1);
    await writer(cellA, 1, "a1", 5);
    await writer(cellB, 1, "b1", 5);
    const verdict = await judge();
    expect(new Set(verdict.violations.map(({ kind }) => kind))).toEqual(
      new Set(["lost", "not-the-owner", "two-writers"]),
    );
  });
});
