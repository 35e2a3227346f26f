/**
 * A cell is failed over around a move and comes back, quarantined: what the move left in it stays, since its log
 * tells what its standbys lack. Other cells are tidied meanwhile, and it is, too, when the quarantine is over.
 */
import { eq } from "drizzle-orm";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openClient } from "../../../tests/cell-store.ts";
import { eventually } from "../../control.fixture.ts";
import { endMovesOfAdopted, settleMovesAfterCommit } from "../../store/failover/motion.ts";
import { cell, placement } from "../../store/schema.ts";
import { moveObject } from "../../store/schema-moves.ts";
import { failoverId } from "../failover/report.fixture.ts";
import { type MovingFixture, startMovingFixture } from "./moving.fixture.ts";

let fixture: MovingFixture;

beforeAll(async () => {
  fixture = await startMovingFixture();
  await fixture.lead();
}, 60_000);

afterAll(() => fixture?.close());

const setState = (id: string, state: "quarantined" | "active") =>
  fixture.database.read.update(cell).set({ state }).where(eq(cell.id, id));

/**
 * Nothing of a move stands in any cell but this one: it was swept there, to the end, since streams that nobody
 * knows are the last thing that goes.
 */
async function sweptBut(id: string): Promise<void> {
  const onlyThere = () =>
    eventually(
      () => fixture.leftovers(),
      (left) => left.every((line) => line.startsWith(`${id}: `)),
    );
  await onlyThere();
  const { a, b } = fixture.cells;
  const client = await openClient((id === a.name ? b : a).moverUrl);
  await client.query("create publication mv_0unknown00000_0");
  await client.end();
  await onlyThere();
}

async function soaking(): Promise<{ readonly tenant: string; readonly id: string }> {
  const tenant = await fixture.createTenant();
  const id = await fixture.begin([tenant], { soakMs: 600_000 });
  await fixture.until(id, ({ step }) => step === "soaking");
  return { tenant, id };
}

test("the rows that a move left in its source stay while that is quarantined, and go when it is over", async () => {
  const { cells, database } = fixture;
  const { tenant, id } = await soaking();
  await database.transaction(async (tx) => {
    await tx.update(cell).set({ state: "quarantined" }).where(eq(cell.id, cells.a.name));
    await settleMovesAfterCommit(tx, { id: failoverId, cell: cells.a.name, attempt: 1 });
  });
  await sweptBut(cells.a.name);
  expect((await fixture.see(id)).step).toBe("done");
  expect(await cells.countOf(cells.a, tenant)).toBeGreaterThan(0);
  expect(await fixture.recorded(id)).toBeGreaterThan(0);
  await setState(cells.a.name, "active");
  await eventually(
    () => fixture.recorded(id),
    (left) => left === 0,
  );
  expect(await fixture.leftovers()).toEqual([]);
  expect(await cells.countOf(cells.a, tenant)).toBe(0);
  expect(await cells.countOf(cells.b, tenant)).toBeGreaterThan(0);
});

test("the rows of a tenant that a standby of the target adopted stay in the target", async () => {
  const { cells, database } = fixture;
  const { tenant, id } = await soaking();
  const key = `default/tenant/${tenant}`;
  await database.transaction(async (tx) => {
    await tx.update(cell).set({ state: "quarantined" }).where(eq(cell.id, cells.b.name));
    await tx
      .update(placement)
      .set({ cell: "sb-cell-b-cell-c", epoch: 3 })
      .where(eq(placement.key, key));
    await endMovesOfAdopted(tx, { cell: cells.b.name });
  });
  // As its agent is told when it is back.
  await cells.own(cells.b, key, "moved", 3);
  await sweptBut(cells.b.name);
  // Nothing else is recorded of it any more, so nobody looks at it again and again.
  await eventually(
    () => database.read.select().from(moveObject).where(eq(moveObject.op, id)),
    (left) => left.length > 0 && left.every((one) => one.cell === cells.b.name),
  );
  expect(await cells.countOf(cells.b, tenant)).toBeGreaterThan(0);
  await setState(cells.b.name, "active");
  await eventually(
    () => fixture.recorded(id),
    (left) => left === 0,
  );
  expect(await cells.countOf(cells.b, tenant)).toBe(0);
});
