/**
 * A cell is failed over with keys that no partner has a copy of, and returns: a person lets them go on from
 * its copy, and they move into a whole cell, with everything that they had. Real databases, real moves.
 */
import { eq } from "drizzle-orm";
import { afterAll, beforeAll, expect, test } from "vitest";
import { readFacts } from "../../../cell/store/facts.ts";
import { must } from "../../../runtime/assert.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { newOpId, systemRandom } from "../../../runtime/random.ts";
import { eventually } from "../../control.fixture.ts";
import { countOwned, countStranded, goOnFromCopy } from "../../store/failover/stranded.ts";
import { shownOwner } from "../../store/failover/view.ts";
import { insertOp } from "../../store/ops.ts";
import { activateApplied, readChanges } from "../../store/ownership-feed.ts";
import { setLever } from "../../store/safety.ts";
import { cell, op } from "../../store/schema.ts";
import { move } from "../../store/schema-moves.ts";
import { failover, failoverKey } from "../../store/schema-standby.ts";
import { markPlacement } from "../../store/tenant-end.ts";
import { type Executor, type MovingFixture, startMovingFixture } from "../moving/moving.fixture.ts";
import { bringOut } from "./gone-on-from.ts";

let fixture: MovingFixture;
let executor: Executor;
beforeAll(async () => {
  fixture = await startMovingFixture();
  executor = await fixture.lead();
});
afterAll(async () => {
  await executor?.close();
  await fixture?.close();
});

const keyOf = (tenant: string) => `default/tenant/${tenant}`;
const freshId = () => newOpId(systemRandom, systemClock.nowMs());

/** As the agent of the returned cell does, which is granted no lease: it obeys what is said of its keys. */
async function obey(): Promise<void> {
  const { database, cells } = fixture;
  const [row] = await database.read.select().from(cell).where(eq(cell.id, "cell-a"));
  const page = await readChanges(database.read, "cell-a", row?.appliedRevision ?? 0);
  await cells.a.agent.query("select cellfleet.apply_ownership($1, $2, 5000)", [
    JSON.stringify(page.changes),
    page.revision,
  ]);
  await database.read
    .update(cell)
    .set({ appliedRevision: page.revision })
    .where(eq(cell.id, "cell-a"));
  await activateApplied(database, "cell-a", page.revision, []);
}

const ownedInA = async (tenant: string) => {
  const { rows } = await fixture.cells.a.admin.query<{ state: string }>(
    "select state from cellfleet.ownership where key = $1",
    [keyOf(tenant)],
  );
  return rows[0]?.state;
};

/** Failed over, and nobody had a copy of these; it has returned, without a lease. */
async function failedOver(tenants: readonly string[]): Promise<string> {
  const { database, cells } = fixture;
  const id = freshId();
  const { grant } = await readFacts(cells.a.agent);
  await cells.a.agent.query("select cellfleet.expire_lease($1)", [grant]);
  await database.read
    .update(cell)
    .set({ state: "quarantined", goal: "quarantined", revoking: true, halted: true })
    .where(eq(cell.id, "cell-a"));
  await database.transaction(async (tx) => {
    await insertOp(tx, {
      ...{ id, kind: "cell.failover", object: "cell-a", step: "reprotecting", state: "running" },
      ...{ headline: "", input: {}, actor: "test", reason: "", revision: null },
      plan: { kind: "cell.failover", steps: [], skipped: [] },
      ...{ nowMs: systemClock.nowMs(), deadlineMs: undefined },
    });
    await tx.insert(failover).values({
      ...{ op: id, cell: "cell-a", region: "local", mode: "unplanned", startedBy: "test" },
      ...{ plan: {}, revokedAt: new Date(), fencedAt: new Date() },
    });
    for (const tenant of tenants) {
      const key = keyOf(tenant);
      await markPlacement(tx, key, "unavailable", id);
      const fate = { failover: id, key, fate: "unavailable" as const, wave: 0, epoch: 1 };
      await tx.insert(failoverKey).values({ ...fate, reason: "nobody has a standby of it" });
    }
  });
  return id;
}

test("keys whose only copy a returned cell has go on from there, in a whole cell, when a person says so", async () => {
  const { cells, database } = fixture;
  const tenant = await fixture.createTenant();
  const rows = await cells.rowsOf(cells.a, tenant);
  const id = await failedOver([tenant]);
  const placed = () => fixture.placed(tenant);
  await obey();
  expect([await placed(), await ownedInA(tenant)]).toEqual(["cell-a 1 unavailable", "fenced"]);
  const located = () =>
    shownOwner(database.read, { key: keyOf(tenant), cell: "cell-a", state: "unavailable" });
  expect((await located()).unserved).toEqual({
    reason: `unavailable since the failover ${id} of cell-a: nobody has a standby of it`,
    next_steps: ["cellctl cell salvage cell-a adopt", `cellctl failover report ${id}`],
  });
  const world = { database, clock: systemClock, random: systemRandom };
  // By itself nothing of it moves.
  expect(await bringOut(world, executor.term)).toBe(false);
  expect(await countStranded(database.read, "cell-a")).toBe(1);
  await database.transaction((tx) => goOnFromCopy(tx, "cell-a", freshId()));
  // Nor before the cell's own database says that it is its own again.
  expect(await bringOut(world, executor.term)).toBe(false);
  await obey();
  expect([await placed(), await ownedInA(tenant)]).toEqual(["cell-a 1 active", "active"]);
  await expect(cells.write(cells.a.app, tenant)).rejects.toThrow(/lease/i);
  // No lever stops it: it is a repair.
  const lever = { engaged: true, by: "ada", reason: "month end" };
  await database.transaction((tx) => setLever(tx, lever));
  expect(await bringOut(world, executor.term)).toBe(true);
  executor.moving.wake();
  const [first] = await database.read.select().from(move).where(eq(move.source, "cell-a"));
  expect(await fixture.untilOver(must(first, "move").op)).toMatchObject({ step: "done" });
  await database.transaction((tx) => setLever(tx, { ...lever, engaged: false }));
  expect(await placed()).toBe("cell-b 2 active");
  expect(await cells.rowsOf(cells.b, tenant)).toEqual(rows);
  expect(await cells.countOf(cells.a, tenant)).toBe(0);
  await cells.write(cells.b.app, tenant);
  expect(await bringOut(world, executor.term)).toBe(false);
  expect(await countOwned(database.read, "cell-a")).toBe(0);
  expect(await fixture.leftovers()).toEqual([]);
});

test("a failover that goes on over the same cell comes first: nothing is moved beneath it", async () => {
  const { cells, database } = fixture;
  await cells.a.grantLease();
  const tenant = await fixture.createTenant();
  const id = await failedOver([tenant]);
  await database.transaction((tx) => goOnFromCopy(tx, "cell-a", freshId()));
  await obey();
  await database.read.update(op).set({ step: "adopting" }).where(eq(op.id, id));
  const world = { database, clock: systemClock, random: systemRandom };
  expect(await bringOut(world, executor.term)).toBe(false);
  await database.read.update(op).set({ step: "done", state: "done" }).where(eq(op.id, id));
  expect(await bringOut(world, executor.term)).toBe(true);
  executor.moving.wake();
  await eventually(
    () => fixture.placed(tenant),
    (placed) => placed === "cell-b 2 active",
  );
});
