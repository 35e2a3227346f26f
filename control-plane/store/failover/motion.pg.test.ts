/** Moves that touch a cell when it is failed over: ended before their commit, finished after it, given back in between. */
import { and, eq, inArray } from "drizzle-orm";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type MoveStep, moveOptionsSchema, movePlanSchema } from "../../../contract/move-api.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { newOpId, systemRandom } from "../../../runtime/random.ts";
import { startTestPostgres, type TestPostgres } from "../../../tests/postgres.ts";
import { openCell } from "../../control.fixture.ts";
import { type Database, openDatabase, prepareDatabase } from "../database.ts";
import { insertMove } from "../moves/ask.ts";
import { takeRoom } from "../moves/room.ts";
import { cell, op, placement, tenant } from "../schema.ts";
import { move, moveKey } from "../schema-moves.ts";
import { disowned } from "../schema-recovery.ts";
import { failoverKey } from "../schema-standby.ts";
import {
  endMovesOfAdopted,
  readMovedIn,
  settleMovesAfterCommit,
  stopMovesBeforeCommit,
} from "./motion.ts";

let postgres: TestPostgres;
let database: Database;
beforeAll(async () => {
  postgres = await startTestPostgres();
  const url = await postgres.createDatabase("control");
  database = openDatabase({ url, onConnectionError: () => {} });
  await prepareDatabase(database, systemRandom);
  for (const id of ["dead", "alive"]) await openCell(database, id);
});
afterAll(async () => {
  await database.close();
  await postgres.stop();
});

const keyOf = (id: string) => `default/tenant/${id}`;
const run = { id: "op_0failover0", cell: "dead", attempt: 2 };

/** A move of one tenant that stands at this step, with its key placed as the step has it. */
async function moveAt(
  name: string,
  step: MoveStep,
  [source, target]: readonly [string, string],
  at: { readonly cell: string; readonly epoch: number; readonly state: "active" | "hold" },
): Promise<string> {
  const nowMs = systemClock.nowMs();
  const id = newOpId(systemRandom, nowMs);
  const key = keyOf(name);
  const options = moveOptionsSchema.parse({});
  const plan = movePlanSchema.parse({
    ...{ keyspace: "default", keys: [key], source, target, stores: ["main"] },
    ...{ tables: [], checks: [], steps: [] },
    estimate: { rows: 0, bytes: 0, copyMs: 0, pauseMs: 0 },
  });
  const room = { tenants: 1, bytes: 0, rps: 0 };
  await database.transaction(async (tx) => {
    await tx.insert(placement).values({
      ...{ key, keyspace: "default", kind: "tenant", value: name, revision: 0, op: id, ...at },
    });
    await tx.insert(tenant).values({
      ...{ id: name, keyspace: "default", tier: "standard", sizeBytes: 0, sizeRps: 0, labels: {} },
      placementKey: key,
    });
    await takeRoom(tx, at.cell, room);
    if (at.cell === source) await takeRoom(tx, target, room);
    await insertMove(tx, {
      ...{ plan, options, reverses: null, keys: [{ key, epoch: 1 }] },
      op: {
        ...{ id, object: name, headline: "moves", nowMs, actor: "test", reason: "" },
        plan: { kind: "tenant.move", steps: [], skipped: [] },
        input: { source, target, room },
      },
    });
    await tx.update(op).set({ step }).where(eq(op.id, id));
  });
  return id;
}

const stepOf = async (id: string) => {
  const [row] = await database.read.select().from(op).where(eq(op.id, id));
  return `${row?.step} ${row?.state}`;
};
const placed = async (name: string) => {
  const [row] = await database.read
    .select()
    .from(placement)
    .where(eq(placement.key, keyOf(name)));
  return `${row?.cell} ${row?.epoch} ${row?.state}`;
};
const isOpen = (id: string) =>
  database.read.$count(moveKey, and(eq(moveKey.op, id), eq(moveKey.open, true)));
