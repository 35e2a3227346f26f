/** Recovery step by step, with recorded calls of cells: who is waited for, and who may end the wait. */
import { sql } from "drizzle-orm";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { recoverySchema } from "../../contract/recovery-api.ts";
import { systemClock } from "../../runtime/clock.ts";
import type { Loop } from "../../runtime/loop.ts";
import { systemRandom } from "../../runtime/random.ts";
import { startTestPostgres, type TestPostgres } from "../../tests/postgres.ts";
import { recoveryEndpoints } from "../api/recovery.ts";
import {
  type ControlFixture,
  callRouter,
  eventually,
  openCell,
  startControl,
} from "../control.fixture.ts";
import { insertPending } from "../store/placements.ts";
import { fenceLosers } from "../store/recovery-steps.ts";
import { changeRouting } from "../store/routing-change.ts";
import { isSpent, readReceipt } from "../store/tenant-end.ts";
import { type Entry, entry, RecordedCell } from "./recovery.fixture.ts";
import { checkIncarnation, type RecoveryOptions, recoveryTurn, startRecovery } from "./recovery.ts";

let postgres: TestPostgres;
let control: ControlFixture;
let loop: Loop | undefined;
let databaseNumber = 0;
let url: string;

beforeAll(async () => {
  postgres = await startTestPostgres();
});
afterAll(async () => {
  await postgres?.stop();
});
beforeEach(async () => {
  databaseNumber += 1;
  url = await postgres.createDatabase(`recovery${databaseNumber}`);
  control = await startControl(url, (context) => recoveryEndpoints(context));
  for (const id of ["cell-01", "cell-02", "cell-03"]) await openCell(control.database, id);
});
afterEach(async () => {
  await loop?.close();
  loop = undefined;
  await control?.close();
});

const options = (leaseTtlMs = 1_200_000): RecoveryOptions => ({
  database: control.database,
  clock: systemClock,
  random: systemRandom,
  leaseTtlMs,
  onError: (error) => control.troubles.push(error),
});

type Row = {
  readonly key: string;
  readonly cell: string;
  readonly epoch: number;
  readonly state: string;
  readonly deleted: boolean;
};

async function placements(): Promise<Record<string, Omit<Row, "key">>> {
  const { rows } = await control.database.read.execute<Row>(sql`
    select value as key, cell, epoch::int as epoch, state, deleted
      from cellfleet_control.placement order by value`);
  return Object.fromEntries(rows.map(({ key, ...row }) => [key, row]));
}

/** As the restored backup has them. */
async function place(tenant: string, cell: string): Promise<void> {
  const key = `default/tenant/${tenant}`;
  await control.database.transaction(async (tx) => {
    const revision = await changeRouting(tx, { config: false });
    const row = { key, keyspace: "default", kind: "tenant" as const, value: tenant, cell };
    await insertPending(tx, [{ ...row, op: "op_0000000001", revision, epochMin: 1 }]);
    await tx.execute(
      sql`update cellfleet_control.placement set state = 'active' where key = ${key}`,
    );
    await tx.execute(sql`
      insert into cellfleet_control.tenant (id, keyspace, tier, size_bytes, size_rps, labels, placement_key)
      values (${tenant}, 'default', 'standard', 0, 0, '{}', ${key})`);
  });
}

const newCell = async (id: string, entries: readonly Entry[], applied = 1000) =>
  new RecordedCell(id, await control.client("agent", id), entries, applied);

async function mode(): Promise<string> {
  const { rows } = await control.database.read.execute<{ mode: string; step: string }>(
    sql`select mode, recovery_step as step from cellfleet_control.fleet`,
  );
  return `${rows[0]?.mode} ${rows[0]?.step}`;
}
const untilMode = (wanted: string) => eventually(mode, (now) => now === wanted);

test("losers are fenced first, and no lease is granted before they said so", async () => {
  await place("moved", "cell-01");
  const one = await newCell("cell-01", [entry("moved", "active", 1)]);
  const two = await newCell("cell-02", [entry("moved", "active", 4)]);
  const three = await newCell("cell-03", []);
  expect((await one.call({ wantLease: true })).report).toBe("ownership");
  expect(await mode()).toBe("recovering collecting");
  for (const cell of [one, two]) expect((await cell.report()).report).toBe("nothing");
  // Whoever thinks that it is time already is told that it is not.
  await fenceLosers(control.database, "op_0000000002", systemClock.nowMs());
  expect(await mode()).toBe("recovering collecting");
  expect((await three.report()).report).toBe("nothing");
  await recoveryTurn(options());
  expect(await mode()).toBe("recovering fencing");
  const refused = await two.call({ wantLease: true });
  expect(refused.lease).toBeUndefined();
  expect(refused.leaseRefused).toContain("RECOVERING");
  // The loser hears of it and fences; only its next call says that it did.
  await one.call();
  expect(one.owns("moved")).toBe(false);
  expect(two.owns("moved")).toBe(true);
  await recoveryTurn(options());
  expect(await mode()).toBe("recovering fencing");
  await one.call();
  await recoveryTurn(options());
  expect(await mode()).toBe("normal none");
  expect(await placements()).toEqual({
    // The losers were told 5; the owner's is above that, too.
    moved: { cell: "cell-02", epoch: 6, state: "pending", deleted: false },
  });
  const leases = [await one.call({ wantLease: true }), await two.call({ wantLease: true })];
  expect(leases.every(({ lease }) => lease !== undefined)).toBe(true);
  await two.call();
  expect((await placements())["moved"]).toMatchObject({ state: "active", epoch: 6 });
});

