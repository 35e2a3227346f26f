/** Moves from end to end over two real cells' databases: there, there and back, several at once. */
import { inArray } from "drizzle-orm";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { must } from "../../../runtime/assert.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { newOpId, systemRandom } from "../../../runtime/random.ts";
import type { CellStore } from "../../../tests/cell-store.ts";
import { storeRoles } from "../../../tests/cell-store.ts";
import { listMoves } from "../../store/moves/read.ts";
import { readChanges } from "../../store/ownership-feed.ts";
import { setLever } from "../../store/safety.ts";
import { move } from "../../store/schema-moves.ts";
import { markPlacement, setKeyState } from "../../store/tenant-end.ts";
import { type Executor, type MovingFixture, startMovingFixture } from "./moving.fixture.ts";

let fixture: MovingFixture;
let executor: Executor;

beforeAll(async () => {
  fixture = await startMovingFixture();
});
afterAll(async () => {
  await fixture?.close();
});
beforeEach(async () => {
  executor = await fixture.lead();
});
afterEach(async () => {
  await executor?.close();
});

test("a tenant moves with all its rows, at the next epoch, and nothing of the move is left", async () => {
  const { cells, placed } = fixture;
  const tenant = await fixture.createTenant();
  const before = await cells.rowsOf(cells.a, tenant);
  const used = await fixture.used();
  const id = await fixture.begin([tenant]);
  const over = await fixture.untilOver(id);
  expect(over).toMatchObject({ step: "done", state: "done", tries: 1, failure: null });
  expect(await placed(tenant)).toBe("cell-b 2 active");
  expect(await cells.rowsOf(cells.b, tenant)).toEqual(before);
  expect(await cells.countOf(cells.a, tenant)).toBe(0);
  expect(over.verifications.map(({ phase, equal }) => [phase, equal])).toEqual([
    ["before-switch", true],
    ["after-switch", true],
  ]);
  expect(over.pause?.total).toBeGreaterThan(0);
  expect(await fixture.leftovers()).toEqual([]);
  expect(await fixture.recorded(id)).toBe(0);
  expect(await fixture.used()).toEqual([Number(used[0]) - 1, Number(used[1]) + 1]);
  expect(executor.metrics.text()).toContain("cellfleet_move_pause_seconds_count 1");
  await cells.write(cells.b.app, tenant);
});

test("a move is taken back with everything that was written since, and that one can soak too", async () => {
  const { cells } = fixture;
  const tenant = await fixture.createTenant();
  const there = await fixture.begin([tenant], { soakMs: 3_600_000 });
  await fixture.until(there, ({ step }) => step === "soaking");
  await cells.write(cells.b.app, tenant, 77);
  const written = await cells.rowsOf(cells.b, tenant);
  const back = await fixture.begin([tenant], { soakMs: 3_600_000 }, there);
  const soaking = await fixture.until(back, ({ step }) => step === "soaking");
  expect(await fixture.placed(tenant)).toBe("cell-a 3 active");
  expect(await cells.rowsOf(cells.a, tenant)).toEqual(written);
  expect(soaking.verifications.every(({ equal }) => equal)).toBe(true);
  expect(await fixture.see(there)).toMatchObject({ step: "done", state: "done" });
  await cells.write(cells.a.app, tenant, 78);
  await fixture.ask(back, { wish: "complete" });
  executor.moving.wake();
  expect(await fixture.untilOver(back)).toMatchObject({ step: "done" });
  expect(await cells.countOf(cells.b, tenant)).toBe(0);
  expect(await fixture.leftovers()).toEqual([]);
  expect([await fixture.recorded(there), await fixture.recorded(back)]).toEqual([0, 0]);
});

test("a way back that breaks in the soak is told, and that it runs again", async () => {
  const { cells } = fixture;
  const tenant = await fixture.createTenant();
  const id = await fixture.begin([tenant], { soakMs: 3_600_000 });
  await fixture.until(id, ({ step }) => step === "soaking");
  const { rows } = await cells.a.admin.query<{ name: string }>(
    "select subname as name from pg_subscription where subname like 'rv%' and subdbid = (select oid from pg_database where datname = current_database())",
  );
  const name = must(rows[0], "the way back").name;
  await cells.a.admin.query(`alter subscription ${name} disable`);
  const broken = await fixture.until(id, ({ headline }) => headline.includes("is broken"));
  expect(broken.headline).toContain("cell-b serves");
  await cells.a.admin.query(`alter subscription ${name} enable`);
  await fixture.until(id, ({ headline }) => headline.includes("can be taken back"));
  await fixture.ask(id, { wish: "complete" });
  expect(await fixture.untilOver(id)).toMatchObject({ step: "done" });
});