const used = async () => {
  const rows = await database.read
    .select()
    .from(cell)
    .where(inArray(cell.id, ["dead", "alive"]))
    .orderBy(cell.id);
  return rows.map(({ usedTenants }) => usedTenants);
};

test("before the commit: out of the dead cell it is over at once, into it it is cancelled in order", async () => {
  const before = await used();
  const out = await moveAt("out", "fencing", ["dead", "alive"], {
    cell: "dead",
    epoch: 1,
    state: "hold",
  });
  const into = await moveAt("into", "copying", ["alive", "dead"], {
    cell: "alive",
    epoch: 1,
    state: "active",
  });
  await database.transaction((tx) => stopMovesBeforeCommit(tx, "dead", "dead is failed over"));
  expect([await stepOf(out), await isOpen(out), await placed("out")]).toEqual([
    "failed failed",
    0,
    "dead 1 active",
  ]);
  expect([await stepOf(into), await placed("into")]).toEqual(["copying running", "alive 1 active"]);
  const [row] = await database.read.select().from(move).where(eq(move.op, into));
  expect(row?.wish).toBe("cancel");
  // The room that the ended move had taken in its target is free again; the other one's is not yet.
  const [alive, dead] = await used();
  expect([alive, dead]).toEqual([(before[0] ?? 0) + 1, (before[1] ?? 0) + 2]);
});

test("after the commit: what the target serves is done; what it never served goes back at the next epoch", async () => {
  const served = await moveAt("served", "soaking", ["dead", "alive"], {
    cell: "alive",
    epoch: 2,
    state: "active",
  });
  const coming = await moveAt("coming", "activating", ["dead", "alive"], {
    cell: "alive",
    epoch: 2,
    state: "hold",
  });
  const given = await moveAt("given", "activating", ["alive", "dead"], {
    cell: "dead",
    epoch: 2,
    state: "hold",
  });
  const soaks = await moveAt("soaks", "soaking", ["alive", "dead"], {
    cell: "dead",
    epoch: 2,
    state: "active",
  });
  const before = await used();
  for (let times = 0; times < 2; times += 1) {
    await database.transaction((tx) => settleMovesAfterCommit(tx, run));
    expect([await stepOf(served), await isOpen(served)]).toEqual(["done done", 0]);
    expect(await stepOf(coming)).toBe("activating running");
    expect([await stepOf(given), await placed("given")]).toEqual([
      "failed failed",
      "alive 3 pending",
    ]);
    expect(await stepOf(soaks)).toBe("soaking running");
  }
  expect(await used()).toEqual([(before[0] ?? 0) + 1, (before[1] ?? 0) - 1]);
  const [fate] = await database.read
    .select()
    .from(failoverKey)
    .where(eq(failoverKey.key, keyOf("given")));
  expect(fate).toMatchObject({ fate: "returned", target: "alive", epoch: 2 });
  const [lost] = await database.read
    .select()
    .from(disowned)
    .where(eq(disowned.key, keyOf("given")));
  expect(lost).toMatchObject({ cell: "dead", state: "moved", epoch: 2 });
  // A key that soaks there may not be whole in its standby: it is told, and its move ends when it is adopted.
  const movedIn = await readMovedIn(database.read, "dead");
  expect([...movedIn.keys()]).toEqual([keyOf("soaks")]);
  expect(movedIn.get(keyOf("soaks"))).toMatchObject({ move: soaks, source: "alive" });
  expect(await database.transaction((tx) => endMovesOfAdopted(tx, run))).toBe(0);
  await database.read
    .update(placement)
    .set({ cell: "sb-dead-alive", epoch: 3 })
    .where(eq(placement.key, keyOf("soaks")));
  expect(await database.transaction((tx) => endMovesOfAdopted(tx, run))).toBe(1);
  expect([await stepOf(soaks), await isOpen(soaks)]).toEqual(["done done", 0]);
});