test("what was made, deleted or lost after the backup comes out as the cells know it", async () => {
  await place("deleted", "cell-01");
  await place("never-arrived", "cell-01");
  await place("kept", "cell-02");
  await place("emigrated", "cell-03");
  const cells = [
    await newCell("cell-01", [entry("deleted", "dropped", 1), entry("made-later", "active", 1)]),
    await newCell("cell-02", [entry("kept", "active", 1), entry("short-lived", "dropped", 2)]),
    await newCell("cell-03", [entry("emigrated", "moved", 2)]),
  ];
  loop = startRecovery(options());
  for (const cell of cells) await cell.call();
  for (const cell of cells) await cell.report();
  for (const cell of cells) await cell.call();
  await untilMode("normal none");
  expect(await placements()).toEqual({
    deleted: { cell: "cell-01", epoch: 3, state: "unavailable", deleted: true },
    emigrated: { cell: "cell-03", epoch: 2, state: "unavailable", deleted: false },
    kept: { cell: "cell-02", epoch: 1, state: "active", deleted: false },
    "made-later": { cell: "cell-01", epoch: 3, state: "pending", deleted: false },
    "never-arrived": { cell: "cell-01", epoch: 3, state: "pending", deleted: false },
  });
  const { rows } = await control.database.read.execute<{ id: string; labels: object }>(
    sql`select id, labels from cellfleet_control.tenant order by id`,
  );
  expect(rows.map(({ id }) => id)).toEqual(["emigrated", "kept", "made-later", "never-arrived"]);
  expect(rows.find(({ id }) => id === "made-later")?.labels).toEqual({ recovered: "true" });
  const { rows: used } = await control.database.read.execute<{ used: number }>(
    sql`select used_tenants::int as used from cellfleet_control.cell order by id`,
  );
  expect(used.map((row) => row.used)).toEqual([2, 1, 1]);
  // Whether the backup knew them or not: their ids are spent, and their receipts say what is known.
  const receipts = await Promise.all(
    ["deleted", "short-lived"].map((id) => readReceipt(control.database.read, id)),
  );
  for (const receipt of receipts) {
    expect(receipt).toMatchObject({ complete: false, completedAt: null, cells: [] });
    expect(receipt?.notes[0]).toContain("its receipt was lost with the backup");
  }
  for (const id of ["emigrated", "kept", "made-later", "never-arrived"]) {
    expect(await isSpent(control.database.read, id)).toBe(false);
  }
});

test("what an operator has suspended or is deleting is not served again because of a restore", async () => {
  await place("refused", "cell-01");
  await place("fresh", "cell-01");
  await place("leaving", "cell-02");
  const set = (tenant: string, state: string) =>
    control.database.read.execute(
      sql`update cellfleet_control.placement set state = ${state} where value = ${tenant}`,
    );
  await set("refused", "suspended");
  await set("fresh", "suspended");
  await set("leaving", "deleting");
  const cells = [
    // One has applied it, the other has not heard of it yet.
    await newCell("cell-01", [entry("refused", "fenced", 1), entry("fresh", "active", 1)]),
    await newCell("cell-02", [entry("leaving", "active", 1)]),
    await newCell("cell-03", []),
  ];
  loop = startRecovery(options());
  for (const cell of cells) await cell.call();
  for (const cell of cells) await cell.report();
  for (const cell of cells) await cell.call();
  await untilMode("normal none");
  expect(await placements()).toMatchObject({
    refused: { cell: "cell-01", state: "suspended" },
    fresh: { cell: "cell-01", state: "suspended" },
    leaving: { cell: "cell-02", state: "deleting", deleted: false },
  });
  for (const cell of cells) await cell.call();
  expect(
    cells.map((cell) => ["refused", "fresh", "leaving"].filter((id) => cell.owns(id))),
  ).toEqual([[], [], []]);
});

