/** A step is entered by whoever leads and saw the last version, or not at all. */
import { eq, sql } from "drizzle-orm";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { agentSyncRequestSchema } from "../../../contract/cell-protocol.ts";
import { cellIdSchema } from "../../../contract/ids.ts";
import { moveOptionsSchema, movePlanSchema } from "../../../contract/move-api.ts";
import { must } from "../../../runtime/assert.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { newOpId, systemRandom } from "../../../runtime/random.ts";
import { startTestPostgres, type TestPostgres } from "../../../tests/postgres.ts";
import { openCell } from "../../control.fixture.ts";
import type { MoveView } from "../../core/move/move-view.ts";
import { type Database, openDatabase, prepareDatabase } from "../database.ts";
import { takeSeat } from "../leader.ts";
import { readChanges } from "../ownership-feed.ts";
import { settleRefusals } from "../refusals.ts";
import { cell, placement } from "../schema.ts";
import { moveKey } from "../schema-moves.ts";
import { disowned } from "../schema-recovery.ts";
import { askMove, insertMove } from "./ask.ts";
import { enterStep } from "./enter.ts";
import { requireAtRest } from "./motion.ts";
import { findMove, requireView, toMove } from "./read.ts";
import { commitKeys, holdKeys, releaseToSource, releaseToTarget } from "./switch.ts";

let postgres: TestPostgres;
let database: Database;
let term: number;
let number = 0;

beforeAll(async () => {
  postgres = await startTestPostgres();
  const url = await postgres.createDatabase("moves");
  database = openDatabase({ url, onConnectionError: () => {} });
  await prepareDatabase(database, systemRandom);
  for (const id of ["cell-01", "cell-02"]) await openCell(database, id);
});
afterAll(async () => {
  await database?.close();
  await postgres?.stop();
});
beforeEach(async () => {
  term = must(await takeSeat(database, "test", -1000), "term");
});

const see = async (id: string): Promise<MoveView> =>
  requireView(await findMove(database.read, id), id);
const placed = async (key: string) => {
  const rows = await database.read.select().from(placement);
  const row = must(
    rows.find((one) => one.key === key),
    key,
  );
  return `${row.cell} ${row.epoch} ${row.state}`;
};

async function begin(): Promise<{ readonly view: MoveView; readonly key: string }> {
  number += 1;
  const value = `tenant-${number}`;
  const key = `default/tenant/${value}`;
  const [source, target] = ["cell-01", "cell-02"];
  await database.read.insert(placement).values({
    ...{ key, keyspace: "default", kind: "tenant", value, cell: source, epoch: 1 },
    ...{ state: "active", revision: 0, op: "op_0createdkey" },
  });
  const nowMs = systemClock.nowMs();
  const id = newOpId(systemRandom, nowMs);
  const plan = movePlanSchema.parse({
    ...{ keyspace: "default", keys: [key], source, target, stores: ["main"], tables: [] },
    ...{ checks: [], estimate: { rows: 0, bytes: 0, copyMs: 0, pauseMs: 0 }, steps: [] },
  });
  await database.transaction((tx) =>
    insertMove(tx, {
      ...{ plan, options: moveOptionsSchema.parse({}), reverses: null },
      keys: [{ key, epoch: 1 }],
      op: {
        ...{ id, object: value, headline: "waits", nowMs, actor: "test", reason: "" },
        plan: { kind: "tenant.move", steps: [], skipped: [] },
        input: { source, target, room: { tenants: 1, bytes: 0, rps: 0 } },
      },
    }),
  );
  return { view: await see(id), key };
}

const hold = (seen: MoveView, inTerm = term) =>
  enterStep(database, inTerm, seen, {
    ...({ step: "holding", state: "running", headline: "held" } as const),
    within: async (tx) => ({ holdRevision: await holdKeys(tx, seen) }),
  });
const commit = (seen: MoveView) =>
  enterStep(database, term, seen, {
    ...({ step: "activating", state: "running", headline: "committed" } as const),
    within: async (tx, attempt) => {
      await commitKeys(tx, seen, attempt);
      return {};
    },
  });

