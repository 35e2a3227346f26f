/**
 * A database that stands still without being gone: its processes are stopped, its sockets stay open. Nobody
 * may wait for it with a tenant fenced, and what it does when it goes on must be void.
 */
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import type { CellStore } from "../../../tests/cell-store.ts";
import { eventually } from "../../control.fixture.ts";
import { type Executor, type MovingFixture, startMovingFixture } from "./moving.fixture.ts";
import type { MoveBoundary } from "./world.ts";

let fixture: MovingFixture;
let executor: Executor;
let onBoundary: MoveBoundary = async () => {};
const stopped = new Set<number>();

beforeAll(async () => {
  fixture = await startMovingFixture();
});
afterAll(async () => {
  await fixture?.close();
});
beforeEach(async () => {
  onBoundary = async () => {};
  executor = await fixture.lead({ onBoundary: (at) => onBoundary(at) });
});
afterEach(async () => {
  letGo();
  await executor?.close();
});

/** All that the mover has open there for switches. */
async function stopIn(store: CellStore): Promise<void> {
  const { rows } = await store.admin.query<{ pid: number }>(
    `select pid from pg_stat_activity
      where application_name = 'cellfleet switch' and datname = current_database()`,
  );
  for (const { pid } of rows) {
    process.kill(pid, "SIGSTOP");
    stopped.add(pid);
  }
}

function letGo(): void {
  for (const pid of stopped) process.kill(pid, "SIGCONT");
  stopped.clear();
}

test.each(["a", "b"] as const)(
  "cell-%s stands still before it is drained: the source serves meanwhile, and the next try works",
  async (name) => {
    const { cells } = fixture;
    const tenant = await fixture.createTenant();
    const rows = await cells.rowsOf(cells.a, tenant);
    onBoundary = async ({ op, step, when }) => {
      if (step === "draining" && when === "before") await stopIn(cells[name]);
      // The next try waits until this one has been looked at.
      if (step !== "releasing" || when !== "after") return;
      onBoundary = async () => {};
      await fixture.ask(op, { paused: true });
    };
    const id = await fixture.begin([tenant], { pauseBudgetMs: 500, switch: "manual" });
    await fixture.until(id, ({ step }) => step === "ready");
    await fixture.ask(id, { wish: "switch" });
    const back = await fixture.until(id, ({ tries, step }) => tries === 1 && step === "ready");
    expect(back.headline).toContain("was not over");
    // It still stands, and is waited for by nobody.
    expect(stopped.size).toBeGreaterThan(0);
    expect(await fixture.placed(tenant)).toBe("cell-a 1 active");
    await cells.write(cells.a.app, tenant);
    const after = await cells.rowsOf(cells.a, tenant);
    expect(after).not.toEqual(rows);
    letGo();
    await fixture.ask(id, { paused: false });
    expect(await fixture.untilOver(id)).toMatchObject({ step: "done" });
    expect(await fixture.placed(tenant)).toBe("cell-b 2 active");
    expect(await cells.rowsOf(cells.b, tenant)).toEqual(after);
    expect(await cells.countOf(cells.a, tenant)).toBe(0);
    expect(await fixture.leftovers()).toEqual([]);
  },
);

test("the target's connections stand still when it is to take over: it does by others", async () => {
  const { cells } = fixture;
  const tenant = await fixture.createTenant();
  const rows = await cells.rowsOf(cells.a, tenant);
  onBoundary = async ({ step, when }) => {
    if (step === "activating" && when === "before" && stopped.size === 0) await stopIn(cells.b);
  };
  const id = await fixture.begin([tenant], { pauseBudgetMs: 5000 });
  const owned = "select state, epoch::integer as epoch from cellfleet.ownership where key = $1";
  await eventually(
    async () => (await cells.b.admin.query(owned, [`default/tenant/${tenant}`])).rows[0],
    (row) => row?.state === "active" && row.epoch === 2,
  );
  expect(stopped.size).toBeGreaterThan(0);
  await eventually(
    () => fixture.placed(tenant),
    (placed) => placed === "cell-b 2 active",
  );
  letGo();
  expect(await fixture.untilOver(id)).toMatchObject({ step: "done", tries: 1 });
  expect(await cells.rowsOf(cells.b, tenant)).toEqual(rows);
  expect(await fixture.leftovers()).toEqual([]);
});