test("keys that move together share one switch; others wait for their turn", async () => {
  const together = [await fixture.createTenant(), await fixture.createTenant()];
  const alone: string[] = [];
  while (alone.length < 4) alone.push(await fixture.createTenant(1));
  const group = await fixture.begin(together);
  const singles = await Promise.all(alone.map((tenant) => fixture.begin([tenant])));
  const over = await fixture.untilOver(group);
  expect(over).toMatchObject({ step: "done", tries: 1 });
  for (const id of singles) expect(await fixture.untilOver(id)).toMatchObject({ step: "done" });
  for (const tenant of [...together, ...alone]) {
    expect(await fixture.placed(tenant)).toBe("cell-b 2 active");
  }
  expect(await fixture.leftovers()).toEqual([]);
});

test("a paused move begins no other step, and goes on when it is resumed", async () => {
  const tenant = await fixture.createTenant();
  const id = await fixture.begin([tenant], { switch: "manual" });
  await fixture.until(id, ({ step }) => step === "ready");
  await fixture.ask(id, { paused: true });
  await fixture.ask(id, { wish: "switch" });
  const waiting = await fixture.begin([await fixture.createTenant()]);
  await fixture.untilOver(waiting);
  expect(await fixture.see(id)).toMatchObject({ step: "ready", tries: 0 });
  await fixture.ask(id, { paused: false });
  expect(await fixture.untilOver(id)).toMatchObject({ step: "done" });
});

test("a move does not switch while the lever is engaged, and a way back does", async () => {
  const { database } = fixture;
  const soaking = await fixture.createTenant();
  const there = await fixture.begin([soaking], { soakMs: 3_600_000 });
  await fixture.until(there, ({ step }) => step === "soaking");
  const lever = { engaged: true, by: "ada", reason: "month end" };
  await database.transaction((tx) => setLever(tx, lever));
  const id = await fixture.begin([await fixture.createTenant()]);
  await fixture.until(id, ({ headline }) => headline.includes("the lever is engaged"));
  const back = await fixture.begin([soaking], {}, there);
  expect(await fixture.untilOver(back)).toMatchObject({ step: "done" });
  expect(await fixture.see(id)).toMatchObject({ step: "ready" });
  await database.transaction((tx) => setLever(tx, { ...lever, engaged: false }));
  expect(await fixture.untilOver(id)).toMatchObject({ step: "done" });
});

test("somebody asks to compare once more, and to switch", async () => {
  const tenant = await fixture.createTenant();
  const id = await fixture.begin([tenant], { switch: "manual" });
  await fixture.until(id, ({ step }) => step === "ready");
  await fixture.ask(id, { wish: "verify" });
  const again = await fixture.until(id, (view) => view.verifications.length === 2);
  expect(again.verifications.map(({ phase }) => phase)).toEqual(["before-switch", "before-switch"]);
  await fixture.until(id, ({ step }) => step === "ready");
  await fixture.ask(id, { wish: "switch" });
  expect(await fixture.untilOver(id)).toMatchObject({ step: "done" });
});

test("a way back that is cancelled leaves the first move as it was: it can be taken back again", async () => {
  const { cells } = fixture;
  const tenant = await fixture.createTenant();
  const there = await fixture.begin([tenant], { soakMs: 3_600_000 });
  await fixture.until(there, ({ step }) => step === "soaking");
  const back = await fixture.begin([tenant], { switch: "manual" }, there);
  await fixture.until(back, ({ step }) => step === "ready");
  await fixture.ask(back, { wish: "cancel" });
  expect(await fixture.untilOver(back)).toMatchObject({ step: "cancelled" });
  expect(await fixture.placed(tenant)).toBe("cell-b 2 active");
  await cells.write(cells.b.app, tenant, 79);
  const written = await cells.rowsOf(cells.b, tenant);
  const again = await fixture.begin([tenant], {}, there);
  expect(await fixture.untilOver(again)).toMatchObject({ step: "done" });
  expect(await cells.rowsOf(cells.a, tenant)).toEqual(written);
  expect(await fixture.placed(tenant)).toBe("cell-a 3 active");
  expect(await fixture.leftovers()).toEqual([]);
});

test("rows that differ after the switch: the tenant goes back to the source, and nothing is removed", async () => {
  const { cells } = fixture;
  const tenant = await fixture.createTenant();
  const before = await cells.rowsOf(cells.a, tenant);
  await executor.close();
  executor = await fixture.lead({
    onBoundary: async ({ op, step, when }) => {
      // Behind the move's back, between comparison and fence.
      if (step !== "holding" || when !== "before" || op !== damaged) return;
      await cells.b.admin.query(losingRows(tenant));
    },
  });
  const damaged = await fixture.begin([tenant], { switch: "manual", pauseBudgetMs: 5000 });
  await fixture.ask(damaged, { wish: "switch" });
  const over = await fixture.untilOver(damaged);
  expect(over.verifications.at(-1)).toMatchObject({ phase: "after-switch", equal: false });
  expect(over.headline).toContain("taken back by");
  const back = must(
    (await listMoves(fixture.database.read, { before: undefined, limit: 1 }))[0],
    "way back",
  );
  expect(back.move.reverses).toBe(damaged);
  await fixture.until(back.op.id, ({ step }) => step === "diverged");
  expect(await fixture.placed(tenant)).toBe("cell-a 3 active");
  expect(await cells.rowsOf(cells.a, tenant)).toEqual(before);
  // What differs stays to be looked at, until somebody has.
  expect(await cells.countOf(cells.b, tenant)).toBeGreaterThan(0);
  await fixture.ask(back.op.id, { wish: "complete" });
  expect(await fixture.untilOver(back.op.id)).toMatchObject({ step: "done" });
  expect(await fixture.leftovers()).toEqual([]);
});