test("who leads no longer changes nothing", async () => {
  const { view, key } = await begin();
  const former = term;
  term = must(await takeSeat(database, "next", 60_000), "next term");
  expect(await hold(view, former)).toBe("deposed");
  expect(await placed(key)).toBe("cell-01 1 active");
  expect(await hold(view)).toBe("entered");
  await database.read.execute(sql`update cellfleet_control.leader set expires_at = '-infinity'`);
});

test("of two who saw the same version one enters the step; the other's effect is undone with it", async () => {
  const { view, key } = await begin();
  const outcomes = await Promise.all([hold(view), hold(view)]);
  expect(outcomes.toSorted()).toEqual(["entered", "raced"]);
  expect(await placed(key)).toBe("cell-01 1 hold");
});

test("the keys change hands once, on hold, and are released when the target has taken over", async () => {
  const { view, key } = await begin();
  expect(await commit(view)).toBe("raced");
  await hold(view);
  const held = await see(view.id);
  expect(held.holdRevision).toBeGreaterThan(0);
  expect(await commit(held)).toBe("entered");
  expect(await placed(key)).toBe("cell-02 2 hold");
  const committed = await see(view.id);
  expect(await commit(committed)).toBe("raced");
  await database.transaction((tx) => releaseToTarget(tx, committed));
  expect(await placed(key)).toBe("cell-02 2 active");
  const told = await readChanges(database.read, "cell-01", 0);
  expect(told.changes.find((one) => one.key === key)).toMatchObject({ state: "moved", epoch: 1 });
  const used = await database.read.select().from(cell).orderBy(cell.id);
  expect(used.map(({ usedTenants }) => usedTenants)).toEqual([0, 0]);
});

test("a cancellation that was asked for until the commit is heard", async () => {
  const { view, key } = await begin();
  await hold(view);
  await database.transaction((tx) => askMove(tx, view.id, { wish: "cancel" }));
  const seen = await see(view.id);
  expect(await commit(seen)).toBe("raced");
  await database.transaction((tx) => releaseToSource(tx, seen));
  expect(await placed(key)).toBe("cell-01 1 active");
});

test("a cell is not told of a key by its feed while the key is in the middle of a switch", async () => {
  const { view, key } = await begin();
  await hold(view);
  const { changes } = await readChanges(database.read, "cell-01", 0);
  expect(changes.some((one) => one.key === key)).toBe(false);
});

test("while the fleet recovers no step is entered", async () => {
  const { view } = await begin();
  await database.read.execute(sql`update cellfleet_control.fleet set mode = 'recovering'`);
  expect(await hold(view)).toBe("raced");
  await database.read.execute(sql`update cellfleet_control.fleet set mode = 'normal'`);
});

test("a key in motion is said to be so, with the move and a command", async () => {
  const { view, key } = await begin();
  await expect(requireAtRest(database.read, [key])).rejects.toMatchObject({
    code: "KEY_IN_MOTION",
    details: { move: view.id },
    nextSteps: expect.arrayContaining([`cellctl move cancel ${view.id}`]),
  });
  const wire = toMove(must(await findMove(database.read, view.id), "move"));
  expect(wire).toMatchObject({ id: view.id, step: "planned", keys: [key], asked: null });
});

test("what the executor of a move has told its target is no sign of a restore, and what nobody told is", async () => {
  const { view, key } = await begin();
  // An earlier move took it away from there.
  await database.read.insert(disowned).values({
    ...{
      cell: "cell-02",
      key,
      state: "moved",
      epoch: 0,
      op: "op_0earlier",
      attempt: 1,
      revision: 0,
    },
  });
  const told = (epoch: number) =>
    agentSyncRequestSchema.shape.refused.parse([{ key, state: "importing", epoch }]);
  const settle = (epoch: number) =>
    settleRefusals(database, { cell: cellIdSchema.parse("cell-02"), refused: told(epoch) });
  expect(await settle(2)).toBeUndefined();
  expect(await settle(3)).toMatchObject({ key, epoch: 3 });
  await database.read.update(moveKey).set({ open: false }).where(eq(moveKey.op, view.id));
  expect(await settle(2)).toMatchObject({ key, epoch: 2 });
});