test("an admin may go on without a lost cell; its keys stay frozen until it is back", async () => {
  await place("frozen", "cell-03");
  await place("kept", "cell-01");
  const one = await newCell("cell-01", [entry("kept", "active", 1)]);
  const two = await newCell("cell-02", []);
  loop = startRecovery(options());
  for (const cell of [one, two]) await cell.call();
  for (const cell of [one, two]) await cell.report();
  const admin = await control.client("admin");
  const freeze = (body: object) =>
    admin.call({
      method: "POST",
      path: "/v1/recovery/resolve",
      body,
      schema: recoverySchema,
      timeoutMs: 10_000,
    });
  const operator = await control.client("operator");
  await expect(
    operator.call({
      method: "POST",
      path: "/v1/recovery/resolve",
      body: { cell: "cell-03", action: "freeze", reason: "burnt" },
      schema: recoverySchema,
      timeoutMs: 10_000,
    }),
  ).rejects.toMatchObject({ code: "FORBIDDEN" });
  await expect(
    freeze({ cell: "cell-01", action: "freeze", reason: "by mistake" }),
  ).resolves.toBeDefined();
  await freeze({ cell: "cell-03", action: "freeze", reason: "the rack burnt down" });
  await untilMode("normal none");
  expect(await placements()).toMatchObject({
    frozen: { cell: "cell-03", epoch: 1, state: "unavailable" },
    kept: { cell: "cell-01", state: "unavailable" },
  });
  // Both come back, one with a key at an epoch that nobody else has seen.
  const three = await newCell("cell-03", [entry("frozen", "active", 7)]);
  expect((await three.call({ wantLease: true })).lease).toBeUndefined();
  for (const cell of [one, two, three]) await cell.report();
  for (const cell of [one, two, three]) await cell.call();
  await untilMode("normal none");
  for (const cell of [one, two, three]) await cell.call();
  for (const cell of [one, two, three]) await cell.call();
  const now = await placements();
  expect(now["frozen"]).toMatchObject({ cell: "cell-03", state: "active" });
  expect(now["frozen"]?.epoch).toBeGreaterThan(7);
  expect(now["kept"]).toMatchObject({ cell: "cell-01", state: "active" });
});

test("a cell that can hold no lease any more is gone on without", async () => {
  await place("frozen", "cell-03");
  const one = await newCell("cell-01", []);
  const two = await newCell("cell-02", []);
  await one.call();
  for (const cell of [one, two]) await cell.report();
  loop = startRecovery(options(1));
  await untilMode("normal none");
  expect(await placements()).toMatchObject({ frozen: { cell: "cell-03", state: "unavailable" } });
  const { rows } = await control.database.read.execute(
    sql`select state from cellfleet_control.recovery_cell where cell = 'cell-03'`,
  );
  expect(rows).toEqual([{ state: "frozen" }]);
});

test("a router that has seen more is evidence too, and afterwards takes the new table", async () => {
  await place("kept", "cell-01");
  const router = await control.client("router", "router-1");
  const ahead = { revision: 5000, epochMax: 9, checksum: "0".repeat(16) };
  expect((await callRouter(router, "router-1", ahead)).answer.kind).toBe("unchanged");
  expect(await mode()).toBe("recovering collecting");
  const cells = [
    await newCell("cell-01", [entry("kept", "active", 1)]),
    await newCell("cell-02", [entry("stranger", "active", 1)]),
    await newCell("cell-03", []),
  ];
  loop = startRecovery(options());
  for (const cell of cells) await cell.report();
  await untilMode("normal none");
  const answer = await eventually(
    () => callRouter(router, "router-1", ahead),
    ({ revision }) => revision > 5000,
  );
  expect(answer.answer.kind).toBe("snapshot");
  // Its epoch 9 may be of any key: what gets a new epoch gets one above it.
  expect((await placements())["stranger"]?.epoch).toBeGreaterThan(9);
  expect(await mode()).toBe("normal none");
});

test("nonsense is refused, not believed", async () => {
  const router = await control.client("router", "router-1");
  const call = callRouter(router, "router-1", { revision: 2 ** 52 });
  await expect(call).rejects.toMatchObject({ code: "VALIDATION_FAILED" });
  expect(await mode()).toBe("normal none");
});

test("a copy of the database notices by itself that it is one", async () => {
  await checkIncarnation(options());
  expect(await mode()).toBe("normal none");
  await control.close();
  const copy = `recovery${databaseNumber}copy`;
  const admin = await startControl(await postgres.createDatabase(`other${databaseNumber}`));
  await admin.database.pool.query(`create database ${copy} template recovery${databaseNumber}`);
  await admin.close();
  control = await startControl(postgres.url(copy));
  await checkIncarnation(options());
  expect(await mode()).toBe("recovering collecting");
});

test("ids that cells hold are not handed out again after a restore", async () => {
  const cells = [
    await newCell("cell-01", []),
    await newCell("cell-02", []),
    await newCell("cell-03", []),
  ];
  loop = startRecovery(options());
  for (const cell of cells) await cell.call();
  const idRangesHeld = [{ sequence: "public.orders_id_seq", max: 44_000_000 }];
  await cells[0]?.call({ idRangesHeld, ownership: { entries: [], last: true } });
  const early = await cells[1]?.call({
    wantIdRanges: [{ sequence: "public.orders_id_seq", floor: 0 }],
  });
  expect(early?.idRanges).toEqual([]);
  for (const cell of cells.slice(1)) await cell.report();
  await untilMode("normal none");
  const late = await cells[1]?.call({
    wantIdRanges: [{ sequence: "public.orders_id_seq", floor: 0 }],
  });
  expect(late?.idRanges[0]?.lo).toBeGreaterThan(44_000_000);
});