/** As if the stream had lost them: with an origin, so that the way back does not carry it. */
const losingRows = (tenant: string): string => `
  select pg_replication_origin_create('test');
  select pg_replication_origin_session_setup('test');
  set session_replication_role = replica;
  delete from notes where tenant_id = '${tenant}';
  reset session_replication_role;
  select pg_replication_origin_session_reset();
  select pg_replication_origin_drop('test');`;

test("locks and transactions of others are waited for, and told; then the move goes on", async () => {
  const { cells } = fixture;
  const { a } = cells;
  const tenant = await fixture.createTenant();
  const other = await fixture.createTenant();
  const [locker, writer] = [await a.connect(), await a.connect(storeRoles.appRole)];
  await locker.query("begin; lock table orders in share update exclusive mode");
  const id = await fixture.begin([tenant]);
  await fixture.until(id, ({ headline }) => /^preparing, tried 1 .*55P03/.test(headline));
  await writer.query("begin");
  await cells.write(writer, other);
  await locker.query("rollback");
  const waiting = await fixture.until(id, ({ headline }) => /^the copy begins/.test(headline));
  expect(waiting).toMatchObject({ step: "copying", state: "running" });
  expect(waiting.headline).toMatch(/process \d+ \(shop_app in cell-a, idle in transaction\)/);
  await writer.query("commit");
  expect(await fixture.untilOver(id)).toMatchObject({ step: "done", failure: null });
  expect(await fixture.leftovers()).toEqual([]);
});

/** As an agent does: what it is told of a key, applied. */
async function obey(store: CellStore, tenant: string): Promise<string | undefined> {
  const { changes } = await readChanges(fixture.database.read, store.name, 0);
  const told = changes.filter(({ key }) => key === `default/tenant/${tenant}`);
  await store.agent.query("select from cellfleet.apply_ownership($1, null, 5000)", [
    JSON.stringify(told),
  ]);
  return told[0]?.state;
}

test("who is suspended while the move soaks is refused by the target, and the soak waits for it", async () => {
  const { cells, database } = fixture;
  const [resumed, ended] = [await fixture.createTenant(), await fixture.createTenant()];
  const moves = [
    await fixture.begin([resumed], { soakMs: 3_600_000 }),
    await fixture.begin([ended], { soakMs: 3_600_000 }),
  ] as const;
  for (const id of moves) await fixture.until(id, ({ step }) => step === "soaking");
  const opId = newOpId(systemRandom, systemClock.nowMs());
  for (const tenant of [resumed, ended]) {
    await database.transaction((tx) =>
      markPlacement(tx, `default/tenant/${tenant}`, "suspended", opId),
    );
    expect(await obey(cells.b, tenant)).toBe("fenced");
    await expect(cells.write(cells.b.app, tenant, 80)).rejects.toThrow();
  }
  const soakUntil = new Date(0);
  await database.read
    .update(move)
    .set({ soakUntil })
    .where(inArray(move.op, [...moves]));
  executor.moving.wake();
  await fixture.until(moves[0], ({ headline }) => headline.includes("is suspended"));
  expect(await fixture.see(moves[0])).toMatchObject({ step: "soaking", state: "running" });
  // Ended all the same when somebody says so: the tenant can be deleted then.
  await fixture.ask(moves[1], { wish: "complete" });
  expect(await fixture.untilOver(moves[1])).toMatchObject({ step: "done" });
  expect(await fixture.placed(ended)).toBe("cell-b 2 suspended");
  expect(await cells.countOf(cells.a, ended)).toBe(0);
  const key = `default/tenant/${resumed}`;
  const again = newOpId(systemRandom, systemClock.nowMs());
  await database.transaction((tx) => markPlacement(tx, key, "hold", again));
  expect(await obey(cells.b, resumed)).toBe("active");
  await database.transaction((tx) => setKeyState(tx, { key, from: "hold", to: "active" }));
  await cells.write(cells.b.app, resumed, 81);
  expect(await fixture.untilOver(moves[0])).toMatchObject({ step: "done", state: "done" });
  expect(await fixture.placed(resumed)).toBe("cell-b 2 active");
  expect(await fixture.leftovers()).toEqual([`cell-b: fenced default/tenant/${ended}`]);
});
